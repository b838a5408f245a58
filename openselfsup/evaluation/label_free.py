"""Scores of pooled features that need no labels: how many dimensions they use."""

import torch
from torch import Tensor

from ..models.health import effective_rank

FEWEST = 3  # eigenvalues, for a line through them


def rankme(features: Tensor) -> float:
    """Return RankMe, the effective rank of features (arXiv 2210.02885, eq. 1).

    It rises with what a linear probe reaches over runs of one method; it ranks no runs of
    different methods. Up to min(N, D); the paper takes 25,600 tiles, fewer bound it from above.

    Args:
        features: pooled features (N, D), not centred.
    """
    return float(effective_rank(features))


def alpha_req(features: Tensor) -> float:
    """Return α-ReQ: how fast the eigenvalues of the features' covariance decay.

    α of the power law λ_i ~ i^-α (Agrawal et al., NeurIPS 2022), by least squares of log λ_i on
    log i over all eigenvalues above rounding. Each weighs 1 / i, so that all octaves of i weigh
    the same: the small eigenvalues are many, and noise. Good features were found near 1; below,
    noise fills dimensions, above, few of them hold everything.

    Args:
        features: pooled features (N, D).

    Returns:
        α, or nan for fewer than three eigenvalues: features that are (nearly) all alike.
    """
    centred = features.double() - features.double().mean(0)
    spectrum = torch.linalg.svdvals(centred).square()
    # Features are float32, whatever they are computed in here.
    floor = torch.finfo(torch.float32).eps * max(features.shape)
    spectrum = spectrum[(spectrum > spectrum[:1].clamp_min(1e-30) * floor ** 2)]
    if len(spectrum) < FEWEST:
        return float('nan')
    rank = torch.arange(1, len(spectrum) + 1, dtype=torch.float64, device=spectrum.device)
    weight = 1 / rank / (1 / rank).sum()
    x, y = rank.log(), spectrum.log()
    x, y = x - (weight * x).sum(), y - (weight * y).sum()
    return float(-(weight * x * y).sum() / (weight * x * x).sum())
