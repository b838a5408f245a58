import math

import pytest
import torch

from openselfsup.evaluation.label_free import alpha_req, rankme


@pytest.mark.parametrize('alpha', [0.5, 1.0, 2.0])
def test_alpha_of_a_known_power_law(alpha):
    basis = torch.linalg.qr(torch.randn(500, 33))[0]
    basis = torch.linalg.qr(basis - basis.mean(0))[0]  # centred columns stay orthonormal
    spectrum = torch.arange(1, 33) ** (-alpha / 2)  # of features; the covariance's is its square
    features = basis[:, :32] * spectrum + torch.randn(32)  # the mean does not matter
    assert alpha_req(features) == pytest.approx(alpha, rel=2e-3)
    assert alpha_req(5 * features) == pytest.approx(alpha, rel=2e-3)


def test_alpha_of_features_that_are_nearly_all_alike_is_none():
    assert math.isnan(alpha_req(torch.ones(20, 8)))
    assert math.isnan(alpha_req(torch.randn(20, 2) @ torch.randn(2, 8)))
    assert math.isnan(alpha_req(torch.zeros(20, 8)))


def test_rankme_counts_dimensions_in_use():
    basis = torch.linalg.qr(torch.randn(64, 32))[0]
    assert rankme(basis[:, :20]) == pytest.approx(20, rel=1e-4)
