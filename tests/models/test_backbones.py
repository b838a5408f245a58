import pytest
import torch
import torchvision

from openselfsup.errors import UserError
from openselfsup.models.backbones.resnet import ResNet, ResNeXt
from openselfsup.registry import BACKBONES

THEIRS = {'resnet18': dict(type='ResNet', depth=18), 'resnet34': dict(type='ResNet', depth=34),
          'resnet50': dict(type='ResNet', depth=50), 'resnet101': dict(type='ResNet', depth=101),
          'resnext50_32x4d': dict(type='ResNeXt', depth=50),
          'resnext101_32x8d': dict(type='ResNeXt', depth=101)}


@pytest.mark.parametrize('name', THEIRS)
def test_names_and_shapes_are_torchvisions_without_the_classifier(name):
    with torch.device('meta'):
        theirs = getattr(torchvision.models, name)().state_dict()
        ours = BACKBONES.build(THEIRS[name]).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {
        key: value.shape for key, value in theirs.items() if not key.startswith('fc.')}


@pytest.mark.parametrize('name', ['resnet18', 'resnext50_32x4d'])
def test_same_weights_same_features(name):
    theirs = getattr(torchvision.models, name)().eval()
    theirs.fc = torch.nn.Identity()
    ours = BACKBONES.build({**THEIRS[name], 'out_indices': (1, 2, 3, 4)}).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = ours(x)
        torch.testing.assert_close(maps[-1].mean((2, 3)), theirs(x))
    assert [m.shape[1] for m in maps] == ours.out_channels
    assert [m.shape[-1] for m in maps] == [16, 8, 4, 2]


def test_same_gradients():
    """The stem pools before it rectifies, torchvision's after."""
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18()
    theirs.fc = torch.nn.Identity()
    ours = ResNet(18)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 3, 64, 64)
    ours(x)[0].mean((2, 3)).square().sum().backward()
    theirs(x).square().sum().backward()
    found, expected = ({name: parameter.grad for name, parameter in model.named_parameters()}
                       for model in (ours, theirs))
    torch.testing.assert_close(found, expected)


def test_layers_that_nothing_returns_do_not_exist():
    backbone = ResNet(18, out_indices=(2,))
    assert backbone.out_channels == [128] and not hasattr(backbone, 'layer3')
    feature_map, = backbone(torch.randn(2, 3, 32, 32))
    feature_map.sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_norm_layers_and_zero_init():
    backbone = ResNet(18, norm_cfg=dict(type='GN', num_groups=8), zero_init_residual=True)
    assert backbone.bn1.num_groups == 8 and not backbone.layer1[0].bn2.weight.any()
    assert ResNeXt(groups=64, width_per_group=2).layer1[0].conv2.groups == 64


def test_the_first_convolution_may_be_returned_too():
    torch.manual_seed(0)
    with_stem, without = ResNet(18, out_indices=(0, 1)), ResNet(18, out_indices=(1,))
    without.load_state_dict(with_stem.state_dict())
    x = torch.randn(2, 3, 32, 32)
    stem, first = with_stem(x)
    assert with_stem.out_channels == [64, 64] and stem.shape == (2, 64, 16, 16)
    expected = torch.nn.BatchNorm2d(64)(with_stem.conv1(x)).relu()
    torch.testing.assert_close(stem, expected)
    torch.testing.assert_close(first, without(x)[0])


def test_frozen_stages_neither_learn_nor_follow_the_batch():
    backbone = ResNet(18, frozen_stages=2).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone(torch.randn(2, 3, 32, 32))[0].sum().backward()
    learns = {name.split('.')[0] for name, p in backbone.named_parameters() if p.grad is not None}
    assert learns == {'layer3', 'layer4'}
    moved = {key.split('.')[0] for key, value in backbone.state_dict().items()
             if not value.equal(before[key])}
    assert moved == {'layer3', 'layer4'}
    whole = ResNet(18, frozen_stages=4)
    assert not any(p.requires_grad for p in whole.parameters())
    assert not any(module.training for module in whole.train().modules()
                   if isinstance(module, torch.nn.BatchNorm2d))
    assert not ResNet(18, out_indices=(2,), frozen_stages=4).layer2[0].bn1.weight.requires_grad


@pytest.mark.parametrize('build, words', [
    (lambda: ResNet(19), 'backbone.depth: no ResNet has depth 19; expected one of 18, 34, 50, 101'),
    (lambda: ResNeXt(18), 'no ResNeXt has depth 18'),
    (lambda: ResNet(18, norm_cfg=dict(type='BM')), "no norm layer is called 'BM'"),
    (lambda: ResNet(18, out_indices=(5,)), 'out_indices'),
    (lambda: ResNet(18, out_indices=(4, 3)), 'rising order')])
def test_impossible_settings(build, words):
    with pytest.raises(UserError, match=words):
        build()
