"""Small runs of the demo config, and what to compare of them."""

import os
import subprocess
import sys
from pathlib import Path

import torch

REPO = Path(__file__).resolve().parents[2]
DEMO = REPO / 'configs/demo/plm_r18.py'
# 51 real tiles, 3 steps an epoch: seconds on a CPU.
SMALL = ['dataset.source.root=data/demo/kather2016', 'dataset.recipe.size=64',
         'global_batch_size=16', 'model.queue_len=40', 'epochs=2', 'log_interval=1', 'workers=2',
         'schedule.warmup_epochs=1']


def small_run(config: Path, work_dir: Path, *arguments: str, options: tuple = ()) -> list[str]:
    """Return the script and the arguments of a small run."""
    return ['tools/train.py', str(config), '--work-dir', str(work_dir), *arguments,
            '--cfg-options', *SMALL, *options]


def command(*arguments: object, **options: tuple) -> list[str]:
    """Return the command line of a small run, see :func:`small_run`."""
    return [sys.executable, *small_run(*arguments, **options)]


def start(words: list[str], **environment: str) -> subprocess.Popen:
    """Start a command in the repository, its output captured as text."""
    return subprocess.Popen(words, cwd=REPO, env={**os.environ, **environment}, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def assert_same_state(first: Path, second: Path) -> None:
    """Two checkpoints hold the same numbers, bit for bit."""
    a, b = (torch.load(path, weights_only=True) for path in (first, second))
    assert a['state_dict'].keys() == b['state_dict'].keys()
    for key, value in a['state_dict'].items():
        assert value.equal(b['state_dict'][key]) if torch.is_tensor(value) else (
            value == b['state_dict'][key]), key
    for index, state in a['optimizer']['state'].items():
        for key, value in state.items():
            assert torch.equal(value, b['optimizer']['state'][index][key]), (index, key)
    for key in ('epoch', 'iteration', 'step'):
        assert a['meta'][key] == b['meta'][key]
