"""Whether published ViTs get the positions at other sizes that they were trained with."""

import json
import logging

import pytest
import safetensors.torch
import torch
from test_transformers import KEYS, LARGE, in_hugging_faces_names, of_all_blocks, shaped

from openselfsup import load_backbone
from openselfsup.checkpoints import load, save, told_resizing, transformer_of
from openselfsup.errors import UserError
from openselfsup.evaluation import networks
from openselfsup.registry import BACKBONES
from openselfsup.transfer.vit_pyramid import vit_of

TINY = dict(type='TimmBackbone', embed_dim=64, num_heads=1, depth=2)
DINOV2 = dict(TINY, model='vit_small_patch14_dinov2', img_size=518)
PLAIN = dict(TINY, model='vit_small_patch16_224', img_size=64)


def state_of(config):
    """Return random weights of a backbone under timm's names, without a mask token."""
    torch.manual_seed(0)
    backbone = BACKBONES.build(config)
    return {name.removeprefix('net.'): torch.randn_like(value)
            for name, value in backbone.state_dict().items() if name != 'mask_token'}


def write(folder, state, **config):
    """Write weights as hubs have them, with what is said beside them."""
    folder.mkdir()
    safetensors.torch.save_file(state, folder / 'model.safetensors')
    if config:
        (folder / 'config.json').write_text(json.dumps(config))
    return folder


def features(backbone, side):
    with torch.no_grad():
        return backbone.eval().image_features(torch.randn(
            2, 3, side, side, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize('name, rule', [
    ('dinov2_vits14_pretrain', 'dino'), ('dinov2_vits14_reg4_pretrain', 'timm'),
    ('timm/vit_small_patch14_dinov2', 'dino'), ('timm/vit_small_patch14_reg4_dinov2', 'timm'),
    *((name, 'timm') for name in LARGE)])
def test_the_rule_of_published_shapes(name, rule):
    keys = of_all_blocks(LARGE[name]) if name in LARGE else KEYS[name]
    assert told_resizing(transformer_of(shaped(keys))) == (rule, True)


@pytest.mark.parametrize('form', ['timm', 'Hugging Face', 'folder'])
def test_weights_are_evaluated_as_they_are_trained_on(form, tmp_path):
    """The floor of a run and the evaluation of the weights it starts from are the same number."""
    state = state_of(DINOV2)
    if form == 'folder':
        path = write(tmp_path / 'timm', state, architecture='vit_small_patch14_dinov2')
    else:
        path = tmp_path / 'weights.pth'
        save(in_hugging_faces_names(state) if form == 'Hugging Face' else state, path)
    run = BACKBONES.build(dict(DINOV2, init_cfg=dict(type='Pretrained', checkpoint=str(path))))
    floor = features(run, 224)
    for told in (networks.from_checkpoint('resnet18', path).backbone, load_backbone(path)):
        torch.testing.assert_close(features(told, 224), floor)
    other = features(load_backbone(path, resizing='timm'), 224)
    assert (other - floor).abs().max() > 0.01
    assert vit_of(load(path), str(path))['resizing'] == 'dino'


def test_what_lies_beside_the_weights_decides(tmp_path, caplog):
    state = state_of(PLAIN)
    for name, rule, said in (
            ('dino', 'dino', dict(architecture='vit_small_patch16_224',
                                  pretrained_cfg=dict(tag='dino'))),
            ('labels', 'timm', dict(architecture='vit_small_patch16_224',
                                    pretrained_cfg=dict(tag='augreg_in1k'))),
            ('ours', 'dino', dict(architecture='vit_small_patch16_224', resizing='dino'))):
        folder = write(tmp_path / name, state, **said)
        for path in (folder, folder / 'model.safetensors'):
            network = networks.from_checkpoint('resnet18', path)
            assert (network.backbone.resizing, network.doubt) == (rule, '')
    (folder / 'config.json').write_text('{')
    with pytest.raises(UserError, match='beside the weights cannot be read'):
        networks.from_checkpoint('resnet18', folder)
    assert not caplog.records


def test_what_nothing_tells_is_said(tmp_path, caplog):
    state, path = state_of(PLAIN), tmp_path / 'vit.pth'
    save(state, path)
    network = networks.from_checkpoint('resnet18', path)
    assert network.backbone.resizing == 'dino'
    assert 'does not tell' in network.doubt and '64 px' in network.doubt
    with caplog.at_level(logging.WARNING):
        assert load_backbone(path).resizing == 'dino'
    assert network.doubt in caplog.text
    network = networks.from_checkpoint('resnet18', path, 'timm')
    assert (network.backbone.resizing, network.doubt) == ('timm', '')
    save(state | {'head.weight': torch.zeros(5, 64), 'head.bias': torch.zeros(5)}, path)
    network = networks.from_checkpoint('resnet18', path)
    assert (network.backbone.resizing, network.doubt) == ('timm', '')
    save(in_hugging_faces_names(state), path)  # as Phikon is named
    network = networks.from_checkpoint('resnet18', path)
    assert (network.backbone.resizing, network.doubt) == ('dino', '')


def test_a_rule_where_there_is_nothing_to_choose(tmp_path):
    save(BACKBONES.build(dict(type='ResNet', depth=18)).state_dict(), tmp_path / 'resnet.pth')
    with pytest.raises(UserError, match='there is nothing to choose'):
        networks.from_checkpoint('resnet18', tmp_path / 'resnet.pth', 'dino')
