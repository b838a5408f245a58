"""What a GPU makes of a training step, and whether packed tiles keep it busy.

    python -m benchmarks.speed.gpu [--json OUT]

Pairs per second of MoCo v2 and PLM (ResNet-18, bf16, channels_last) with and without
torch.compile; PLM end to end from a store of packed tiles against the same step on views that
are on the device already; and what views, loss, moving average and logging take of a step.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

import torch
from rich.console import Console

from openselfsup.datasets import ImageFolder, TileDataset, ViewLoader, pack
from openselfsup.registry import ALGORITHMS
from openselfsup.training.environment import describe_environment
from openselfsup.training.optimizers import build_optimizer
from openselfsup.training.preprocessor import Preprocessor, can_compile
from openselfsup.training.progress import Meter
from openselfsup.training.step import TrainStep

from .step import MODEL, NORMALIZE, SGD
from .tiles import MOCO, write_tiffs

POOLED = dict(type='NonLinearNeck', in_channels=512, hid_channels=512, out_channels=128)
MODELS = dict(moco=dict(type='MoCo', backbone=MODEL['backbone'], neck=POOLED), plm=MODEL)


class Bench:
    """A device, sizes, and a clock that waits for the device."""

    def __init__(self, device: str, batch: int, size: int, steps: int, repeats: int):
        self.device, self.batch, self.size = torch.device(device), batch, size
        self.steps, self.repeats = steps, repeats

    def synchronise(self) -> None:
        """Wait until the device has done all that it was asked for."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize()

    def seconds(self, **ways: Callable[[], object]) -> dict[str, list[float]]:
        """Time one call of each way, averaged over ``steps``, ``repeats`` times in turn."""
        for work in ways.values():
            for _ in range(3):
                work()
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(self.repeats):
            for name, work in ways.items():
                self.synchronise()
                start = time.perf_counter()
                for _ in range(self.steps):
                    work()
                self.synchronise()
                samples[name].append((time.perf_counter() - start) / self.steps)
        return samples

    def step(self, name: str, compiled: bool, recipes: list = ()) -> TrainStep:
        """Return a training step of a method."""
        torch.manual_seed(0)
        model = ALGORITHMS.build(MODELS[name]).to(self.device, memory_format=torch.channels_last)
        if compiled:
            model.encoder_q['backbone'].compile()
            model.encoder_k['backbone'].compile()
        preprocessor = Preprocessor(**NORMALIZE, recipes=recipes,
                                    compile=can_compile(self.device)).to(self.device)
        return TrainStep(model.train(), preprocessor, build_optimizer(model, SGD, SGD['lr']))

    def batches(self, loader: ViewLoader) -> Iterator[dict]:
        """Yield batches without end."""
        for epoch in range(10 ** 6):
            loader.set_position(epoch)
            yield from loader

    def on_device(self, loader: ViewLoader) -> dict:
        """Return a batch of views whose images are on the device."""
        batch = loader.make_batch(0, 0, render='cpu')
        views = [view.to(self.device) for view in batch['views']]
        return dict(views=views, view_to_tile=batch['view_to_tile'].to(self.device))


def methods(bench: Bench, batch: dict) -> Iterator[tuple[str, float]]:
    """Yield pairs/s of each method, compiled and not, on views that are on the device."""
    for name in MODELS:
        ways = {}
        for compiled in (False, True)[:1 + can_compile(bench.device)]:
            step = bench.step(name, compiled)
            ways[f"{name}{'_compiled' if compiled else ''}"] = (
                lambda step=step: step(repeat(batch), 1, 0.03))
        for way, samples in bench.seconds(**ways).items():
            yield way, bench.batch / statistics.median(samples)


def end_to_end(bench: Bench, loader: ViewLoader, batch: dict) -> dict:
    """Return PLM's pairs/s from packed tiles, and their ratio to those without a loader."""
    step, stream = bench.step('plm', False, loader.dataset.recipes), bench.batches(loader)
    loader.take_wait()
    samples = bench.seconds(packed=lambda: step(stream, 1, 0.03),
                            ready=lambda: step(repeat(batch), 1, 0.03))
    stream.close()
    ratios = [r / p for p, r in zip(samples['packed'], samples['ready'])]
    return dict(packed=bench.batch / statistics.median(samples['packed']),
                ready=bench.batch / statistics.median(samples['ready']),
                ratio=statistics.median(ratios), spread=(min(ratios), max(ratios)))


def shares(bench: Bench, loader: ViewLoader) -> dict[str, float]:
    """Return what parts of PLM's step take when done alone, as shares of the whole step."""
    step = bench.step('plm', False, loader.dataset.recipes)
    raw = loader.make_batch(0, 0)
    views, maps = step.preprocessor(raw)
    model, grids = step.algorithm, {}

    def remember(queries, keys, matching):
        grids.update(queries=queries, keys=keys, matching=matching)
        return type(model).contrast(model, queries, keys, matching)

    model.contrast = remember
    outputs = step(repeat(raw), 1, 0.03)
    del model.contrast
    queries = tuple(q.detach().requires_grad_() for q in grids['queries'])
    meter = Meter()

    def loss() -> None:
        with torch.autocast(bench.device.type, torch.bfloat16):
            out = model.contrast(queries, grids['keys'], grids['matching'])
        sum(v for k, v in out.items() if k.startswith('loss')).backward()

    samples = bench.seconds(step=lambda: step(repeat(raw), 1, 0.03),
                            views=lambda: step.preprocessor(raw), loss=loss,
                            ema=model._update_key_encoder,
                            logging=lambda: meter.add(outputs))
    seconds = {name: statistics.median(s) for name, s in samples.items()}
    return {name: value / seconds['step'] for name, value in seconds.items() if name != 'step'}


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.speed.gpu', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--batch', type=int, default=256)
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--tiles', type=int, default=8192, help='tiles in the store')
    parser.add_argument('--steps', type=int, default=20, help='steps of one sample')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--workers', type=int, default=4)
    parser.add_argument('--json', metavar='OUT')
    args = parser.parse_args()
    bench = Bench(args.device, args.batch, args.size, args.steps, args.repeats)
    recipe = dict(type='ViewRecipe', size=args.size, steps=MOCO)
    console = Console(width=120)
    figures: dict = dict(machine=describe_environment(bench.device, 1), batch=args.batch)
    with tempfile.TemporaryDirectory(prefix='speed_') as store:
        folder = write_tiffs(args.tiles)
        packed = pack(ImageFolder(folder.name), store)
        folder.cleanup()
        loader = ViewLoader(TileDataset(packed, recipe), args.batch, workers=args.workers,
                            render='device')
        batch = bench.on_device(loader)
        figures['pairs_per_s'] = dict(methods(bench, batch))
        figures['end_to_end'] = end_to_end(bench, loader, batch)
        figures['shares'] = shares(bench, loader)
    console.print(figures)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=2) + '\n')


if __name__ == '__main__':
    main()
