"""Evaluation of ViTs: told from their weights, their class tokens, patches of 14 px."""

import numpy as np
import torch
from test_evaluate import QUICK, run

from openselfsup.checkpoints import save
from openselfsup.evaluation import networks
from openselfsup.evaluation.dense.features import find_layers, patch_features
from openselfsup.evaluation.settings import FINETUNE, KNN, LINEAR, STAGES
from openselfsup.registry import BACKBONES
from openselfsup.training.features import extract_features

TINY = dict(type='TimmBackbone', embed_dim=64, num_heads=1, depth=2, img_size=32)


def write(path, **settings):
    """Write the weights of a tiny ViT under timm's names; return its backbone."""
    torch.manual_seed(0)
    backbone = BACKBONES.build(dict(TINY, **settings))
    with torch.no_grad():
        backbone.net.cls_token.normal_()
    save({name.removeprefix('net.'): value for name, value in backbone.state_dict().items()
          if name != 'mask_token'}, path)
    return backbone.eval()


def test_the_feature_of_a_vit_is_its_class_token(tmp_path):
    backbone = write(tmp_path / 'vit.pth', model='vit_tiny_patch16_224')
    found = networks.from_checkpoint('resnet18', tmp_path / 'vit.pth')
    assert found.config['embed_dim'] == 64 and found.config['patch_size'] == 16
    tiles = torch.randint(0, 256, (3, 3, 32, 48), dtype=torch.uint8)
    mean, std = (0.5,) * 3, (0.25,) * 3
    with torch.no_grad():
        tokens = backbone.tokens((tiles / 255 - 0.5) / 0.25)
    torch.testing.assert_close(extract_features(found.backbone, tiles, 2, mean, std), tokens.cls,
                               atol=1e-5, rtol=1e-4)
    found.backbone.feature = 'cls_mean'
    torch.testing.assert_close(
        extract_features(found.backbone, tiles, 2, mean, std),
        torch.cat([tokens.cls, tokens.patches.mean(1)], 1), atol=1e-5, rtol=1e-4)


def test_the_protocols(tmp_path, split):
    write(tmp_path / 'vit.pth', model='vit_tiny_patch16_224')
    results, _ = run(tmp_path, split, tmp_path / 'vit.pth', train=QUICK, baselines=False,
                     protocols=(LINEAR, KNN, STAGES, FINETUNE))
    assert {row.protocol.split(' ')[0] for row in results.rows} == {LINEAR, KNN, STAGES, FINETUNE}
    assert all(row.features == 'checkpoint' and row.scores for row in results.rows)


class Two:
    """Two images whose sides are no multiples of 14."""

    def __len__(self):
        return 2

    def read(self, index):
        return np.full((64, 100, 3), 50 * index, np.uint8)

    def path(self, index):
        return f'{index}.png'


def test_dense_features_are_patch_tokens(tmp_path):
    backbone = BACKBONES.build(dict(TINY, model='vit_small_patch14_dinov2', img_size=42))
    layers = find_layers(backbone, ['last2'])
    assert [(one.numbers, one.stride) for one in layers] == [((1,), 14)]
    (where, (found,)), = patch_features(backbone, Two(), layers, 1.0, 2, (0.5,) * 3, (0.5,) * 3)
    assert list(where) == [0, 1] and found.shape == (2, 64, 5, 7)
