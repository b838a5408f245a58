"""InfoNCE of PLM's dense rows, NT-Xent of a large batch: forward and backward."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from openselfsup.models.losses import info_nce, nt_xent
from openselfsup.views import match_cells

from . import published
from .matching import GRID, pairs_of_views
from .timing import Case, on_threads

# 64 pairs of 7 x 7 cells, both directions; the published queue.
ROWS, QUEUE, DIM, TEMPERATURE = 6272, 16384, 128, 0.2
BATCH = 1792


def _unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def loss_cases() -> Iterator[Case]:
    """Yield InfoNCE in bf16 and float32, of rows weighted as views cover each other."""
    matching = match_cells(*pairs_of_views(), GRID)
    weights = torch.cat([matching.weight_q, matching.weight_k]).flatten()[:ROWS]
    no_part = f'{(weights == 0).float().mean():.0%} of the rows of weight 0'
    for name, autocast in (('loss_bf16', True), ('loss_fp32', False)):
        torch.manual_seed(0)
        query, positive = _unit(ROWS, DIM).requires_grad_(), _unit(ROWS, DIM)
        queue = _unit(QUEUE, DIM)
        transposed = queue.T.contiguous()

        def ours(query=query, positive=positive, queue=queue, on=autocast):
            with torch.autocast('cpu', torch.bfloat16, enabled=on):
                loss = info_nce(query, positive, queue, TEMPERATURE, weights)
            return torch.autograd.grad(loss, query)

        def theirs(query=query, positive=positive, queue=transposed):
            # The published step runs in float32 throughout.
            return torch.autograd.grad(
                published.info_nce(query, positive, queue, TEMPERATURE, weights), query)

        precision = 'bf16 against float32' if autocast else 'float32'
        yield Case(name, f'InfoNCE {ROWS} x {QUEUE} x {DIM}, forward + backward, {no_part}, one '
                         f'core, {precision}',
                   on_threads(1, ours), on_threads(1, theirs), items=ROWS, unit='rows/s',
                   memory=True)


def ntxent_cases() -> Iterator[Case]:
    """Yield NT-Xent at CA2CL's batch size."""
    torch.manual_seed(0)
    a, b = _unit(BATCH, DIM).requires_grad_(), _unit(BATCH, DIM).requires_grad_()
    mask = published.nt_xent_mask(BATCH)
    yield Case('ntxent', f'NT-Xent, 2 x {BATCH} vectors of {DIM}, forward + backward, one core, '
                         'float32',
               on_threads(1, lambda: torch.autograd.grad(nt_xent(a, b, TEMPERATURE), (a, b))),
               on_threads(1, lambda: torch.autograd.grad(
                   published.nt_xent(a, b, TEMPERATURE, mask), (a, b))),
               items=BATCH, unit='pairs/s', memory=True)
