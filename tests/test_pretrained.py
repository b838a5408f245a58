import json
import subprocess
import sys

import pytest
import timm
import torch
import torchvision

from openselfsup import load_backbone
from openselfsup.checkpoints import save
from openselfsup.errors import UserError
from openselfsup.evaluation.networks import from_checkpoint
from openselfsup.models.exporting import export_to_timm
from openselfsup.registry import BACKBONES


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def written(path, name: str = 'resnet18', prefix: str = '', **others):
    """Write a file of random weights and return the network they came from."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name).eval()
    state = {prefix + key: value for key, value in model.state_dict().items()}
    save(dict(state_dict=state, **others), path)
    return model


@pytest.mark.parametrize('name', ['resnet18', 'resnet34', 'resnet50', 'resnet101',
                                  'resnext50_32x4d'])
def test_the_network_is_found_and_computes_the_same(tmp_path, name):
    theirs = written(tmp_path / 'a.pth', name, prefix='module.')
    backbone = load_backbone(tmp_path / 'a.pth')
    assert not backbone.training
    images = torch.randn(1, 3, 64, 64)
    maps = backbone(images)
    assert len(maps) == 1 and maps[0].shape == (1, theirs.fc.in_features, 2, 2)
    torch.testing.assert_close(theirs.fc(maps[0].mean((2, 3))), theirs(images))


def test_our_checkpoints_give_the_query_encoder(tmp_path):
    written(tmp_path / 'a.pth', prefix='encoder_q.backbone.', meta={}, optimizer={})
    state = load_backbone(tmp_path / 'a.pth').state_dict()
    assert len(state) == 120


def test_inner_feature_maps(tmp_path):
    written(tmp_path / 'a.pth')
    for indices, channels in (((1, 2, 3, 4), [64, 128, 256, 512]), ((2,), [128])):
        maps = load_backbone(tmp_path / 'a.pth', out_indices=indices)(torch.randn(1, 3, 64, 64))
        assert [m.shape[1] for m in maps] == channels


def test_another_depth_than_asked_for_is_refused(tmp_path):
    written(tmp_path / 'a.pth')
    load_backbone(tmp_path / 'a.pth', depth=18)
    with pytest.raises(UserError, match='a.pth: these weights are of a ResNet-18, not of depth'):
        load_backbone(tmp_path / 'a.pth', depth=50)


def test_what_has_no_known_depth_is_refused(tmp_path):
    model = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, (1, 1, 1, 1))
    save(model.state_dict(), tmp_path / 'a.pth')
    with pytest.raises(UserError, match='no ResNet or ResNeXt of a known depth'):
        load_backbone(tmp_path / 'a.pth')


def test_another_norm_has_to_be_named(tmp_path):
    model = torchvision.models.resnet18(norm_layer=lambda n: torch.nn.GroupNorm(16, n)).eval()
    save(model.state_dict(), tmp_path / 'a.pth')
    with pytest.raises(UserError, match='trained without BatchNorm.*norm_cfg'):
        load_backbone(tmp_path / 'a.pth')
    backbone = load_backbone(tmp_path / 'a.pth', norm_cfg=dict(type='GN', num_groups=16))
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model.fc(backbone(images)[0].mean((2, 3))), model(images))


def exported(folder, **config):
    """Write a network of timm with its description and return it."""
    torch.manual_seed(0)
    config = config or dict(model='convnext_atto', patch_size=2, in_channels=4)
    backbone = BACKBONES.build(dict(config, type='TimmBackbone')).eval()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=.5)  # small initial weights hide what differs
    export_to_timm(backbone, dict(config, type='TimmBackbone'), folder, [0.5] * 3, [0.2] * 3,
                   'Of a test.')
    return backbone


@pytest.mark.parametrize('file', ['', 'model.safetensors'])
def test_another_network_of_timm_is_told_from_the_config_beside_it(tmp_path, file):
    """Its numbers of its own, too: here a patch of 2 px and four channels."""
    ours, images = exported(tmp_path / 'net'), torch.randn(1, 4, 64, 64)
    found = load_backbone(tmp_path / 'net' / file)
    torch.testing.assert_close(found(images)[-1], ours(images)[-1], rtol=0, atol=0)
    evaluated = from_checkpoint('resnet18', tmp_path / 'net' / file)
    torch.testing.assert_close(evaluated.backbone(images)[-1], ours(images)[-1], rtol=0, atol=0)
    assert evaluated.wanted.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize('config', [
    dict(model='vit_small_patch14_reg4_dinov2', embed_dim=96, num_heads=3, depth=2),
    dict(model='vit_giant_patch14_reg4_dinov2', embed_dim=96, num_heads=1, depth=2,
         act_layer='GELU'),
    dict(model='vit_tiny_patch16_224', depth=1, act_layer='relu'),
    dict(model='vit_tiny_patch16_224', depth=1, feature='mean'),
    dict(model='vit_so400m_patch14_siglip_224', depth=1)], ids=str)
def test_a_vit_is_what_the_config_beside_it_says(tmp_path, config):
    """Heads, activations and what is taken of it cannot be told from its weights."""
    ours, images = exported(tmp_path / 'net', img_size=56 - 8 * ('tiny' in config['model']),
                            **config), torch.randn(2, 3, 112, 112)
    with torch.inference_mode():
        wanted = ours.image_features(images)
        theirs = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True,
                                   num_classes=0).eval()(images)
        torch.testing.assert_close(wanted, theirs, rtol=1e-3, atol=1e-4)
        for found in (load_backbone(tmp_path / 'net'),
                      from_checkpoint('resnet18', tmp_path / 'net').backbone):
            torch.testing.assert_close(found.image_features(images), wanted, rtol=0, atol=0)


def test_a_description_that_tells_less_than_the_weights_gives_way(tmp_path):
    """That of Virchow names neither its gated layers nor their activation."""
    ours = exported(tmp_path / 'net', model='vit_tiny_patch16_224', depth=1, img_size=32,
                    embed_dim=64, num_heads=1, mlp_ratio=5.5, mlp_layer='SwiGLUPacked',
                    act_layer='silu')
    described = json.loads((tmp_path / 'net/config.json').read_text())
    described |= dict(architecture='vit_tiny_patch16_224', model_args=dict(
        img_size=32, embed_dim=64, depth=1, num_heads=1, mlp_ratio=5.5))
    (tmp_path / 'net/config.json').write_text(json.dumps(described))
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(load_backbone(tmp_path / 'net')(images)[-1], ours(images)[-1])


def test_earlier_blocks_of_a_checkpoint_of_ours(tmp_path):
    config = dict(model='vit_tiny_patch16_224', embed_dim=64, num_heads=1, depth=2, img_size=32)
    torch.manual_seed(0)
    ours = BACKBONES.build(dict(config, type='TimmBackbone', out_indices=(0, 1))).eval()
    record = dict(type='TimmBackbone', **config)
    save(dict(state_dict={f'backbone.{key}': value for key, value in ours.state_dict().items()},
              meta=dict(backbone=dict(prefix='backbone.', config=record))), tmp_path / 'a.pth')
    images = torch.randn(1, 3, 32, 32)
    found = load_backbone(tmp_path / 'a.pth', out_indices=(0,))
    torch.testing.assert_close(found(images)[0], ours(images)[0], rtol=0, atol=0)


def test_another_network_of_timm_has_neither_depth_nor_positions(tmp_path):
    exported(tmp_path / 'net')
    with pytest.raises(UserError, match='convnext_atto, not of a ResNet of depth 18'):
        load_backbone(tmp_path / 'net', depth=18)
    with pytest.raises(UserError, match='nothing to choose for a convnext_atto'):
        load_backbone(tmp_path / 'net', resizing='dino')


def test_bare_weights_of_another_network_say_what_would_tell_it(tmp_path):
    exported(tmp_path / 'net')
    (tmp_path / 'net/model.safetensors').rename(tmp_path / 'bare.safetensors')
    with pytest.raises(UserError, match='with the config.json that names them'):
        load_backbone(tmp_path / 'bare.safetensors')


def test_importing_the_package_imports_nothing_heavy():
    code = ('import sys, openselfsup; print([m for m in ("torch", "mmengine", "cv2", "numpy") '
            'if m in sys.modules]); openselfsup.load_backbone; openselfsup.nonsense')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '[]'
    assert "has no attribute 'nonsense'" in done.stderr
