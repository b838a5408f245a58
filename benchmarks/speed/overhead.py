"""What the training loop and its default hooks add to the step that they call."""

import logging
import tempfile
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import torch

from openselfsup.engine.config import load_config
from openselfsup.engine.runner import Runner
from openselfsup.training.launch import Launch

from .timing import Case, on_threads

ROOT = Path(__file__).resolve().parents[2]
STEPS = 20  # of one sample, with one line of metrics: more often than a run writes them
OPTIONS = ['dataset.recipe.size=64', 'global_batch_size=16', f'log_interval={STEPS}', 'workers=0',
           f"dataset.source.root='{ROOT / 'data/demo'}'"]


class _OneBatch:
    """Stands for a loader whose batch is always ready, in an epoch that does not end."""

    def __init__(self, loader):
        self.loader = loader

    def __len__(self) -> int:
        return 10 ** 6

    def __getattr__(self, name: str):
        return getattr(self.loader, name)


def overhead_cases() -> Iterator[Case]:
    """Yield the loop around a step that does nothing, and around a small PLM step."""
    with tempfile.TemporaryDirectory(prefix='speed_') as folder:
        cfg = load_config(ROOT / 'configs/demo/plm_r18.py', OPTIONS)
        runner = Runner(cfg, Launch(0, 1, torch.device('cpu')), folder)
        step, batch = runner.step, runner.loader.make_batch(0, 0)
        for handler in runner.logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel('WARNING')  # the table is for the console
        runner.call_hooks('before_train')
        runner.loader = _OneBatch(runner.loader)
        rates = runner.learning_rates
        runner.learning_rates = [float(rates[0])] * 10 ** 6
        runner.decays = [float(runner.decays[0])] * 10 ** 6
        runner.model.train()
        runner.call_hooks('before_epoch')
        outputs = step(repeat(batch), 1, 0.0)

        def nothing(batches, count, lr, progress=None, decay=1.0, rows=None):
            return outputs

        def with_hooks(work) -> None:
            runner.step = work
            for _ in range(STEPS):
                runner.train_step(repeat(batch))

        def bare(work) -> None:
            for _ in range(STEPS):
                work(repeat(batch), 1, 0.0)

        yield Case('overhead_empty', 'our loop with all default hooks against a bare loop, around '
                                     'a step that does nothing, one core',
                   on_threads(1, lambda: with_hooks(nothing)),
                   on_threads(1, lambda: bare(nothing)), items=STEPS, unit='steps/s',
                   difference=True)
        yield Case('overhead', 'the same around a PLM step of ResNet-18, 16 pairs of 64 px, one '
                               'core',
                   on_threads(1, lambda: with_hooks(step)), on_threads(1, lambda: bare(step)),
                   items=STEPS, unit='steps/s', calls=1, difference=True)
        runner.call_hooks('after_train')
