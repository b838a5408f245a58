"""What stands for an image is what a method trains of a ViT: class token, or mean of patches."""

import re
from pathlib import Path

import pytest
import timm
import torch
from small_runs import REPO

from openselfsup import load_backbone
from openselfsup.checkpoints import load, save
from openselfsup.checkpoints.extracting import extract_backbone
from openselfsup.cli.main import dispatch
from openselfsup.engine.config import load_config
from openselfsup.engine.runner import Runner
from openselfsup.training.launch import Launch

VIT = ('model.backbone={"_delete_": True, "type": "TimmBackbone", "model": "vit_tiny_patch16_224", '
       '"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 64}')


@pytest.mark.parametrize(('config', 'given', 'feature'), [
    ('SimCLR/r18_small', (), 'mean'), ('MoCo/r18_small', (), 'mean'),
    ('SimCLR/r18_small', ('model.backbone.feature=cls',), 'cls'), ('DINO/r18_small', (), 'cls')])
def test_what_was_trained_is_evaluated_and_exported(config, given, feature, tmp_path):
    options = [VIT, *given, 'dataset.source.root=data/demo/kather2016', 'global_batch_size=16',
               'epochs=1', 'workers=0']
    if config.startswith('DINO'):
        options += [f'dataset.recipe.{name}.size=32' for name in
                    ('global1', 'global2', 'local1', 'local2', 'local3', 'local4')]
    cfg = load_config(REPO / f'configs/{config}.py', options)
    runner = Runner(cfg, Launch(0, 1, torch.device('cpu')), tmp_path / 'run')
    images = torch.randn(2, 3, 64, 64)
    backbone = runner.algorithm.backbone.eval()
    with torch.no_grad():
        backbone.net.cls_token.normal_()
        tokens = backbone.tokens(images)
        expected = tokens.patches.mean(1) if feature == 'mean' else tokens.cls
        torch.testing.assert_close(backbone.image_features(images), expected)
        runner.save_checkpoint('a.pth')
        for path in (tmp_path / 'run/a.pth', *from_before(tmp_path / 'run/a.pth')):
            torch.testing.assert_close(load_backbone(path).image_features(images), expected)
        dispatch(['extract', str(REPO / f'configs/{config}.py'), str(tmp_path / 'run/a.pth'),
                  '--format', 'safetensors', '--out', str(tmp_path / 'given'),
                  '--cfg-options', *options])
        given_away = timm.create_model(f'local-dir:{tmp_path / "given"}', pretrained=True).eval()
        torch.testing.assert_close(given_away(images), expected, atol=1e-5, rtol=1e-4)


def from_before(path: Path) -> list[Path]:
    """Write a checkpoint as runs did that noted a choice of the config alone, and its backbone."""
    checkpoint = load(path)
    meta = checkpoint['meta']
    if meta['backbone']['config'].get('feature') == 'mean':
        del meta['backbone']['config']['feature']
        meta['config'] = re.sub(r"\s*feature='mean',", '', meta['config'])
        assert 'feature' not in meta['config']
    found = [path.with_name('before.pth'), path.with_name('extracted.pth')]
    save(checkpoint, found[0])
    extract_backbone(*found)
    return found
