"""The benchmark of saving measures both ways."""

import torch

from benchmarks.speed.saving import measure, size_of, state_of_a_run
from openselfsup.checkpoints import load


def test_both_ways_of_saving_are_measured(tmp_path):
    small = dict(type='MoCo', backbone=dict(type='ResNet', depth=18),
                 neck=dict(type='NonLinearNeck', in_channels=512, hid_channels=8,
                           out_channels=128))
    assert size_of(state_of_a_run(small, torch.device('cpu'))) > 160e6  # two encoders, two moments
    found = measure(dict(weight=torch.ones(9), meta={}), tmp_path, 1)
    assert [len(samples) for samples in found.values()] == [1, 1]
    assert load(tmp_path / 'latest.pth')['meta'] == {}
