"""Evaluation of ViTs: told from their weights, their class tokens, patches of 14 px."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_evaluate import QUICK, run

from openselfsup.checkpoints import save
from openselfsup.datasets import ImageFolder
from openselfsup.errors import UserError
from openselfsup.evaluation import networks
from openselfsup.evaluation.cached_features import extract_all
from openselfsup.evaluation.classifier import TrainSettings
from openselfsup.evaluation.dense.features import (
    NO_NORM,
    ResizedImages,
    find_layers,
    grain_of,
    patch_colours,
    patch_features,
)
from openselfsup.evaluation.extract import inputs_of
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
    found = networks.from_checkpoint('resnet18', tmp_path / 'vit.pth', 'timm')
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


def test_what_no_weight_tells_is_part_of_what_features_depend_on():
    def reading(**config):
        return networks.reading_of(BACKBONES.build(config))
    vit = dict(TINY, model='vit_tiny_patch16_224')
    one, again = reading(**vit), reading(**vit)
    assert one == again and len(one) == 1
    for other in (dict(num_heads=2), dict(act_layer='quick_gelu')):
        assert reading(**{**vit, **other}) != one
    assert reading(type='ResNet', depth=18) == []  # the weights tell all
    groups = [reading(type='ResNet', depth=18, norm_cfg=dict(type='GN', num_groups=n))
              for n in (16, 32)]
    assert groups[0] != groups[1]


def test_other_features_of_the_same_weights_are_not_taken_for_these(tmp_path):
    write(tmp_path / 'vit.pth', model='vit_tiny_patch16_224')
    backbone = networks.from_checkpoint('resnet18', tmp_path / 'vit.pth', 'timm').backbone
    for i in range(4):
        (tmp_path / f'{i % 2}').mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)).save(
            tmp_path / f'{i % 2}' / f'{i}.png')
    source, found, inputs = ImageFolder(str(tmp_path)), {}, set()
    for feature in ('cls', 'mean', 'cls'):
        backbone.feature = feature
        inputs.add(inputs_of(backbone, source, 32, *NO_NORM, 'off'))
        made = extract_all(dict(checkpoint=backbone), source, np.arange(2), source,
                           TrainSettings(image_size=32), NO_NORM, tmp_path, colours=False)
        known = found.setdefault(feature, made.test['checkpoint'])
        assert not made.cached and torch.equal(made.test['checkpoint'], known)
    assert len(inputs) == 2 and not torch.allclose(found['cls'], found['mean'])


def test_imagenet_weights_of_a_vit_are_a_baseline_and_others_are_refused(tmp_path, split):
    for name, model in (('vit', 'vit_tiny_patch16_224'), ('more', 'vit_tiny_patch16_224')):
        write(tmp_path / f'{name}.pth', model=model, depth=2 if name == 'vit' else 3)
    results, _ = run(tmp_path, split, tmp_path / 'vit.pth', protocols=(LINEAR,),
                     imagenet=str(tmp_path / 'vit.pth'))
    scores = {row.features: row.scores for row in results.rows}
    assert scores['ImageNet init'] == scores['checkpoint']  # they are the same weights here
    with pytest.raises(UserError, match='more.pth: these are weights of another network'):
        run(tmp_path, split, tmp_path / 'vit.pth', protocols=(LINEAR,),
            imagenet=str(tmp_path / 'more.pth'))


def test_the_protocols(tmp_path, split):
    write(tmp_path / 'vit.pth', model='vit_tiny_patch16_224')
    results, _ = run(tmp_path, split, tmp_path / 'vit.pth', train=QUICK, baselines=False,
                     protocols=(LINEAR, KNN, STAGES, FINETUNE))
    assert {row.protocol.split(' ')[0] for row in results.rows} == {LINEAR, KNN, STAGES, FINETUNE}
    assert all(row.features == 'checkpoint' and row.scores for row in results.rows)


class Two:
    """Two images whose sides are no multiples of 14."""

    def __init__(self, height=64, width=100):
        self.size = height, width

    def __len__(self):
        return 2

    def read(self, index):
        return np.full((*self.size, 3), 50 * index, np.uint8)

    def path(self, index):
        return f'{index}.png'


def test_dense_features_are_patch_tokens(tmp_path):
    backbone = BACKBONES.build(dict(TINY, model='vit_small_patch14_dinov2', img_size=42))
    layers = find_layers(backbone, ['last2'])
    assert [(one.numbers, one.stride) for one in layers] == [((1,), 14)]
    (where, (found,)), = patch_features(backbone, Two(), layers, 1.0, 2, (0.5,) * 3, (0.5,) * 3)
    assert list(where) == [0, 1] and found.shape == (2, 64, 5, 7)


def a_vit(patch):
    return BACKBONES.build(dict(TINY, model='vit_tiny_patch16_224', patch_size=patch,
                                img_size=2 * patch)).eval()


@pytest.fixture(scope='module')
def networks_of_strides():
    return [*map(a_vit, (8, 12, 14, 16, 32)), BACKBONES.build(dict(type='ResNet', depth=18)).eval()]


@settings(max_examples=8, deadline=None)
@given(st.integers(9, 150), st.integers(9, 150), st.sampled_from([0.5, 1.0, 2.0]))
def test_all_that_one_evaluation_compares_has_one_grid_whose_cells_tile_the_image(
        networks_of_strides, height, width, scale):
    images, of_stride = Two(height, width), {}
    for network in networks_of_strides:
        layers = find_layers(network, ['last2'])
        colours, own = patch_colours(layers)
        shown = ResizedImages(images, scale, grain_of(layers))[0][0].shape[1:]
        for one, chosen in ((network, layers), *((colour, own) for colour in colours.values())):
            (_, (found,)), = patch_features(one, images, chosen, scale, 2, *NO_NORM)
            grid = tuple(found.shape[2:])
            assert tuple(chosen[0].stride * n for n in grid) == tuple(shown)
            # Networks of one stride, a ViT of 16 px and two stages of a ResNet, share it, too.
            assert of_stride.setdefault(chosen[0].stride, grid) == grid
    assert set(of_stride) == {8, 12, 14, 16, 32}


def test_a_guess_is_among_the_results(tmp_path, split):
    write(tmp_path / 'vit.pth', model='vit_tiny_patch16_224')
    results, said = run(tmp_path, split, tmp_path / 'vit.pth', protocols=(KNN,), baselines=False)
    sentence, = [note for note in results.notes if 'does not tell how its positions' in note]
    assert sentence in said
    (tmp_path / 'given').mkdir()
    results, _ = run(tmp_path / 'given', split, tmp_path / 'vit.pth', protocols=(KNN,),
                     baselines=False, resizing='timm')
    assert not any('does not tell' in note for note in results.notes)
    assert results.request['resizing'] == 'timm'


def test_a_model_that_is_not_asked_for_is_told(tmp_path, split):
    """The weights of a ViT say what they are, whatever --model_name says."""
    write(tmp_path / 'vit.pth', model='vit_tiny_patch16_224')
    results, said = run(tmp_path, split, tmp_path / 'vit.pth', protocols=(KNN,), baselines=False,
                        model_name='resnet50')
    sentence, = [note for note in results.notes if 'counts for nothing' in note]
    assert sentence in said and '--model_name resnet50' in sentence
