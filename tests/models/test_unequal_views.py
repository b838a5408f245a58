"""Views of unequal sizes: cells are matched each on its own grid, against loops over cells."""

import pytest
import torch
import torch.nn.functional as F
from methods import METHODS, build, with_options
from toy_model import batch_for, random_batch, train_step

from openselfsup.errors import UserError

# As many cells in another shape (5 x 8 and 8 x 5), and another number of them (7 x 7 and 4 x 9).
SIZES = [((40, 64), (64, 40)), ((56, 56), (32, 72)), ((32, 72), (56, 56))]
LOSSES = {'PLM': 'loss_contra_dense', 'PLMSimCLR': 'loss_dense', 'PLMConCL': 'loss_dense'}


def resized(views, sizes):
    return [*(F.interpolate(view, size=size) for view, size in zip(views, sizes)), *views[2:]]


def boxes(view_to_tile, rows, columns):
    """Return (left, right, top, bottom) on the tile of each cell, row by row."""
    (a, _, c), (_, e, f) = view_to_tile.tolist()
    return [(*sorted((a * j / columns + c, a * (j + 1) / columns + c)),
             *sorted((e * i / rows + f, e * (i + 1) / rows + f)))
            for i in range(rows) for j in range(columns)]


def brute_force(own, other):
    """Return coverage weights and matching of the cells with boxes ``own``, cell by cell."""
    shares = torch.tensor([[max(0., min(p[1], q[1]) - max(p[0], q[0]))
                            * max(0., min(p[3], q[3]) - max(p[2], q[2]))
                            / ((p[1] - p[0]) * (p[3] - p[2])) for q in other] for p in own],
                          dtype=torch.float64)
    return shares.sum(1), shares / shares.sum(1, keepdim=True).clamp_min(1e-12)


def expected_terms(method, views, maps):
    """Return w·CE and w of all cells of both views."""
    queue = hasattr(method, 'queue_dense')
    encoders = method.encoder_q, method.encoder_k if queue else method.encoder_q
    grids = [encoder['neck'](encoder['backbone'](view))[1]
             for encoder, view in zip(encoders, views)]
    pooled = [F.normalize(grid.mean((2, 3)), dim=1) for grid in grids]
    losses, weights = [], []
    for b in range(len(maps)):
        places = [boxes(maps[b, v], *grids[v].shape[2:]) for v in range(2)]
        cells = [grid[b].flatten(1).T for grid in grids]
        others = (method.queue_dense.vectors if queue else torch.cat(
            [one[torch.arange(len(maps)) != b] for one in pooled]))
        for v in range(2):
            weight, match = brute_force(places[v], places[1 - v])
            seen = encoders[1 - v]['matching_neck'].fc(match @ cells[1 - v])
            anchors, positives = F.normalize(cells[v], dim=1), F.normalize(seen, dim=1)
            if queue and v:  # keys are what queries are told to find
                anchors, positives = positives, anchors
            logits = torch.cat([(anchors * positives).sum(1, keepdim=True),
                                anchors @ others.T.to(anchors.dtype)], 1)
            losses.append(-weight * (logits / method.temperature).log_softmax(1)[:, 0])
            weights.append(weight)
    return torch.cat(losses), torch.cat(weights)


@pytest.mark.parametrize('sizes', SIZES)
@pytest.mark.parametrize('name', LOSSES)
def test_cells_are_matched_each_on_its_own_grid(name, sizes):
    options = dict(loss_lambda=1.) if name != 'PLMConCL' else dict(
        concept_weight=0., dense_weight=1., label_maps='exact')
    method = build(with_options(name, **options)).double()
    views, maps = batch_for(method, 3, seed=5)
    views = [view.double() for view in resized(views, sizes)]
    found = method.eval()(views, maps)
    losses, weights = expected_terms(method, views, maps.double())
    torch.testing.assert_close(found[LOSSES[name]].double(), losses.mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found['mean_coverage'].double(), weights.mean(),
                               rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found['matched_fraction'].double(),
                               (weights > 1e-6).double().mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', [*LOSSES, 'PLMVICRegL'])
def test_views_of_unequal_sizes_train(name):
    method = build(with_options(name, label_maps='exact') if name == 'PLMConCL'
                   else METHODS[name])
    views, maps = batch_for(method, 4)
    outputs, gradients = train_step(method, resized(views, SIZES[1]), maps)
    assert all(value.isfinite().all() for value in [*outputs.values(), *gradients.values()])


def test_one_batch_of_both_views_needs_equal_sizes():
    method = build(with_options('SimCLR', joint=True))
    views, maps = random_batch(4)
    with pytest.raises(UserError, match=r'56 x 56 and 32 x 72 pixels.*joint=False'):
        method(resized(views, SIZES[1]), maps)
