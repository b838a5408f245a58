"""Methods on tiny ViTs and ConvNeXts, whose necks are told no channels: grids not of 7 x 7."""

import pytest
import torch
from methods import METHODS
from toy_model import asked_for, batch_for, maps_of_crops

from openselfsup.registry import ALGORITHMS

VIT = dict(type='TimmBackbone', embed_dim=24, num_heads=2, depth=2, out_indices=(0, 1))
BACKBONES = {
    'ViT, patch 14': (dict(VIT, model='vit_small_patch14_reg4_dinov2', img_size=56), (56, 84)),
    'ViT, patch 16': (dict(VIT, model='vit_tiny_patch16_224', img_size=48), (64, 48)),
    'ConvNeXt': (dict(type='TimmBackbone', model='convnext_atto', depths=(1, 1, 1, 1),
                      dims=(8, 16, 24, 32), out_indices=(2, 3)), (96, 128))}
ROWS = 8
NAMES = ('MoCo', 'SimCLR', 'BYOL', 'DenseCL', 'PLM', 'ConCL', 'PLMConCL', 'CA2CL', 'VICRegL',
         'PLMVICRegL', 'PLMSimCLR', 'Classification', 'ODC')


def without_channels(value):
    """Return a config that leaves the channels of necks and heads to the method."""
    if isinstance(value, dict):
        return {key: without_channels(item) for key, item in value.items()
                if key != 'in_channels'}
    return value


@pytest.mark.parametrize('backbone', BACKBONES)
@pytest.mark.parametrize('name', NAMES)
def test_a_step(name, backbone):
    config, (height, width) = BACKBONES[backbone]
    row = without_channels(METHODS[name]) | dict(backbone=config)
    if 'num_concepts' in row:
        row['label_maps'] = 'exact'  # the published rounding is of square views
    method = ALGORITHMS.build(row)
    method.set_data(20, ['gland', 'muscle', 'stroma'])
    assert method.backbone.out_channels[-1] in (24, 32)
    squares, maps = batch_for(method, ROWS)
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(ROWS, 3, height, width, generator=generator) for _ in squares]
    outputs = method(views, maps, **asked_for(method, ROWS))
    loss = sum(value for key, value in outputs.items() if key.startswith('loss'))
    assert loss.isfinite()
    loss.backward()
    silent = [key for key, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent
    moved = [p for p in method.backbone.parameters() if p.grad is not None and p.grad.any()]
    assert len(moved) > 10


def test_cells_of_a_vit_are_matched_by_their_place():
    """The same crop twice, in a grid of 4 x 6: every cell meets itself and none other."""
    config, (height, width) = BACKBONES['ViT, patch 14']
    method = ALGORITHMS.build(without_channels(METHODS['PLM']) | dict(backbone=config))
    view = torch.randn(2, 3, height, width)
    maps = maps_of_crops(torch.tensor([[[20, 30, 100, 150, 0]] * 2] * 2).numpy())
    outputs = method([view, view], maps)
    assert outputs['matched_fraction'] == 1 and outputs['mean_coverage'] == pytest.approx(1)
