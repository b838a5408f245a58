"""Backbones that timm itself reads back."""

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from openselfsup import load_backbone
from openselfsup.checkpoints import describe_backbone
from openselfsup.cli.main import main
from openselfsup.engine.building import tell_feature
from openselfsup.engine.config import load_config
from openselfsup.errors import UserError
from openselfsup.models.exporting import export_to_timm
from openselfsup.registry import ALGORITHMS, BACKBONES

TINY = dict(type='TimmBackbone', embed_dim=64, num_heads=1, depth=2)
CONFIGS = {
    'ViT': dict(TINY, model='vit_small_patch14_reg4_dinov2', img_size=42, drop_path=0.1),
    'SwiGLU': dict(TINY, model='vit_base_patch16_224', img_size=42, patch_size=14, reg_tokens=2,
                   mlp_layer='SwiGLUPacked', act_layer='silu', mlp_ratio=2., init_values=1e-5),
    'DINOv3': dict(TINY, model='vit_small_patch16_dinov3'),
    'DeiT': dict(TINY, model='deit_tiny_patch16_224', img_size=48),
    'Eva': dict(TINY, model='vit_small_patch16_rope_224', img_size=48),
    'no class token': dict(TINY, model='vit_wee_patch16_reg1_gap_256', img_size=48),
    'ConvNeXt': dict(type='TimmBackbone', model='convnext_atto', depths=[1, 1, 1, 1],
                     dims=[8, 16, 24, 32]),
    'ResNet': dict(type='ResNet'),
    'ResNeXt': dict(type='ResNeXt', depth=50, groups=32, width_per_group=4)}
NORM = [0.5, 0.5, 0.5], [0.2, 0.2, 0.2]


@pytest.mark.parametrize('name', CONFIGS)
def test_timm_reads_it_back(name, tmp_path):
    torch.manual_seed(0)
    backbone = BACKBONES.build(CONFIGS[name]).eval()
    said = export_to_timm(backbone, CONFIGS[name], tmp_path, *NORM, 'By a test.')
    assert 'tensors' in said and 'By a test.' in (tmp_path / 'README.md').read_text()
    model = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, num_classes=0).eval()
    assert list(model.pretrained_cfg['mean']) == NORM[0]
    patch = getattr(backbone, 'patch_size', None) or 32
    images = torch.randn(2, 3, 2 * patch, 3 * patch)
    with torch.no_grad():
        found, maps = model.forward_features(images), backbone(images)
        if getattr(backbone, 'is_vit', False):
            found = found[:, model.num_prefix_tokens:].transpose(1, 2).unflatten(2, (2, 3))
    torch.testing.assert_close(found, maps[-1])
    export_to_timm(backbone, CONFIGS[name], tmp_path, *NORM, 'Again.')


def published():
    """Return the networks that docs/backbones.md names, as their lines say."""
    text = (Path(__file__).parents[2] / 'docs/backbones.md').read_text()
    found = dict(re.findall(r"^\| ([^|]+) \| `(model='[^`]+)`", text, re.M))
    return {**found, 'Virchow2': found['Virchow'] + ', reg_tokens=4'}


@pytest.mark.parametrize('name', published())
def test_timm_reads_back_what_the_page_names(name, tmp_path):
    """One block of each, in its own width: the command said so of networks that timm refused."""
    torch.manual_seed(0)
    config = eval(f'dict({published()[name]})') | dict(type='TimmBackbone', depth=1, img_size=224)
    backbone = BACKBONES.build(config).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    export_to_timm(backbone, config, tmp_path, *NORM, '')
    described = json.loads((tmp_path / 'config.json').read_text())
    by_hand = timm.create_model(described['architecture'], num_classes=0, **described['model_args'])
    by_hand.load_state_dict(load_file(tmp_path / 'model.safetensors'))
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = backbone.tokens(images)
        model = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, num_classes=0)
        for found in (model.eval(), by_hand.eval()):
            tokens = found.forward_features(images)
            torch.testing.assert_close(tokens[:, 0], expected.cls)
            torch.testing.assert_close(tokens[:, found.num_prefix_tokens:], expected.patches)
        if name == 'DINOv3':  # of one block it is none that is known
            return
        ours = load_backbone(tmp_path)
        torch.testing.assert_close(ours.tokens(images).patches, expected.patches)
    assert (ours.feature, ours.resizing) == (backbone.feature, backbone.resizing)


def test_gates_without_layer_scale_or_of_another_activation(tmp_path):
    for i, more in enumerate((dict(act_layer='silu'), dict(init_values=1e-5))):
        config = dict(TINY, model='vit_base_patch16_224', img_size=32, mlp_layer='SwiGLUPacked',
                      mlp_ratio=2., **more)
        backbone, images = BACKBONES.build(config).eval(), torch.randn(1, 3, 32, 32)
        export_to_timm(backbone, config, tmp_path / str(i), *NORM, '')
        model = timm.create_model(f'local-dir:{tmp_path / str(i)}', pretrained=True, num_classes=0)
        with torch.no_grad():
            torch.testing.assert_close(model.eval().forward_features(images)[:, 1:],
                                       backbone.tokens(images).patches)


def test_a_layer_that_timm_cannot_be_told_is_refused(tmp_path):
    config = dict(TINY, model='vit_base_patch16_224', img_size=32, mlp_layer='SwiGLU')
    with pytest.raises(UserError, match='timm cannot be told to build this network'):
        export_to_timm(BACKBONES.build(config), config, tmp_path, *NORM, '')
    assert not list(tmp_path.iterdir())


def test_what_timm_has_not_is_refused(tmp_path):
    config = dict(type='ResNet', depth=18, out_indices=(2,))
    with pytest.raises(UserError, match='timm has no network like this ResNet'):
        export_to_timm(BACKBONES.build(config), config, tmp_path, *NORM, '')
    (tmp_path / 'README.md').write_text('mine')
    with pytest.raises(UserError, match='holds something else: README.md'):
        export_to_timm(BACKBONES.build(dict(type='ResNet')), dict(type='ResNet', depth=18),
                       tmp_path, *NORM, '')
    assert (tmp_path / 'README.md').read_text() == 'mine'


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('sys.argv', [
        'openselfsup', 'extract', 'demo/plm_r18', '--pretrained', 'random', '--format',
        'safetensors', '--out', str(tmp_path / 'mine')])
    try:
        main()
    except SystemExit as left:
        assert not left.code, capsys.readouterr()
    assert "timm's resnet18" in capsys.readouterr().out
    timm.create_model(f"local-dir:{tmp_path / 'mine'}", pretrained=True, num_classes=0)


OWN_METHOD = '''
from openselfsup.models.method import BaseMethod
from openselfsup.registry import ALGORITHMS, BACKBONES

@ALGORITHMS.register_module(force=True)
class Learner(BaseMethod):
    def __init__(self, student: dict):
        super().__init__()
        self.student = BACKBONES.build(student)

    @property
    def backbone(self):
        return self.student

    def forward(self, views, view_to_tile=None):
        return {'loss': self.student(views[0])[-1].mean()}
'''


def test_the_command_takes_a_backbone_of_any_name(tmp_path, capsys, monkeypatch):
    (tmp_path / 'learner.py').write_text(OWN_METHOD)
    (tmp_path / 'config.py').write_text(
        "_base_ = 'demo/plm_r18'\ncustom_imports = dict(imports=['learner'])\n"
        "model = dict(_delete_=True, type='Learner', student=dict(type='TimmBackbone', "
        "model='vit_tiny_patch16_224', embed_dim=64, num_heads=1, depth=2))\n")
    monkeypatch.syspath_prepend(tmp_path)
    cfg = load_config(tmp_path / 'config.py')
    learner = ALGORITHMS.build(cfg.model)
    torch.save(dict(state_dict=learner.state_dict(), meta=dict(backbone=describe_backbone(
        learner, cfg.to_dict()))), tmp_path / 'run.pth')
    for more in (['--out', 'features.npz', '--size', '32'],
                 ['--out', 'exported', '--format', 'safetensors']):
        more[1] = str(tmp_path / more[1])
        monkeypatch.setattr('sys.argv', ['openselfsup', 'extract', str(tmp_path / 'config.py'),
                                         str(tmp_path / 'run.pth'), *more])
        try:
            main()
        except SystemExit as left:
            assert not left.code, capsys.readouterr()
    said = capsys.readouterr().out
    assert '170 tiles x 64 features' in said and "timm's vit_tiny_patch16_224" in said
    tell_feature(cfg)  # as a run does: the class token is not trained
    assert cfg.model.student.feature == 'mean'
