"""The Sobel layer and the backbone behind it: published values, and still one after extraction."""

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_zoo import ZooBackbone, assert_golden

from openselfsup import load_backbone
from openselfsup.checkpoints import describe_backbone, load, save
from openselfsup.checkpoints.extracting import extract_backbone
from openselfsup.errors import UserError
from openselfsup.evaluation.networks import from_checkpoint
from openselfsup.models.backbones.resnet import ResNet
from openselfsup.models.backbones.sobel import SobelBackbone
from openselfsup.registry import BACKBONES
from openselfsup.transfer.instance.weights import convert

GOLDEN = Path(__file__).parents[1] / 'data/golden/deepcluster_step.npz'
R18 = dict(type='SobelBackbone', backbone=dict(type='ResNet', depth=18, in_channels=2))


@pytest.fixture(scope='module')
def backbone():
    torch.manual_seed(0)
    return BACKBONES.build(R18).eval()


@pytest.fixture
def maps_of(backbone):
    def maps(network):
        with torch.no_grad():
            return network(torch.linspace(-1, 1, 3 * 32 * 32).sin().view(1, 3, 32, 32))[-1]
    return maps


def test_filters_names_and_edges_are_the_published_ones():
    golden, ours = np.load(GOLDEN), SobelBackbone(ZooBackbone(2))
    state = ours.state_dict()
    names = [key[6:] for key in golden.files if key.startswith('state/sobel')]
    assert [key for key in state if key.startswith('sobel')] == names
    for name in names:
        assert_golden(state[name], golden[f'state/{name}'], name)
    images = torch.from_numpy(golden['step0/img'])
    assert_golden(ours.sobel_layer(images), golden['step0/sobel'], 'edges')
    with torch.autocast('cpu', torch.bfloat16):
        assert_golden(ours.sobel_layer(images), golden['step0/sobel'], 'edges under autocast')
    trained = {name for name, parameter in ours.named_parameters() if parameter.requires_grad}
    assert trained == {f'backbone.conv{n}.{kind}' for n in (1, 2) for kind in ('weight', 'bias')}
    assert ours.out_channels == [12]


def test_a_published_checkpoint_keeps_the_layer(backbone, maps_of, tmp_path):
    state = {**backbone.state_dict(), 'head.fc_cls.weight': torch.zeros(3, 512)}
    save(dict(state_dict=state, meta={}, optimizer={}), tmp_path / 'published.pth')
    said = extract_backbone(tmp_path / 'published.pth', tmp_path / 'backbone.pth')
    assert 'OpenSelfSup checkpoint, ResNet-18' in said and '124 tensors' in said
    for name in ('published', 'backbone'):
        path = tmp_path / f'{name}.pth'
        assert maps_of(load_backbone(path)).equal(maps_of(backbone))
        assert maps_of(from_checkpoint('resnet18', path).backbone).equal(maps_of(backbone))
    assert len(load_backbone(tmp_path / 'backbone.pth', out_indices=(3, 4)).out_channels) == 2


def test_what_the_published_tool_extracts_gets_its_layer_back(backbone, maps_of, tmp_path):
    save(dict(state_dict=backbone.backbone.state_dict()), tmp_path / 'without.pth')
    assert maps_of(load_backbone(tmp_path / 'without.pth')).equal(maps_of(backbone))


def test_our_checkpoint_says_how_to_build_it(backbone, maps_of, tmp_path):
    class Method(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = backbone

    config = dict(R18, backbone=dict(R18['backbone'], norm_cfg=dict(type='SplitBN', num_splits=2),
                                     out_indices=(2, 4)))
    record = describe_backbone(Method(), dict(model=dict(type='Method', backbone=config)))
    save(dict(state_dict=Method().state_dict(), meta=dict(backbone=record)), tmp_path / 'ours.pth')
    extract_backbone(tmp_path / 'ours.pth', tmp_path / 'backbone.pth')
    assert load(tmp_path / 'backbone.pth')['meta']['backbone']['prefix'] == ''
    for name in ('ours', 'backbone'):
        found = load_backbone(tmp_path / f'{name}.pth')
        assert found.out_channels == [512] and maps_of(found).equal(maps_of(backbone))
    with pytest.raises(UserError, match='this backbone is a SobelBackbone'):
        convert(tmp_path / 'backbone.pth', tmp_path / 'backbone.pkl')


def test_a_resnet_of_two_channels_starts_like_one_of_three():
    stds = [ResNet(18, in_channels=channels).conv1.weight.std().item() for channels in (2, 3)]
    assert stds[0] == pytest.approx(stds[1], rel=0.05)
