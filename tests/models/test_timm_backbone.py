"""Networks of timm as backbones: the same numbers, tokens, masks, positions, sizes."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from openselfsup.errors import UserError
from openselfsup.models.drop_path import DropPath
from openselfsup.models.positions import resize_positions
from openselfsup.registry import BACKBONES

GOLDEN = Path(__file__).parents[1] / 'data/golden_vit'
TINY = dict(embed_dim=32, num_heads=2, depth=2)
VITS = {'patch 14, registers': dict(model='vit_small_patch14_reg4_dinov2', img_size=56, **TINY),
        'patch 16': dict(model='vit_tiny_patch16_224', img_size=48, **TINY),
        'positions of registers, too': dict(model='vit_tiny_patch16_224', img_size=48,
                                            reg_tokens=2, **TINY),
        'rotary positions': dict(model='vit_small_patch16_dinov3', **TINY),
        'no class token': dict(model='vit_wee_patch16_reg1_gap_256', img_size=48, **TINY),
        'DeiT': dict(model='deit_tiny_patch16_224', img_size=48, **TINY),
        'DeiT-III': dict(model='deit3_small_patch16_224', img_size=48, **TINY)}
NETS = {'resnet18': dict(model='resnet18'), 'convnext': dict(model='convnext_atto')}


def build(**settings):
    return BACKBONES.build(dict(type='TimmBackbone', **settings))


def images(backbone, rows=2):
    """Return images that are not square and of other sides than the positions."""
    patch = backbone.patch_size or 32
    return torch.randn(rows, 3, 2 * patch, 3 * patch)


def sharpened(backbone):
    """Give tokens, positions and scales of layers that start near zero values that show."""
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if name.endswith(('token', 'pos_embed', 'qkv.weight')) or 'gamma' in name:
                parameter.normal_()
    return backbone.eval()


@pytest.mark.parametrize('name', [*VITS, *NETS])
def test_the_numbers_are_timms_own(name):
    settings = dict((VITS | NETS)[name])
    ours = build(**settings)
    if ours.is_vit:
        sharpened(ours)
    model = settings.pop('model')
    extra = dict(dynamic_img_size=True, global_pool='') if ours.is_vit else {}
    theirs = timm.create_model(model, pretrained=False, num_classes=0, **settings, **extra)
    missing, unexpected = theirs.load_state_dict(ours.net.state_dict(), strict=False)
    assert not unexpected and all('head' in name for name in missing)
    x = images(ours)
    with torch.no_grad():
        expected, found = theirs.eval().forward_features(x), ours.eval()(x)[-1]
        if ours.is_vit:
            tokens = ours.tokens(x)
            before = theirs.num_prefix_tokens
            assert tokens.grid == (2, 3)
            torch.testing.assert_close(tokens.patches, expected[:, before:])
            torch.testing.assert_close(found, tokens.patches.transpose(1, 2).unflatten(2, (2, 3)))
            registers = ours.num_registers
            torch.testing.assert_close(tokens.registers, expected[:, before - registers:before])
            if tokens.cls is not None:
                torch.testing.assert_close(tokens.cls, expected[:, 0])
            torch.testing.assert_close(ours.image_features(x), tokens.patches.mean(1)
                                       if tokens.cls is None else tokens.cls)
        elif name == 'resnet18':
            torch.testing.assert_close(found, expected)
            torch.testing.assert_close(ours.image_features(x), expected.mean((2, 3)))
    assert found.shape[1:] == (ours.out_channels[-1], *(side // ours.strides[-1]
                                                        for side in x.shape[-2:]))


def test_blocks_of_all_rates_and_crops_of_all_sizes_share_compiled_graphs():
    backbone = build(**dict(VITS['patch 14, registers'], depth=10), drop_path=0.2)
    graphs, calls = [], []

    def count(graph, _):
        graphs.append(graph)

        def run(*inputs):
            calls.append(graph)
            return graph.forward(*inputs)
        return run

    x = images(backbone)
    with torch.no_grad():
        expected = backbone.eval().tokens(x)
        backbone.compile(backend=count)
        found = backbone.tokens(x)
    torch.testing.assert_close(found.patches, expected.patches)
    for train in True, False:
        for side in 56, 28:
            calls.clear()
            with torch.set_grad_enabled(train):
                backbone.train(train).tokens(torch.randn(3, 3, side, side))
            assert len(calls) == 10, (train, side)
    assert len(graphs) <= 8  # more of one function, and torch would give up on the rest


def test_paths_are_dropped_for_whole_images():
    even = build(**VITS['patch 16'], drop_path=0.2, uniform_drop_path=True)
    path, x = even.net.blocks[0].drop_path1.train(), torch.ones(5000, 2, 3)
    found = path(x)
    assert found.unique().tolist() == pytest.approx([0., 1.25])
    assert (found == found[:, :1, :1]).all() and found.mean() == pytest.approx(1, abs=0.03)
    assert path.eval()(x) is x


@pytest.mark.parametrize('name', [*VITS, *NETS])
def test_every_parameter_learns_whether_masked_or_not(name):
    """DistributedDataParallel fails where a parameter gets no gradient."""
    backbone = build(**(VITS | NETS)[name], recompute=name == 'patch 16')
    x = images(backbone)
    backbone(x)[-1].square().sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    if backbone.is_vit:
        backbone.tokens(x, torch.eye(2, 6, dtype=torch.bool)).patches.square().sum().backward()
        assert backbone.mask_token.grad.any()


@pytest.mark.parametrize('name', VITS)
def test_what_is_masked_is_not_seen_but_its_place_is(name):
    backbone = sharpened(build(**VITS[name]))
    x = images(backbone)
    patch, mask = backbone.patch_size, torch.zeros(2, 6, dtype=torch.bool)
    mask[:, 4] = True  # second row, second column
    other = x.clone()
    other[:, :, patch:, patch:2 * patch] = torch.randn(2, 3, patch, patch)
    with torch.no_grad():
        first, second, plain = (backbone.tokens(x, mask), backbone.tokens(other, mask),
                                backbone.tokens(x))
        assert torch.equal(first.patches, second.patches)
        assert not torch.allclose(first.patches, plain.patches, atol=1e-3)
        everything = backbone.tokens(x, torch.ones(2, 6, dtype=torch.bool)).patches
    assert not torch.allclose(everything[:, 0], everything[:, 4], atol=1e-3)


def test_maps_of_several_blocks_are_normed_and_later_blocks_do_not_exist():
    settings = VITS['patch 16'] | dict(depth=4)
    backbone = sharpened(build(**settings, out_indices=(0, 2)))
    assert len(backbone.net.blocks) == 3 and backbone.out_channels == [32, 32]
    assert backbone.stages == (3, 4) and backbone.strides == [16, 16]
    with torch.no_grad():
        maps = backbone(images(backbone))
    for one in maps:  # layer norm with weight 1: mean 0 and variance 1 over channels
        torch.testing.assert_close(one.mean(1), torch.zeros(2, 2, 3), atol=1e-5, rtol=0)
        torch.testing.assert_close(one.var(1, unbiased=False), torch.ones(2, 2, 3), atol=1e-3,
                                   rtol=0)
    assert build(model='convnext_atto', out_indices=(1, 3)).stages == (2, 4)


def test_class_token_and_mean_joined():
    backbone = sharpened(build(**VITS['patch 16'], feature='cls_mean'))
    x = images(backbone)
    with torch.no_grad():
        tokens, found = backbone.tokens(x), backbone.image_features(x)
    torch.testing.assert_close(found, torch.cat([tokens.cls, tokens.patches.mean(1)], 1))


def test_drop_path_rises_or_is_the_same_everywhere():
    settings = VITS['patch 16'] | dict(drop_path=0.2)
    rates = [[getattr(block.drop_path1, 'drop_prob', 0.) for block in build(
        **settings, uniform_drop_path=uniform).net.blocks] for uniform in (False, True)]
    assert rates == [[0., pytest.approx(0.2)], [0.2, 0.2]]


@pytest.mark.parametrize('settings', [dict(VITS['patch 16'], drop_path_rate=0.2),
                                      dict(model='resnet18', drop_path=0.2),
                                      dict(model='convnext_atto', drop_path=0.2)])
def test_a_rate_that_is_the_same_everywhere_is_that_of_every_branch(settings):
    net = build(**settings, uniform_drop_path=True).net
    dropped = [part for part in net.modules() if isinstance(part, DropPath)]
    branches = sum(2 if hasattr(part, 'drop_path2') else hasattr(part, 'drop_path')
                   for part in net.modules())
    assert [part.drop_prob for part in dropped] == [0.2] * branches and branches >= 4


@pytest.mark.parametrize('rule, golden', [('timm', 'timm'), ('timm', 'offset0_antialias'),
                                          ('dino', 'offset0.1')])
@pytest.mark.parametrize('grid', [(4, 4), (3, 5), (14, 14)])
def test_positions_are_resized_as_published(rule, golden, grid):
    arrays = np.load(GOLDEN / 'pos_embed.npz')
    name = f'{golden}/{grid[0]}x{grid[1]}'
    positions = torch.from_numpy(arrays['pos_embed']).requires_grad_()
    found = resize_positions(positions, (7, 7), grid, rule=rule)
    torch.testing.assert_close(found.detach(), torch.from_numpy(arrays[name]), atol=1e-5, rtol=1e-5)
    if f'{name}/upstream' in arrays:
        found.backward(torch.from_numpy(arrays[f'{name}/upstream']))
        torch.testing.assert_close(positions.grad, torch.from_numpy(
            arrays[f'{name}/grad_pos_embed']), atol=1e-5, rtol=1e-5)
    assert resize_positions(positions, (7, 7), (7, 7), rule=rule) is positions


def test_the_rule_follows_the_weights_that_a_name_stands_for():
    plain = dict(img_size=56, **TINY)
    assert build(model='vit_small_patch14_dinov2', **plain).resizing == 'dino'
    assert build(model='vit_small_patch14_reg4_dinov2', **plain).resizing == 'timm'
    assert build(model='vit_small_patch14_dinov2', resizing='timm', **plain).resizing == 'timm'


@pytest.mark.parametrize('settings, words', [
    (dict(model='vit_smal_patch16_224'), "no network called 'vit_smal_patch16_224'.*did you mean"),
    (dict(model='deit_tiny_distilled_patch16_224'), 'timm cannot build.*distillation token'),
    (dict(model='resnet18', img_size=32), 'timm cannot build resnet18: .*img_size'),
    (dict(model='vit_tiny_patch16_224', embed_dim=30, num_heads=4), 'timm cannot build'),
    (dict(model='resnet18', out_indices=(9,)), 'out_indices'),
    (dict(**VITS['patch 16'], out_indices=(1, 0)), 'numbers from 0 to 1 in rising order'),
    (dict(**VITS['patch 16'], patch_drop_rate=0.1), 'patches cannot be dropped'),
    (dict(**VITS['patch 16'], resizing='dinov2'), 'resizing')])
def test_impossible_settings(settings, words):
    with pytest.raises(UserError, match=words):
        build(**settings)


def test_sides_that_are_no_multiple_of_the_patch():
    backbone = build(**VITS['patch 14, registers'])
    with pytest.raises(UserError, match='96 x 224 px .* patches of 14 px.* such as 98 x 224'):
        backbone(torch.zeros(1, 3, 96, 224))
    with pytest.raises(UserError, match='has no tokens'):
        build(model='resnet18').tokens(torch.zeros(1, 3, 32, 32))
