"""A checkpoint says where its backbone is, and everything that reads one believes it."""

import argparse
import re

import pytest
import torch
from torch import nn

from openselfsup import load_backbone
from openselfsup.checkpoints import (
    backbone_record,
    backbone_state_dict,
    describe_backbone,
    detect,
    load,
    load_backbone_weights,
    save,
)
from openselfsup.checkpoints.counts import table, tensors_of_checkpoint
from openselfsup.cli import extract_backbone
from openselfsup.errors import UserError
from openselfsup.evaluation import networks
from openselfsup.models.method import BaseMethod, check_method
from openselfsup.registry import BACKBONES
from openselfsup.transfer.instance.weights import convert

NORMALIZE = dict(mean=[0.7, 0.5, 0.6], std=[0.2, 0.3, 0.1])


class OwnBackbone(nn.Module):
    """A user's own: nothing in it is called as in a ResNet."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, width, 4, 4), nn.Conv2d(width, 2 * width, 1)
        self.out_channels = [2 * width]

    def forward(self, x):
        return [self.fc(self.stem(x).relu())]


class StudentTeacher(BaseMethod):
    def __init__(self, backbone: dict):
        super().__init__()
        self.target = nn.ModuleDict(dict(body=BACKBONES.build(backbone)))
        self.online = nn.ModuleDict(dict(body=BACKBONES.build(backbone), head=nn.Linear(4, 4)))

    @property
    def backbone(self):
        return self.online['body']


@pytest.fixture
def registered():
    BACKBONES.register_module(module=OwnBackbone)
    yield
    BACKBONES.module_dict.pop('OwnBackbone', None)


def checkpoint_of(backbone: dict, path):
    """Write what training writes of a method, and return the method."""
    torch.manual_seed(0)
    method = StudentTeacher(backbone).eval()
    cfg = dict(model=dict(type='StudentTeacher', backbone=backbone), normalize=NORMALIZE,
               custom_imports=dict(imports=['my_networks']))
    save(dict(state_dict=method.state_dict(), optimizer={}, scaler={},
              meta=dict(config='', backbone=describe_backbone(method, cfg))), path)
    return method


def extracted(source, target) -> str:
    extract_backbone.main(argparse.Namespace(checkpoint=str(source), out=str(target)))
    return str(target)


OWN = dict(type='OwnBackbone', width=6)
RESNET = dict(type='ResNet', depth=18, norm_cfg=dict(type='SplitBN', num_splits=2))
GROUPS = dict(type='ResNet', depth=18, norm_cfg=dict(type='GN', num_groups=16))


@pytest.mark.parametrize('backbone', [OWN, RESNET, GROUPS], ids=['own', 'ResNet', 'GN'])
def test_a_student_and_a_teacher_of_any_name(backbone, registered, tmp_path, capsys):
    method = checkpoint_of(backbone, tmp_path / 'run.pth')
    said = backbone_record(load(tmp_path / 'run.pth'), 'run.pth')
    assert (said.prefix, said.config, said.imports) == ('online.body.', backbone, ['my_networks'])
    assert said.out_channels == method.backbone.out_channels
    images = torch.randn(1, 3, 64, 64)
    small = extracted(tmp_path / 'run.pth', tmp_path / 'small.pth')
    assert f'our checkpoint, {"ResNet-18" if backbone != OWN else "OwnBackbone"}' in (
        capsys.readouterr().out)
    assert extracted(tmp_path / 'run.pth', small) == small  # again: it holds the same already
    for path in (tmp_path / 'run.pth', small):
        assert detect(load(path)) == 'ours'
        loaded = load_backbone(path)
        torch.testing.assert_close(loaded(images)[-1], method.backbone(images)[-1])
        network = networks.from_checkpoint('resnet18', path)
        torch.testing.assert_close(network.backbone(images)[-1], method.backbone(images)[-1])
        assert network.wanted.mean == (0.7, 0.5, 0.6)
        assert network.wanted.std == (0.2, 0.3, 0.1)
        assert load_backbone_weights(BACKBONES.build(backbone), path).missing == []
    assert not any('SplitBN' in type(module).__name__ for module in loaded.modules())


def test_what_a_resnet_is_asked_for_still_counts(tmp_path):
    checkpoint_of(GROUPS, tmp_path / 'run.pth')
    maps = load_backbone(tmp_path / 'run.pth', out_indices=(2, 4))(torch.randn(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == [128, 512]
    with pytest.raises(UserError, match='of a ResNet-18, not of depth 50'):
        load_backbone(tmp_path / 'run.pth', depth=50)
    with pytest.raises(UserError, match='of a ResNet-18, the model is a ResNet-50'):
        networks.from_checkpoint('resnet50', tmp_path / 'run.pth')


def test_a_backbone_that_nobody_registered_is_said_with_what_to_import(registered, tmp_path):
    checkpoint_of(OWN, tmp_path / 'run.pth')
    BACKBONES.module_dict.pop('OwnBackbone')
    for read in (load_backbone, lambda path: networks.from_checkpoint('resnet18', path)):
        with pytest.raises(UserError, match="run.pth: the backbone of this checkpoint is a "
                                            "'OwnBackbone', which is not registered; expected "
                                            'my_networks to be imported first'):
            read(tmp_path / 'run.pth')


def test_detectron2_has_resnets_only(registered, tmp_path):
    checkpoint_of(OWN, tmp_path / 'own.pth')
    with pytest.raises(UserError, match='own.pth: this backbone is a OwnBackbone'):
        convert(tmp_path / 'own.pth', tmp_path / 'own.pkl')
    checkpoint_of(RESNET, tmp_path / 'resnet.pth')
    assert '100 tensors of the backbone (ours' in convert(tmp_path / 'resnet.pth',
                                                          tmp_path / 'resnet.pkl')


def test_its_parameters_are_counted_as_one_part(registered, tmp_path):
    checkpoint_of(OWN, tmp_path / 'run.pth')
    rows = table(tensors_of_checkpoint(load(tmp_path / 'run.pth')))
    count = sum(p.numel() for p in OwnBackbone(6).parameters())
    assert re.search(rf'^online\.body +{count:,} ', rows, re.M)


@pytest.mark.parametrize('record, words', [
    (dict(prefix='elsewhere.'), "its backbone is 'elsewhere.', but no weights are called so"),
    (dict(prefix='online.body.', config=dict(depth=18)), 'meta.backbone. is damaged'),
    (dict(prefix='online.body.', out_channels=512), 'meta.backbone. is damaged'),
    (dict(prefix='online.body.', imports=3), 'meta.backbone. is damaged'),
    (dict(prefix='online.body.', imports='my_networks'), 'meta.backbone. is damaged'),
    (dict(prefix='online.body.', unreadable=3), 'meta.backbone. is damaged'),
    (dict(prefix='online.body.', normalize=dict(mean=[0.5] * 3, std=[0.2, 0, 0.2])),
     'std above 0')])
def test_a_record_that_cannot_be_is_refused(record, words, registered, tmp_path):
    checkpoint_of(OWN, tmp_path / 'run.pth')
    checkpoint = load(tmp_path / 'run.pth')
    checkpoint['meta']['backbone'] = record
    save(checkpoint, tmp_path / 'other.pth')
    with pytest.raises(UserError, match=words):
        networks.from_checkpoint('resnet18', tmp_path / 'other.pth')


def test_what_others_keep_under_the_same_name_is_no_record():
    state = {f'encoder_q.backbone.{k}': v for k, v in BACKBONES.build(RESNET).state_dict().items()}
    for meta in (dict(backbone='resnet18'), dict(backbone=dict(depth=18)), 'text', None):
        checkpoint = dict(state_dict=state, meta=meta)
        assert backbone_state_dict(checkpoint)[1] == 'ours'
        assert backbone_record(checkpoint, 'a.pth') is None


def test_old_checkpoints_of_ours_are_read_from_their_config(tmp_path):
    network = BACKBONES.build(GROUPS).eval()
    state = {f'encoder_q.backbone.{k}': v for k, v in network.state_dict().items()}
    config = ("model = dict(type='MoCo', backbone=dict(type='ResNet', depth=18, "
              "norm_cfg=dict(type='GN', num_groups=16)))\n"
              f"normalize = dict(mean={NORMALIZE['mean']}, std={NORMALIZE['std']})\n")
    save(dict(state_dict=state, meta=dict(config=config)), tmp_path / 'old.pth')
    images = torch.randn(1, 3, 64, 64)
    for path in (tmp_path / 'old.pth', extracted(tmp_path / 'old.pth', tmp_path / 'small.pth')):
        torch.testing.assert_close(load_backbone(path)(images)[-1], network(images)[-1])
        assert networks.from_checkpoint('resnet18', path).wanted.mean == (0.7, 0.5, 0.6)


@pytest.mark.parametrize('config, words', [
    ('normalize = (', 'the config in this checkpoint cannot be read'),
    ('normalize = dict(mean=[0.5], std=[0.2])', 'the normalisation in this file is')])
def test_a_damaged_config_of_an_old_checkpoint_is_missed_by_evaluation_only(config, words,
                                                                            tmp_path):
    network = BACKBONES.build(dict(type='ResNet', depth=18)).eval()
    state = {f'encoder_q.backbone.{k}': v for k, v in network.state_dict().items()}
    save(dict(state_dict=state, meta=dict(config=config)), tmp_path / 'odd.pth')
    small = extracted(tmp_path / 'odd.pth', tmp_path / 'small.pth')
    images = torch.randn(1, 3, 64, 64)
    for path in (str(tmp_path / 'odd.pth'), small):
        torch.testing.assert_close(load_backbone(path)(images)[-1], network(images)[-1])
        with pytest.raises(UserError, match=f'{re.escape(path)}: {words}'):
            networks.from_checkpoint('resnet18', path)


def test_a_resnet_is_built_as_it_was_trained(tmp_path):
    method = checkpoint_of(dict(type='ResNet', depth=50, width_per_group=128,
                                out_indices=(1, 2)), tmp_path / 'wide.pth')
    loaded, images = load_backbone(tmp_path / 'wide.pth', depth=50), torch.randn(1, 3, 32, 32)
    last, = loaded(images)
    torch.testing.assert_close(last, method.backbone(images)[-1])
    with pytest.raises(UserError, match='of a ResNet, not of depth 18'):
        load_backbone(tmp_path / 'wide.pth', depth=18)


@pytest.mark.parametrize('model, config', [
    (dict(student=dict(backbone=OWN), teacher=dict(backbone=OWN)), OWN),
    (dict(student=dict(backbone=OWN), teacher=dict(backbone=dict(OWN, width=8))), None),
    (dict(teacher=dict(backbone=RESNET), student=dict(backbone=OWN)), OWN),
    (dict(teacher=dict(backbone=RESNET), student=OWN), OWN),
    (dict(student=OWN), OWN), (dict(backbone=dict(OWN, type='Alias')), dict(OWN, type='Alias')),
    (dict(), None)])
def test_the_config_of_the_backbone_is_told_from_that_of_a_teacher(model, config, registered):
    assert describe_backbone(StudentTeacher(OWN), dict(model=model))['config'] == config


class Elsewhere(StudentTeacher):
    backbone = nn.Identity()


class OneNumber(StudentTeacher):
    def __init__(self, backbone):
        super().__init__(backbone)
        self.backbone.out_channels = 512


@pytest.mark.parametrize('method, words', [
    (Elsewhere, 'the backbone of Elsewhere is a Identity that is not among its modules'),
    (OneNumber, 'model.backbone: out_channels of ResNet is 512; expected a list of whole numbers')])
def test_a_method_whose_backbone_cannot_be_told_is_refused_at_the_start(method, words):
    for ask in (check_method, lambda method: describe_backbone(method, dict(model={}))):
        with pytest.raises(UserError, match=words):
            ask(method(RESNET))
