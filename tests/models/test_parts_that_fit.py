"""Parts of a wrong size or kind are named, with what would fit."""

import pytest
import torch
from methods import GROUP, METHODS, POOLED, PREDICTED, build, with_options
from toy_model import batch_for, train_step

from openselfsup.errors import UserError
from openselfsup.models.necks.projection import NonLinearNeck
from openselfsup.models.parts import image_vectors, normalize

CLUSTERED = 'CA2CL', 'MoCo', 'PLM'
VECTORS = dict(PREDICTED, with_avg_pool=False)


def clustered(name, group_neck):
    return build(METHODS[name] | dict(group_neck=group_neck,
                                      cluster=dict(type='ClusterHead', clusters=6)))


def predicted(**options):
    return dict(head=dict(type='LatentPredictHead', predictor=dict(VECTORS, **options)))


@pytest.mark.parametrize('name', CLUSTERED)
def test_group_features_are_unit_vectors_whatever_the_neck(name):
    torch.manual_seed(0)
    method = clustered(name, dict(POOLED, hid_channels=24)).eval()
    views, maps = batch_for(method, 8)
    group = method.encode(method.encoder_q, views[0])[-1]
    torch.testing.assert_close(group.norm(dim=1), torch.ones(8))
    expected = method.encoder_q['group_neck'](method.backbone(views[0]))
    torch.testing.assert_close(group, normalize(expected))


@pytest.mark.parametrize('name', CLUSTERED)
def test_a_group_neck_of_the_wrong_kind_or_size_is_named(name):
    dense = clustered(name, dict(type='DenseCLNeck', in_channels=24, out_channels=16))
    with pytest.raises(UserError, match='model.group_neck: DenseCLNeck returns more than one'):
        dense(*batch_for(dense, 8))
    with pytest.raises(UserError, match='model.group_neck.in_channels: the group_neck takes 99 '
                       'channels, the backbone gives 24; expected 24'):
        clustered(name, dict(GROUP, in_channels=99))


@pytest.mark.parametrize('name, options, words', [
    ('BYOL', predicted(in_channels=32), r'predictor.in_channels: the predictor takes 32 channels, '
                                        r'projections have 24; expected 24'),
    ('BYOL', predicted(out_channels=32), 'predictor.out_channels: the predictor gives 32 channels'),
    ('BYOL', predicted(out_channels=1), 'the predictor gives 1 channels, projections have 24'),
    ('BYOL', predicted(with_avg_pool=True), 'predictor.with_avg_pool: .* no cells.*expected False'),
    ('BYOL', dict(head=dict(type='LatentPredictHead', predictor=PREDICTED)), 'expected False'),
    ('ODC', dict(neck=dict(type='AvgPoolNeck')), 'takes vectors of size 16, the features have 24'),
    ('MoCo', dict(neck=dict(type='AvgPoolNeck')), 'model.feat_dim: .* projects to 24; expected 24'),
    ('RelativeLoc', dict(neck=dict(type='LinearNeck', out_channels=16)),
     "model.neck: LinearNeck takes 24 channels, two patches .* give 48; .*'RelativeLocNeck'"),
    ('VICRegL', dict(projector=POOLED),
     "model.projector: NonLinearNeck takes feature maps, the projector vectors.*'Expander'"),
    ('PLMVICRegL', dict(maps_projector=POOLED), "model.maps_projector: .*'Expander'"),
    ('ConCL', dict(neck=dict(POOLED, in_channels=24 * 49, with_avg_pool=False)),
     'model.neck.with_avg_pool: concepts have one cell each.*expected True')])
def test_a_part_that_does_not_fit_is_named_when_the_method_is_built(name, options, words):
    with pytest.raises(UserError, match=words):
        build(METHODS[name] | options)


def test_a_neck_that_does_not_say_its_size():
    class Silent(NonLinearNeck):
        def __init__(self):
            super().__init__(24, None, 16)
            del self.out_channels

    with pytest.raises(UserError, match='model.neck: Silent does not say the size of its vectors'):
        build(METHODS['ODC'] | dict(neck=Silent()))


def test_pooling_alone_is_a_neck_of_the_backbones_channels():
    for name, options in (('MoCo', dict(feat_dim=24)), ('ODC', dict(head=dict(in_channels=24)))):
        method = build(with_options(name, **options) | dict(neck=dict(type='AvgPoolNeck')))
        train_step(method, *batch_for(method, 4))


def test_vectors_are_not_averaged_over_cells():
    with pytest.raises(UserError, match='averages over cells was given vectors.*with_avg_pool=Fal'):
        image_vectors([torch.ones(3, 4)])
    assert image_vectors([torch.ones(3, 4)], with_avg_pool=False).shape == (3, 4)
