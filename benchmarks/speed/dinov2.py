"""A DINOv2 step of a ViT against the bare model, and with patches matched by their place."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from openselfsup.datasets import ViewLoader
from openselfsup.engine.config import load_config
from openselfsup.models.algorithms.self_distillation import SelfDistillation
from openselfsup.models.method import Geometry
from openselfsup.registry import ALGORITHMS, DATASETS
from openselfsup.training.allocator import keep_freed_memory
from openselfsup.training.optimizers import build_optimizer
from openselfsup.training.precision import resolve
from openselfsup.training.preprocessor import Preprocessor, can_compile
from openselfsup.training.step import TrainStep

from .timing import Case
from .worker_process import WorkerProcess

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/DINOv2/vits14_continue_1gpu_plm.py'
BATCH = 2
CPU = torch.device('cpu')
# The backbone learns from the first step on, as it does in all but the first epoch of a run.
CHANGES = [f"dataset.source.root='{ROOT / 'data/demo'}'", 'model.heads_only_epochs=0',
           'model.backbone_warmup_epochs=0']


def config(matched: bool = False, changes: tuple[str, ...] = ()) -> Any:
    """Return the config of a run, with its matched patches or without."""
    cfg = load_config(CONFIG, [*CHANGES, *changes])
    if not matched:
        cfg.model.matched = None
    return cfg


def build_step(cfg: Any, geometry: Geometry, device: torch.device = CPU,
               recipes: Sequence = ()) -> TrainStep:
    """Return the step that a run of this config would take.

    Args:
        cfg: of the run.
        geometry: of its views.
        device: where it is computed.
        recipes: of views that are rendered there.
    """
    torch.manual_seed(0)
    model = ALGORITHMS.build(cfg.model).to(device, memory_format=torch.channels_last).train()
    model.set_geometry(geometry)
    preprocessor = Preprocessor(**cfg.normalize, recipes=recipes,
                                compile=can_compile(device)).to(device)
    optimizer = build_optimizer(model, cfg.optimizer, cfg.optimizer.lr)
    return TrainStep(model, preprocessor, optimizer, resolve('auto', device), cfg.clip_grad,
                     cfg.clip_grad_by)


def bare_model(step: TrainStep, batch: dict) -> Callable[[], None]:
    """Return a call of the teacher's forward pass and the student's both ways, nothing else."""
    views, _ = step.preprocessor(batch)
    model = step.algorithm
    assert isinstance(model, SelfDistillation)

    def work() -> None:
        with step.optimizer_step.autocast():
            crops = model.look(views)
            out = sum(seen.cls.float().mean() + seen.patches.float().mean()
                      for seen in crops.student)
        out.backward()
        model.zero_grad()

    return work


def cpu_work(what: str, batch_size: int, changes: tuple[str, ...]) -> Callable[[], object]:
    """Return a call of the bare model, or of a step that is 'plain' or 'matched'."""
    keep_freed_memory()
    cfg = config(matched=what == 'matched', changes=changes)
    dataset = DATASETS.build(cfg.dataset)
    batch = ViewLoader(dataset, batch_size, workers=0).make_batch(0, 0)
    step = build_step(cfg, dataset.geometry)
    if what == 'bare':
        return bare_model(step, batch)
    return lambda: step(repeat(batch), 1, cfg.optimizer.lr)


def dinov2_cases(changes: tuple[str, ...] = ()) -> Iterator[Case]:
    """Yield the step against the bare model, and the step with matched patches against it."""
    bare, plain, matched = (WorkerProcess(partial(cpu_work, what, BATCH, changes))
                            for what in ('bare', 'plain', 'matched'))
    sizes = f'ViT-S/14, {BATCH} tiles, 2 crops of 224 and 8 of 98 px, 8,192 prototypes'
    yield Case('dinov2', f'DINOv2 step against forward and backward of the bare model, {sizes}',
               plain, bare, items=BATCH, unit='tiles/s', calls=1, memory=True)
    yield Case('dinov2_matched', f'the step with matched patches against that without, {sizes}',
               matched, plain, items=BATCH, unit='tiles/s', calls=1, memory=True)
