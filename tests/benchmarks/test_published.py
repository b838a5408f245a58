"""The published ways give what ours give: what is timed is the same work."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.speed import published
from benchmarks.speed.published_plm import PublishedPLM
from openselfsup.models.losses import info_nce, nt_xent
from openselfsup.models.memories import batch_kmeans
from openselfsup.registry import ALGORITHMS
from openselfsup.views import ViewRecipe, cell_boxes, match_cells

DEMO = Path(__file__).resolve().parents[2] / 'data/demo'


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def draw_maps(batch, seed=0):
    recipe = ViewRecipe(224, [dict(type='RandomResizedCrop', scale=(0.05, 1.0)),
                              dict(type='HorizontalFlip')])
    sizes = torch.tensor([[224, 200]]).expand(batch, 2)
    generator = torch.Generator().manual_seed(seed)
    return [recipe.draw(sizes, generator)['view_to_tile'] for _ in range(2)]


def test_matching():
    q, k = draw_maps(16)
    ours = match_cells(q, k, 7)
    weight_q, match_q, weight_k, match_k = published.match_boxes(cell_boxes(q, 7),
                                                                 cell_boxes(k, 7))
    assert (weight_q == 0).any()  # some views hardly meet
    # Slivers at the rounding error are no overlap in ours.
    for mine, theirs, weight in ((ours.match_q, match_q, weight_q),
                                 (ours.match_k, match_k, weight_k)):
        sure = (weight > 1e-4)[..., None]
        torch.testing.assert_close(mine * sure, theirs * sure, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(ours.weight_q, weight_q, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.weight_k, weight_k, atol=1e-5, rtol=1e-4)


def test_info_nce():
    query, positive, queue = unit(30, 8).requires_grad_(), unit(30, 8, seed=1), unit(50, 8, seed=2)
    weights = torch.rand(30, generator=torch.Generator().manual_seed(0))
    ours = info_nce(query, positive, queue, 0.2, weights)
    theirs = published.info_nce(query, positive, queue.T, 0.2, weights)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, query)[0] for loss in (ours, theirs)))


def test_nt_xent():
    a, b = unit(13, 8).requires_grad_(), unit(13, 8, seed=1).requires_grad_()
    ours = nt_xent(a, b, 0.2)
    theirs = published.nt_xent(a, b, 0.2, published.nt_xent_mask(13))
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(torch.autograd.grad(ours, (a, b)), torch.autograd.grad(theirs, (a, b))):
        torch.testing.assert_close(mine, other)


def test_kmeans():
    x = unit(200, 16)
    ours, (labels, centroids) = batch_kmeans(x, 10, 10), published.kmeans(x, 10, 10)
    assert torch.equal(ours.labels, labels)
    torch.testing.assert_close(ours.centroids, centroids)


def test_views_and_boxes():
    random.seed(0)
    torch.manual_seed(0)
    path = sorted(DEMO.glob('kather2016/*/*.png'))[0]
    views, boxes = published.PILDataset([str(path)])[0]
    assert views.shape == (2, 3, 224, 224) and boxes.shape == (2, 7, 7, 4)
    tile = published.PILTiles([str(path)])[0].numpy()
    assert np.array_equal(np.asarray(published.as_pil(tile)), tile)


@pytest.mark.parametrize('flipped', [False, True])
def test_boxes_are_those_of_our_cells(flipped):
    boxes = published.PILViews().boxes(0.1, 0.2, 0.5, 0.6, flipped)
    x = [-0.6, 0., 0.8] if flipped else [0.6, 0., 0.2]
    ours = cell_boxes(torch.tensor([x, [0., 0.5, 0.1]]), 7)
    torch.testing.assert_close(boxes, ours, atol=1e-6, rtol=0)


def test_a_plm_step():
    torch.manual_seed(0)
    theirs = PublishedPLM(queue_len=64, dim=16)
    ours = ALGORITHMS.build(dict(
        type='PLM', backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
        neck=dict(type='DenseCLNeck', in_channels=512, hid_channels=512, out_channels=16),
        matching_neck=dict(type='MatchingNeck', channels=16), queue_len=64, feat_dim=16,
        loss_lambda=0.5))
    with torch.no_grad():
        for encoder, other in ((ours.encoder_q, theirs.q), (ours.encoder_k, theirs.k)):
            mine = list(encoder.parameters())
            source = [p for p in (*other.backbone.parameters(), *other.mlp.parameters(),
                                  *other.mlp2.parameters(), *other.fc.parameters())]
            assert [p.shape for p in mine] == [p.shape for p in source]
            for p, s in zip(mine, source):
                p.copy_(s)
        ours.queue.vectors.copy_(theirs.queue.T)
        ours.queue_dense.vectors.copy_(theirs.queue2.T)
    q, k = draw_maps(4, seed=3)
    views = [torch.randn(4, 3, 64, 64) for _ in range(2)]
    for _ in range(2):  # the second step sees the queues that the first one left
        outputs = ours.train()(views, torch.stack([q, k], 1))
        mine = sum(v for name, v in outputs.items() if name.startswith('loss'))
        other = theirs.train()(views, torch.stack([cell_boxes(q, 2), cell_boxes(k, 2)], 1))
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.queue.vectors.T, theirs.queue, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.queue_dense.vectors.T, theirs.queue2, rtol=1e-4, atol=1e-5)
