"""Terms that keep the class tokens of different tiles apart."""

import torch
import torch.nn.functional as F
from torch import Tensor


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def _similarities(x: Tensor, everyone: Tensor, first: int) -> Tensor:
    """Return x·yᵀ, (B, n), -inf where a row would meet itself."""
    rows = torch.arange(len(x), device=x.device)
    itself = rows[:, None] + first == torch.arange(len(everyone), device=x.device)
    return (x @ everyone.T).masked_fill(itself, -torch.inf)


def koleo(x: Tensor, everyone: Tensor | None = None, first: int = 0, neighbours: int = 1,
          min_distance: float = 1e-3) -> Tensor:
    """Return mean_i -log of the distance to the nearest others (Sablayrolles et al. 2019,
    arXiv 1806.03198; DINOv2, arXiv 2304.07193, sec. 4).

    Published, the distance of two tiles that are equal is 10⁻⁸ √D: their gradient is then a
    million times that of others, and blank background tiles are equal. Here tiles nearer than
    ``min_distance`` have no gradient.

    Args:
        x: features of this rank's B tiles, (B, D); they are normalised here.
        everyone: features of all ranks, (n, D), gathered with gradient; ``x`` if None.
        first: the row of ``everyone`` at which ``x`` begins.
        neighbours: how many nearest ones count, each alike (DINOv3).
        min_distance: smaller distances are taken for this one, and have no gradient.

    Returns:
        Scalar tensor; 0 for a single tile.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = _unit(x)
        everyone = x if everyone is None else _unit(everyone)
        neighbours = min(neighbours, len(everyone) - 1)
        if neighbours < 1:
            return x.sum() * 0
        with torch.no_grad():
            nearest = _similarities(x, everyone, first).topk(neighbours, 1).indices
        distance = F.pairwise_distance(x[:, None], everyone[nearest], eps=1e-8)
        return -(distance.clamp_min(min_distance) + 1e-8).log().mean()


def kernel_density(x: Tensor, everyone: Tensor | None = None, first: int = 0,
                   concentration: float = 5.) -> Tensor:
    """Return the mean log density of tiles among the others, by a von Mises-Fisher kernel.

    mean_i [logsumexp_{j≠i} κ z_i·z_j - ln(n - 1)], minimised: what spreads the tiles (Wang &
    Isola 2020, arXiv 2005.10242, sec. 4.2, uniformity; Virchow2, arXiv 2408.00738, in place of
    KoLeo). Tiles that are equal push no harder than others.

    Args:
        x: features of this rank's B tiles, (B, D); they are normalised here.
        everyone: features of all ranks, (n, D), gathered with gradient; ``x`` if None.
        first: the row of ``everyone`` at which ``x`` begins.
        concentration: κ of the kernel.

    Returns:
        Scalar tensor from -κ to κ; 0 for a single tile.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = _unit(x)
        everyone = x if everyone is None else _unit(everyone)
        others = len(everyone) - 1
        if others < 1:
            return x.sum() * 0
        similar = _similarities(x, everyone, first) * concentration
        return (similar.logsumexp(1) - torch.log(similar.new_tensor(others))).mean()
