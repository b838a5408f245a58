import json
from pathlib import Path

import pytest
import torch

GOLDEN = Path(__file__).parents[1] / 'data' / 'golden'


def random_state(keys_file: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors of the names and shapes of a published checkpoint."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in json.loads((GOLDEN / keys_file).read_text()).items():
        if name.endswith(('num_batches_tracked', '_ptr')):
            state[name] = torch.zeros(shape, dtype=torch.int64)
        else:
            state[name] = torch.rand(shape, generator=generator)
    return state


@pytest.fixture(scope='session')
def plm_state() -> dict[str, torch.Tensor]:
    """State of a published PLM checkpoint; both copies of the query backbone are the same."""
    state = random_state('plm_r18_checkpoint_keys.json')
    for name in state:
        if name.startswith('backbone.'):
            state[name] = state['encoder_q.0.' + name.removeprefix('backbone.')].clone()
    return state


@pytest.fixture(scope='session')
def ca2cl_state() -> dict[str, torch.Tensor]:
    """State of a published CA2CL checkpoint."""
    return random_state('ca2cl_r18_checkpoint_keys.json')
