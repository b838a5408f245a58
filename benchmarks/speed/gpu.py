"""What a GPU makes of a training step, and whether packed tiles keep it busy.

    python -m benchmarks.speed.gpu [--json OUT]

Pairs per second of MoCo v2 and PLM (ResNet-18, bf16, channels_last) with and without
torch.compile; PLM end to end from a store of packed tiles against the same step on views that
are on the device already; and what views, loss, moving average and logging take of a step. Tiles
per second of a DINOv2 step (2 x 224 + 8 x 98 px) of ViT-S/14, B/14 and L/14 from packed tiles and
from views on the device, as shares of the bare model's forward and backward passes, with and
without matched patches, and the memory of each.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from openselfsup.datasets import ImageFolder, TileDataset, ViewLoader, pack
from openselfsup.datasets.sources import Source
from openselfsup.registry import ALGORITHMS, DATASETS
from openselfsup.training.environment import describe_environment
from openselfsup.training.optimizers import build_optimizer
from openselfsup.training.preprocessor import Preprocessor, can_compile
from openselfsup.training.progress import Meter
from openselfsup.training.step import TrainStep

from . import dinov2
from .step import MODEL, NORMALIZE, SGD
from .tiles import MOCO, write_tiffs

POOLED = dict(type='NonLinearNeck', in_channels=512, hid_channels=512, out_channels=128)
MODELS = dict(moco=dict(type='MoCo', backbone=MODEL['backbone'], neck=POOLED), plm=MODEL)
VITS = ('small', 'base', 'large')


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

    def forget_memory(self) -> None:
        """Count the device's memory from here."""
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def memory(self) -> float | None:
        """Return the most of the device's memory that was held, in GB; None on a CPU."""
        return torch.cuda.max_memory_allocated() / 1e9 if self.device.type == 'cuda' else None

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


def dinov2_steps(bench: Bench, source: Source, batch: int, workers: int,
                 changes: tuple[str, ...] = ()) -> Iterator[tuple[str, dict]]:
    """Yield of each ViT what its DINOv2 step does, one network on the device at a time.

    Args:
        bench: times it.
        source: packed tiles.
        batch: of tiles.
        workers: of the loader.
        changes: of the config.
    """
    for name in VITS:
        network = (f"model.backbone.model='vit_{name}_patch14_reg4_dinov2'", *changes)
        plain, matched = (dinov2_step(bench, dinov2.config(wanted, network), source, batch,
                                      workers) for wanted in (False, True))
        yield name, dict(plain=plain, matched=matched,
                         matched_takes=plain['ready'] / matched['ready'])


def dinov2_step(bench: Bench, cfg: Any, source: Source, batch: int, workers: int
                ) -> dict[str, float | None]:
    """Return tiles/s of a step from packed tiles, on views that are on the device, and bare.

    Also the first two as shares of the bare model's, and the most memory in GB that they held.
    """
    dataset = DATASETS.build(dict(cfg.dataset, source=source))
    loader = ViewLoader(dataset, batch, workers=workers, render='device')
    ready, stream, rate = bench.on_device(loader), bench.batches(loader), cfg.optimizer.lr
    step = dinov2.build_step(cfg, dataset.geometry, bench.device, dataset.recipes)
    bench.forget_memory()
    samples = bench.seconds(packed=lambda: step(stream, 1, rate),
                            ready=lambda: step(repeat(ready), 1, rate))
    memory = bench.memory()
    samples |= bench.seconds(bare=dinov2.bare_model(step, ready))
    stream.close()
    tiles = {way: batch / statistics.median(times) for way, times in samples.items()}
    return dict(tiles, packed_of_bare=tiles['packed'] / tiles['bare'],
                ready_of_bare=tiles['ready'] / tiles['bare'], memory_gb=memory)


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
    parser.add_argument('--vit-batch', type=int, default=64, help='tiles of a DINOv2 step')
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
        figures['dinov2'] = dict(dinov2_steps(bench, packed, args.vit_batch, args.workers))
    console.print(figures)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=2) + '\n')


if __name__ == '__main__':
    main()
