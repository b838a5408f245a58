"""ConCL, alone and with PLM: its parts, the settings that mend it, what is refused."""


import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import METHODS, POOLED, build, with_options
from toy_model import StagedBackbone, batch_for, train_step

from openselfsup.errors import UserError
from openselfsup.models import concepts
from openselfsup.models.algorithms.plm import PLM
from openselfsup.models.memories import CellClusters, cell_kmeans
from openselfsup.models.method import Progress
from openselfsup.views import compose, invert, transform


@pytest.mark.parametrize('weights', [(0.7, 0.4), (-0.1, 0.5)])
def test_weights_of_more_than_everything_are_refused(weights):
    with pytest.raises(UserError, match=r'from 0 (to 1|with a sum of at most 1)'):
        build(with_options('PLMConCL', concept_weight=weights[0], dense_weight=weights[1]))


def test_places_alone_are_the_loss_of_plm():
    mixed = build(METHODS['PLMConCL'])
    views, maps = batch_for(mixed, 6)
    row = {key: METHODS['PLM'][key] for key in ('neck', 'matching_neck', 'queue_len', 'feat_dim')}
    plm = PLM(StagedBackbone(), **row, loss_lambda=1.)
    plm.load_state_dict({key: value for key, value in mixed.state_dict().items()
                         if not key.startswith('concepts')})
    expected = plm(views, maps)
    mixed.concept_weight, mixed.dense_weight = 0., 1.
    found = mixed(views, maps)
    assert 'loss_concept' not in found and found['loss_instance'] == 0
    torch.testing.assert_close(found['loss_dense'], expected['loss_contra_dense'])


def of_rows(**arguments):
    return build(with_options('ConCL', **arguments))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), clusters=st.integers(1, 9))
def test_an_image_is_clustered_by_itself_and_every_cell_is_nearest_to_its_centroid(seed, clusters):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(3, 20, 5, generator=generator, dtype=torch.float64)
    first = torch.randint(20, (3, clusters), generator=generator)
    reseed = torch.randint(20, (12, clusters), generator=generator)
    found = cell_kmeans(points, first, reseed)
    for image in range(3):
        alone = cell_kmeans(points[image:image + 1], first[image:image + 1], reseed)
        assert torch.equal(alone.labels[0], found.labels[image])
    before = cell_kmeans(points, first, reseed[:-1]).centroids
    similarity = F.normalize(points, dim=2) @ F.normalize(before, dim=2).mT
    chosen = similarity.gather(2, found.labels[..., None])
    torch.testing.assert_close(chosen, similarity.amax(2, keepdim=True))


def test_of_two_equal_first_centroids_the_second_is_empty():
    points = torch.randn(40, 49, 33)
    first = torch.tensor([[3, 7, 3, 7, 7]]).expand(40, -1)
    found = cell_kmeans(points, first, torch.tensor([[0, 1, 2, 3, 4]]))
    assert set(found.labels.flatten().tolist()) == {0, 1} and (found.reseeded == 3).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), row=st.sampled_from([0, 2, 4, 7]), column=st.integers(0, 7),
       sides=st.tuples(st.sampled_from([7, 14]), st.sampled_from([7, 14])),
       orientation=st.integers(0, 7))
def test_where_crops_are_whole_cells_rounded_and_exact_label_maps_agree(seed, row, column, sides,
                                                                        orientation):
    planes = F.one_hot(torch.randint(3, (1, 14, 14), generator=torch.Generator().manual_seed(seed)),
                       3).permute(0, 3, 1, 2).float()
    height, width = (side / 14 for side in sides)
    top, left = (row / 14 if sides[0] == 7 else 0), (column / 14 if sides[1] == 7 else 0)
    x, y = ((-1, left + width) if orientation & 1 else (1, left)), (
        (-1, top + height) if orientation & 2 else (1, top))
    linear = [[x[0] * width, 0], [0, y[0] * height]]
    if orientation & 4:
        linear = [row[::-1] for row in linear]
    view = torch.tensor([[[*linear[0], x[1]], [*linear[1], y[1]]]]) * 0.5 + torch.tensor(
        [[0, 0, 0.25], [0, 0, 0.375]])
    reference = torch.tensor([[[0.5, 0, 0.25], [0, 0.5, 0.375]]])
    maps = torch.stack([view, reference], 1)
    ours, exact = (concepts.Concepts(3, 8, 4, label_maps=how).in_view(
        planes, maps, (7, 7), 'axis_aligned') for how in ('rounded', 'exact'))
    counts = concepts.rounded_votes(planes, compose(invert(reference), view).double(), (7, 7))
    most = counts.topk(2, 2).values
    clear = most[..., 0] > most[..., 1]  # areas of ties are rounded
    assert clear.any() and torch.equal(ours[clear], exact[clear])


@settings(max_examples=60, deadline=None)
@given(left=st.floats(-1.5, 1.5), top=st.floats(-1.5, 1.5), side=st.floats(0.02, 2),
       orientation=st.integers(0, 7))
def test_cells_outside_the_reference_are_of_no_concept(left, top, side, orientation):
    linear = torch.tensor([[side, 0.], [0, side]], dtype=torch.float64)
    corner = torch.tensor([left, top], dtype=torch.float64)
    for axis in range(2):
        if orientation >> axis & 1:
            corner[axis] += side
            linear[axis, axis] *= -1
    if orientation & 4:
        linear = linear.flip(1)
    view = torch.cat([linear, corner[:, None]], 1)[None]
    found = concepts.rounded_votes(torch.ones(1, 1, 14, 14), view, (7, 7))[0, :, 0] > 0
    at = torch.arange(8, dtype=torch.float64) / 7
    y, x = torch.meshgrid(at, at, indexing='ij')
    corners = transform(view[0], torch.stack([x, y], -1))  # 8 8 2
    ends = torch.stack([corners[:-1, :-1], corners[1:, 1:]])
    begin, end = ends.amin(0).flatten(0, 1), ends.amax(0).flatten(0, 1)
    assert not found[((end <= 0) | (begin >= 1)).any(1)].any()
    inside = ((begin >= 1 / 14) & (end <= 13 / 14)).all(1)  # but for the rounding of a cell
    assert found[inside].all()


@pytest.mark.parametrize('left', (-7, -4, 4, 7, 11))
def test_what_of_a_view_lies_beyond_the_reference_does_not_move_the_rest(left):
    planes = F.one_hot(torch.arange(196).view(1, 14, 14) % 5, 5).permute(0, 3, 1, 2).float()
    maps = torch.tensor([[[[0.25, 0, 0.25 + left / 28], [0, 0.25, 0.5]],
                          [[0.5, 0, 0.25], [0, 0.5, 0.25]]]])
    ours, exact = (concepts.Concepts(5, 8, 4, label_maps=how).in_view(
        planes, maps, (7, 7), 'axis_aligned') for how in ('rounded', 'exact'))
    assert torch.equal(ours, exact)
    assert ours.sum() == 7 * sum(0 <= left + column < 14 for column in range(7))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), angle=st.floats(0, 6.3), side=st.floats(0.2, 0.6))
def test_exact_label_maps_are_those_of_the_place_on_any_affine_view(seed, angle, side):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (1, 6, 5), generator=generator)
    planes = F.one_hot(labels, 4).permute(0, 3, 1, 2).float()
    cos, sin = np.cos(angle) * side, np.sin(angle) * side
    linear = np.array([[cos, -sin], [sin, cos]])
    view = torch.tensor(np.concatenate([linear, 0.5 - linear.sum(1, keepdims=True) / 2], 1))
    reference = torch.tensor([[0.9, 0, 0.05], [0, 0.8, 0.1]], dtype=torch.float64)
    maps = torch.stack([view, reference])[None]
    found = concepts.Concepts(4, 8, 4, label_maps='exact').in_view(planes, maps, (3, 4), 'affine')
    fine = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    y, x = torch.meshgrid(fine, fine, indexing='ij')
    at = transform(invert(reference), transform(view, torch.stack([x, y], -1)))  # 200 200 2
    inside = ((at >= 0) & (at < 1)).all(-1)
    row, column = (at[..., 1] * 6).long().clamp(0, 5), (at[..., 0] * 5).long().clamp(0, 4)
    shown = F.one_hot(labels[0][row, column], 4) * inside[..., None]
    votes = shown.unflatten(1, (4, 50)).double()[:198].unflatten(0, (3, 66)).mean((1, 3))
    most = votes.flatten(0, 1).topk(2, 1)
    clear = most.values[:, 0] > most.values[:, 1] + 0.05
    assert torch.equal(found[0].argmax(1)[clear], most.indices[clear, 0])
    assert torch.equal(found[0].sum(1)[clear], torch.ones(int(clear.sum())))


@pytest.mark.parametrize('arguments', [dict(), dict(label_maps='exact', pad_queue=False)])
def test_views_that_share_no_concept_cost_nothing_and_leave_the_queue(arguments):
    method = of_rows(concept_weight=1., num_concepts=40, **arguments)
    views, maps = batch_for(method, 3)
    maps[:, :, :, :2] = torch.eye(2) / 2
    maps[:, 0, :, 2], maps[:, 1, :, 2] = 0, 0.5  # opposite corners of the reference
    maps[:, 2] = torch.eye(2, 3)
    before = method.concepts.queue.vectors.clone()
    at = torch.arange(14) >= 7
    quarter = (at[:, None] * 2 + at.long()).flatten()  # a concept a corner

    def corners(cells, first, reseed):
        labels = quarter.expand(len(cells), -1)
        return CellClusters(labels, cells.new_zeros(3, 40, 1), cells.new_zeros(3))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(concepts, 'cell_kmeans', corners)
        outputs, gradients = train_step(method, views, maps)
    assert outputs['loss_concept'] == 0 and outputs['concepts_shared'] == 0
    assert outputs['concepts_found'] == 4 and outputs['concept_queue_filled'] == 0
    assert len(gradients) == len(list(method.encoder_q.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert torch.equal(method.concepts.queue.vectors, before)


def test_each_shared_concept_enters_the_queue_once_unless_padded():
    for pad in (True, False):
        method = of_rows(pad_queue=pad, num_concepts=6)
        outputs = method(*batch_for(method, 8))
        shared, filled = round(8 * outputs['concepts_shared'].item()), method.concepts.queue.filled
        assert 0 < shared < 48
        assert filled == (min(2 * shared, 48) if pad else shared)
        real = method.concepts.queue.vectors[:int(filled)]
        assert real.unique(dim=0).shape[0] == shared


def test_in_the_first_epochs_the_reference_is_not_looked_at():
    method = of_rows(warmup_epochs=2)
    views, maps = batch_for(method, 4)
    views[2] = views[2] * torch.nan
    for epoch in range(3):
        method.begin_step(Progress(epoch, epoch, 1, 3))
        outputs = method(views, maps)
        assert ('loss_concept' in outputs) == (epoch == 2) == bool(method.concepts.queue.filled)
        assert outputs['loss_instance'].isfinite()


@pytest.mark.parametrize('arguments, words', [
    (dict(cluster_indice=1), r'model.cluster_indice: concepts are to be found in stage 1, but the '
                             r'backbone returns 2, 3, 4 only.*out_indices=\(1, 2, 3, 4\)'),
    (dict(backbone=dict(type='ToyBackbone')), 'returns 4 only'),
    (dict(concept_weight=1.5), 'concept_weight'), (dict(num_concepts=0), 'num_concepts'),
    (dict(label_maps='exakt'), "must be 'rounded' or 'exact'"),
    (dict(geometry='affine'), 'cannot follow affine steps'),
    (dict(neck=dict(POOLED, type='NonLinearNeckV2')), 'model.neck: .*has batch norm'),
    (dict(keys_in_order=False, shuffle=False), 'not shuffled are in order')])
def test_impossible_settings(arguments, words):
    with pytest.raises(UserError, match=words):
        of_rows(**arguments)


@pytest.mark.parametrize('arguments, words', [
    (dict(num_concepts=0), 'num_concepts is 0'), (dict(kmeans_iters=0), 'kmeans_iters is 0'),
    (dict(label_maps='exakt'), "did you mean 'exact'")])
def test_impossible_concepts(arguments, words):
    with pytest.raises(UserError, match=words):
        concepts.Concepts(**arguments)


def test_what_a_run_gives_is_checked():
    method = of_rows()
    views, maps = batch_for(method, 2)
    with pytest.raises(UserError, match='cannot follow affine steps'):
        method.set_geometry('affine')
    of_rows(label_maps='exact').set_geometry('affine')
    oblong = [torch.randn(2, 3, 56, 28) for _ in views]
    with pytest.raises(UserError, match="views of 7 x 4 cells.*'exact'"):
        method(oblong, maps)
    assert of_rows(label_maps='exact')(oblong, maps)['loss_concept'].isfinite()
