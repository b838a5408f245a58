"""How long a save keeps a run waiting.

    python -m benchmarks.speed.saving [--repeats 7] [--folder DIR]

A state as a run of MoCo v2 with ResNet-50 and AdamW has it is written into a folder while the
caller waits (as before), and in the background (as runs do). Given are the median seconds, with
their whole spread, until the caller goes on, and until the file is there.
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from openselfsup.engine.saving import Saver
from openselfsup.registry import ALGORITHMS
from openselfsup.training.environment import describe_environment

MODEL = dict(type='MoCo', backbone=dict(type='ResNet', depth=50),
             neck=dict(type='NonLinearNeck', in_channels=2048, hid_channels=2048,
                       out_channels=128))


def state_of_a_run(model: dict, device: torch.device) -> dict:
    """Return the state of a model and its optimiser after one step."""
    module = ALGORITHMS.build(model).to(device)
    optimizer = torch.optim.AdamW(p for p in module.parameters() if p.requires_grad)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    return dict(state_dict=module.state_dict(), optimizer=optimizer.state_dict(), meta={})


def size_of(value: object) -> int:
    """Return the bytes of all tensors of a state."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, dict) else value
    return sum(map(size_of, items)) if isinstance(value, (dict, list, tuple)) else 0


def measure(state: dict, folder: Path, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Return, for each way of saving, the seconds until the run goes on and until all is there."""
    saver = Saver(folder, logging.getLogger(__name__))
    saver.save(state, 'latest.pth')
    found: dict[str, list[tuple[float, float]]] = dict(waiting=[], background=[])
    for repeat in range(repeats + 1):
        for name, samples in found.items():
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            start = time.perf_counter()
            saver.save(state, 'latest.pth', background=name == 'background')
            goes_on = time.perf_counter() - start
            saver.settle(wait=True)
            if repeat:  # the first one warms up
                samples.append((goes_on, time.perf_counter() - start))
    return found


def main(say: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--folder', help='where to write; default: a temporary folder')
    args = parser.parse_args()
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    state = state_of_a_run(MODEL, device)
    say(f"{describe_environment(device, 1)['processor']}, {size_of(state) / 1e6:.0f} MB")
    with tempfile.TemporaryDirectory(prefix='saving_', dir=args.folder) as folder:
        found = measure(state, Path(folder), args.repeats)
    for name, samples in found.items():
        text = ', '.join(
            f'{what} {statistics.median(times):.3f} s ({min(times):.3f} - {max(times):.3f})'
            for what, times in zip(('goes on after', 'is there after'), zip(*samples)))
        say(f'{name:<11} {text}')


if __name__ == '__main__':
    main()
