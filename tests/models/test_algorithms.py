"""What only some methods do."""


import pytest
import torch
import torch.nn.functional as F
from methods import METHODS, toy
from toy_model import batch_for, random_batch, train_step

from openselfsup.errors import UserError
from openselfsup.models.algorithms.densecl import DenseCL, closest
from openselfsup.models.algorithms.moco import MoCo
from openselfsup.models.algorithms.plm import PLM
from openselfsup.models.algorithms.plm_concl import PLMConCL
from openselfsup.registry import ALGORITHMS
from openselfsup.views.overlap import match_cells

WITH_QUEUE = [name for name, row in METHODS.items() if 'queue_len' in row]


@pytest.mark.parametrize('name, cls', [('MoCo', MoCo), ('MOCO', MoCo), ('DenseCL', DenseCL),
                                       ('PLM', PLM), ('LocMatCL', PLM),
                                       ('ConCLLoc', PLMConCL)])
def test_names(name, cls):
    assert ALGORITHMS.get(name) is cls


def test_builds_from_a_config():
    algorithm = ALGORITHMS.build(dict(
        type='PLM', backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='SplitBN')),
        neck=dict(type='DenseCLNeck', in_channels=512, hid_channels=64, out_channels=32),
        matching_neck=dict(type='AttentionMatchingNeck', channels=32, mid_channels=8),
        queue_len=40, feat_dim=32))
    views, maps = random_batch(8, size=64)
    outputs, gradients = train_step(algorithm, views, maps)
    assert outputs['loss_contra_dense'].isfinite() and outputs['queue_filled'] == 8 * 0 / 40
    assert 'encoder_q.backbone.layer4.1.conv2.weight' in gradients
    assert {key.split('.')[0] for key in algorithm.state_dict()} == {
        'encoder_q', 'encoder_k', 'queue', 'queue_dense'}


@pytest.mark.parametrize('name', WITH_QUEUE)
def test_queues_fill_and_tell_queries_apart(name):
    algorithm = toy(name)
    views, maps = batch_for(algorithm, 4)
    algorithm(views, maps)
    outputs = algorithm(views, maps)
    assert outputs['queue_filled'] == 4 / 64 and 0 <= outputs['acc_contrast'] <= 1


@pytest.mark.parametrize('name', WITH_QUEUE)
def test_any_batch_size_and_a_queue_shorter_than_the_batch(name):
    algorithm = toy(name, queue_len=5)
    for rows in (3, 7, 1, 11):
        views, maps = batch_for(algorithm, rows, seed=rows)
        outputs, _ = train_step(algorithm, views, maps)
        assert all(value.isfinite() for value in outputs.values())
    assert algorithm.queue.pointer == (3 + 7 + 1 + 11) % 5


LAMBDAS = [dict(loss_lambda=value, linear=linear) for value in (0., 0.5, 1.)
           for linear in (True, False)]


@pytest.mark.parametrize('name, arguments',
                         [('PLM', arguments) for arguments in LAMBDAS]
                         + [('PLM', dict(loss_lambda=value, attention=True)) for value in (0., 1.)]
                         + [('DenseCL', dict(loss_lambda=value)) for value in (0., 0.5, 1.)])
def test_every_parameter_has_a_gradient_whatever_lambda(name, arguments):
    algorithm, (views, maps) = toy(name, **arguments), random_batch(4)
    outputs, gradients = train_step(algorithm, views, maps)
    assert gradients.keys() == {'encoder_q.' + key
                                for key, _ in algorithm.encoder_q.named_parameters()}
    used = {key for key, gradient in gradients.items() if gradient.any()}
    off = {0.: ('mlp2', 'matching_neck', 'dense'), 1.: ('mlp.', 'single')}.get(
        arguments['loss_lambda'], ())
    exempt = 'attention.2.bias'  # zero but for rounding
    assert {key for key in gradients if not any(part in key for part in off)
            and not key.endswith(exempt)} == {key for key in used if not key.endswith(exempt)}
    for term in ('single', 'dense'):
        assert (outputs[f'loss_contra_{term}'] == 0) == (term in off)


def test_lambda_zero_is_moco():
    (views, maps), plm, moco = random_batch(4), toy('PLM', loss_lambda=0.), toy(
        'MoCo')
    state = moco.state_dict()
    moco.load_state_dict({key: value for key, value in plm.state_dict().items() if key in state})
    ours, theirs = plm(views, maps), moco(views)
    torch.testing.assert_close(ours['loss_contra_single'], theirs['loss_contra'])
    torch.testing.assert_close(ours['acc_contrast'], theirs['acc_contrast'])


def test_plm_monitors_say_how_much_overlaps():
    algorithm, (views, maps) = toy('PLM'), random_batch(5)
    outputs = algorithm(views, maps)
    matching = match_cells(maps[:, 0], maps[:, 1], 7)
    weights = torch.cat([matching.weight_q, matching.weight_k])
    torch.testing.assert_close(outputs['mean_coverage'], weights.mean())
    torch.testing.assert_close(outputs['matched_fraction'], (weights > 0).float().mean())
    assert 0 < outputs['mean_coverage'] < outputs['matched_fraction'] < 1


def test_plm_at_identical_views_matches_each_cell_with_itself():
    (views, maps), algorithm = random_batch(4), toy('PLM', linear=False, loss_lambda=1.)
    views[1], maps[:, 1] = views[0], maps[:, 0]
    outputs = algorithm(views, maps)
    assert outputs['mean_coverage'] == pytest.approx(1, abs=1e-5)
    assert outputs['acc_dense'] == 1


def test_plm_weighted_mean_divides_by_the_weights():
    (views, maps), mean = random_batch(4), toy('PLM', loss_lambda=1.)
    weighted = toy('PLM', loss_lambda=1., dense_reduction='weighted_mean')
    weighted.load_state_dict(mean.state_dict())
    first, second = mean(views, maps), weighted(views, maps)
    torch.testing.assert_close(second['loss_contra_dense'] * first['mean_coverage'],
                               first['loss_contra_dense'])


def test_plm_views_that_share_nothing_contribute_nothing():
    (views, maps), algorithm = random_batch(2), toy('PLM', loss_lambda=1.)
    maps[:, :, :, :2] = torch.eye(2) / 4
    maps[:, 0, :, 2], maps[:, 1, :, 2] = 0, 0.5
    for reduction in ('mean', 'weighted_mean'):
        algorithm.dense_reduction = reduction
        outputs, gradients = train_step(algorithm, views, maps)
        assert outputs['loss_contra_dense'] == outputs['matched_fraction'] == 0
        assert not any(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize('arguments, words', [
    (dict(loss_lambda=1.5), 'loss_lambda must be a number from 0 to 1'),
    (dict(dense_reduction='sum'), "dense_reduction must be 'mean' or 'weighted_mean'")])
def test_plm_impossible_settings(arguments, words):
    with pytest.raises(UserError, match=words):
        toy('PLM', **arguments)


def test_densecl_pairs_cells_by_cosine_similarity():
    query, key = torch.randn(2, 5, 3, 3), 7 * torch.randn(2, 5, 2, 4)
    expected = F.cosine_similarity(query.flatten(2)[..., None], key.flatten(2)[:, :, None], dim=1)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(closest(query, key), expected.argmax(2))
