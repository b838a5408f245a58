"""A whole PLM step of ResNet-18: forward, backward, update."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from openselfsup.registry import ALGORITHMS
from openselfsup.training.allocator import keep_freed_memory
from openselfsup.training.optimizers import build_optimizer
from openselfsup.training.precision import resolve
from openselfsup.training.preprocessor import Preprocessor
from openselfsup.training.step import TrainStep
from openselfsup.views import ViewRecipe, cell_boxes

from .published_plm import PublishedPLM
from .timing import Case
from .worker_process import WorkerProcess

BATCH, SIZE, GRID = 64, 224, 7
CPU = torch.device('cpu')
SGD = dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=1e-4)
NORMALIZE = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
MODEL = dict(
    type='PLM', backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
    neck=dict(type='DenseCLNeck', in_channels=512, hid_channels=512, out_channels=128),
    matching_neck=dict(type='MatchingNeck', channels=128))


def random_batch(batch: int, size: int) -> dict:
    """Return uint8 views of noise with the geometry of the published recipe."""
    generator = torch.Generator().manual_seed(0)
    recipe = ViewRecipe(size, [dict(type='RandomResizedCrop', scale=(0.2, 1.0)),
                               dict(type='HorizontalFlip')])
    sizes = torch.tensor([[size, size]]).expand(batch, -1)
    views = [torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8,
                           generator=generator).permute(0, 3, 1, 2) for _ in range(2)]
    maps = torch.stack([recipe.draw(sizes, generator)['view_to_tile'] for _ in range(2)], 1)
    return dict(views=views, view_to_tile=maps)


def our_step(amp: str = 'auto') -> TrainStep:
    """Return our step on the CPU."""
    model = ALGORITHMS.build(MODEL).to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(model, SGD, SGD['lr'])
    return TrainStep(model, Preprocessor(**NORMALIZE), optimizer, resolve(amp, CPU))


def our_work(batch_size: int, size: int) -> Callable[[], object]:
    """Return a call of our step, in a process that trains: it keeps the memory that it frees."""
    keep_freed_memory()
    torch.manual_seed(0)
    batch, step = random_batch(batch_size, size), our_step()
    return lambda: step(iter([batch]), 1, 0.03)


def published_work(batch_size: int, size: int, grid: int) -> Callable[[], object]:
    """Return a call of the published step."""
    torch.manual_seed(0)
    batch, model = random_batch(batch_size, size), PublishedPLM().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    views = [Preprocessor(**NORMALIZE, channels_last=False).normalize(v.contiguous())
             for v in batch['views']]
    boxes = cell_boxes(batch['view_to_tile'], grid)

    def step() -> None:
        optimizer.zero_grad()
        model(views, boxes).backward()
        optimizer.step()

    return step


def step_cases() -> Iterator[Case]:
    """Yield the step of 64 pairs at 224 px, ours in the precision that a run takes here."""
    precision = dict(off='float32').get(resolve('auto', CPU), 'bf16')
    ours = WorkerProcess(partial(our_work, BATCH, SIZE))
    theirs = WorkerProcess(partial(published_work, BATCH, SIZE, GRID))
    yield Case('step', f'PLM step, ResNet-18, {BATCH} pairs of {SIZE} px, {precision} '
                       'channels_last against float32 contiguous',
               ours, theirs, items=BATCH, unit='pairs/s', calls=1, memory=True)
