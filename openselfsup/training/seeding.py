"""Seeds as functions of where the run is, so that nothing has to be remembered."""

import os
import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), numpy and random, for what is built before the first step."""
    state = np.random.SeedSequence([seed % 2**32]).generate_state(2)
    torch.manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
    np.random.seed(state[0])
    random.seed(int(state[0]))


def seed_step(seed: int, rank: int, step: int) -> None:
    """Seed torch's default generators for one optimiser step (dropout and the like)."""
    state = np.random.SeedSequence([seed % 2**32, rank, step]).generate_state(1, np.uint64)
    number = int(state[0]) >> 1
    # torch.manual_seed does the same, but each call also keeps a stack trace for each kind of
    # device that is not in use: half a millisecond and some memory a step.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(number)


def make_deterministic() -> None:
    """Allow deterministic kernels only."""
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
