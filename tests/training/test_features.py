"""Pooled features: modes, precisions, normalisation."""

from pathlib import Path

import pytest
import torch
from torch import nn

from openselfsup.datasets.labeled import LabeledTileDataset
from openselfsup.training.features import extract_features

DEMO = Path(__file__).parents[2] / 'data/demo'


class Backbone(nn.Module):
    """Two feature maps, with dropout and a frozen batch norm that must stay as they are."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, stride=8)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = self.conv(x)
        return [x, self.drop(self.norm(x)) * 2]


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    backbone = Backbone().train()
    backbone.norm.eval()
    return backbone


@pytest.fixture(scope='module')
def dataset():
    return LabeledTileDataset(dict(type='ImageFolder', root=str(DEMO / 'kather2016')), size=64)


def test_features_are_pooled_in_eval_mode_and_the_mode_is_restored(backbone, dataset):
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    features = extract_features(backbone, dataset, batch_size=17)
    assert features.shape == (51, 4) and features.dtype == torch.float32
    assert not features.requires_grad
    assert backbone.training and backbone.drop.training and not backbone.norm.training
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())

    backbone.eval()
    tile = dataset[20][0].float().unsqueeze(0) / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = backbone((tile - mean) / std)[-1].mean((2, 3))
    torch.testing.assert_close(features[20:21], expected, rtol=1e-4, atol=1e-5)


def test_tensors_and_batch_sizes_give_the_same_features(backbone, dataset):
    tiles = torch.stack([dataset[i][0] for i in range(6)])
    features = extract_features(backbone, tiles)
    torch.testing.assert_close(features, extract_features(backbone, tiles, batch_size=3))
    torch.testing.assert_close(features, extract_features(backbone, dataset, 4)[:6])
    lower = extract_features(backbone, tiles, amp='bf16')
    assert lower.dtype == torch.float32
    assert not torch.equal(lower, features)
    torch.testing.assert_close(lower, features, rtol=0.05, atol=0.05)


def test_mode_is_restored_after_an_error(backbone):
    with pytest.raises(RuntimeError):
        images = torch.zeros(2, 1, 64, 64, dtype=torch.uint8).expand(2, 5, 64, 64)
        extract_features(backbone, images)
    assert backbone.training and not backbone.norm.training
