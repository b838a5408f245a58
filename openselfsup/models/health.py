"""Is training alive? Monitors of features and contrasts; none of them needs a gradient."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import distributed

# What the drift of a queue is taken from: in smaller batches it would be noise.
FEWEST_ROWS, MOST_ROWS, MOST_BATCHES = 16, 128, 64


@torch.no_grad()
def feature_std(features: Tensor) -> Tensor:
    """Return how widely L2-normalised features spread, a scalar tensor.

    The standard deviation of each dimension over the batch, averaged over dimensions, times √D:
    1 for directions that fill the sphere evenly, 0 for collapse (SimSiam, arXiv 2011.10566,
    sec. 4.1), also without rows.

    Args:
        features: tensor of shape (B, D); it is normalised here.
    """
    unit = F.normalize(features.float(), dim=1)
    if not len(unit):
        return unit.new_zeros(())
    return unit.std(0, correction=0).mean() * features.shape[1] ** 0.5


@torch.no_grad()
def effective_rank(features: Tensor) -> Tensor:
    """Return the exponential of the entropy of the singular values, a scalar tensor.

    RankMe (arXiv 2210.02885, eq. 1): min(B, D) for singular values that are all equal, 1 for
    collapse and without rows. The decomposition synchronises a GPU with the host: ask at logging
    steps only.

    Args:
        features: tensor of shape (B, D).
    """
    with torch.autocast(features.device.type, enabled=False):
        singular = torch.linalg.svdvals(features.float())
        share = singular / singular.sum().clamp_min(torch.finfo(singular.dtype).tiny)
        return torch.exp(torch.special.entr(share).sum())


@torch.no_grad()
def dead_dimensions(features: Tensor) -> Tensor:
    """Return the share of dimensions that are nearly constant over the batch, a scalar tensor.

    Dead is a dimension of L2-normalised features whose standard deviation is below a tenth of
    1/√D, what it has where directions fill the sphere evenly. Dimensions that live but say the
    same as others are seen by :func:`effective_rank`.

    Args:
        features: tensor of shape (B, D); it is normalised here.
    """
    unit = F.normalize(features.float(), dim=1)
    if not len(unit):
        return unit.new_ones(())
    return (unit.std(0, correction=0) * features.shape[1] ** 0.5 < 0.1).float().mean()


@torch.no_grad()
def key_drift(keys: Tensor, batch: int, temperature: float) -> Tensor | None:
    """Return by how much age makes the negatives of a queue easier, a scalar tensor in [0, 1].

    Queries are always new. Where an encoder moves fast, old keys lie elsewhere than new ones and
    are told from the positive by age, whatever they show. For the newest keys k_i as queries,
    with L_i(X) = log mean exp(k_i·x/T) over a batch X of keys of other tiles, it is

        1 - exp(mean L_i(older batches) - mean L_i(own batch)),

    the share of their weight in the loss's denominator that negatives have lost with age: 0 for
    an encoder that stands still, 0.5 where the queue repels half as much as as many fresh keys
    would. Batches have equal sizes, so that the means are biased alike. What age changes without
    easing the contrast, as all healthy training does, does not count: whether age can be
    told at all (by a linear regression or discriminant) is soon a yes in every run.

    Args:
        keys: L2-normalised tensor of shape (N, D), the oldest first; at most ``MOST_ROWS`` of a
            batch and ``MOST_BATCHES`` batches, evenly spaced, are looked at.
        batch: keys of a step.
        temperature: T of the loss.

    Returns:
        None for less than two batches, or batches below ``FEWEST_ROWS``.
    """
    count = len(keys) // batch if batch >= FEWEST_ROWS else 0
    if count < 2:
        return None
    batches = keys[-count * batch:].unflatten(0, (count, batch))[:, :MOST_ROWS]
    with torch.autocast(keys.device.type, enabled=False):
        new = batches[-1].float() / temperature
        old = batches[:-1][::-(-(count - 1) // MOST_BATCHES)].float()
        own = (new @ batches[-1].float().T).fill_diagonal_(-torch.inf)  # not with itself
        fresh = own.logsumexp(1).mean() - math.log(len(new) - 1)
        aged = (old @ new.T).logsumexp(1).mean() - math.log(len(new))
        return (1 - (aged - fresh).exp()).clamp(0, 1)


@torch.no_grad()
def contrastive_accuracy(query: Tensor, positive: Tensor, negatives: Tensor,
                         weights: Tensor | None = None, at_most: int | None = None) -> Tensor:
    """Return the fraction of queries closer to their positive than to every negative.

    Args:
        query: L2-normalised tensor of shape (N, D).
        positive: L2-normalised tensor of shape (N, D).
        negatives: L2-normalised tensor of shape (K, D).
        weights: tensor of shape (N,); rows of weight 0 do not count.
        at_most: look at this many rows only, where there are more: spread evenly, and over the
            cells where rows are cells of tiles.

    Returns:
        Scalar tensor, 0 if no row counts or there is none.
    """
    some = (slice(None) if at_most is None or len(query) <= at_most
            else _spread(len(query), at_most, query.device))
    with torch.autocast(query.device.type, enabled=False):
        query, positive = query[some].float(), positive[some].float()
        hardest = (query @ negatives.float().T).amax(1)
        won = ((query * positive).sum(1) > hardest).float()
    if weights is None:
        return won.sum() / max(len(won), 1)
    counts = (weights[some] > 0).float()
    return (won * counts).sum() / counts.sum().clamp_min(1)


def _spread(count: int, some: int, device: torch.device) -> Tensor:
    """Return so many of the numbers below ``count``, spread evenly."""
    # Every nth row of B x 7 x 7 cells may be the same cell of each tile: a step that has no
    # divisor in common with their number comes to all of them.
    step = next(s for s in range(round(0.618 * count), count + 2) if math.gcd(s, count) == 1)
    return torch.arange(some, device=device) * step % count


@torch.no_grad()
def mean_cosine(features: Tensor) -> Tensor:
    """Return the mean cosine of different rows of (B, D), a scalar tensor; 0 for a single row."""
    unit = F.normalize(features.float(), dim=1)
    rows = len(unit)
    return (unit.sum(0).square().sum() - unit.square().sum()) / max(rows * (rows - 1), 1)


@torch.no_grad()
def target_entropies(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return how undecided a teacher is, and how unevenly it uses its prototypes.

    Args:
        targets: its probabilities of K prototypes, (B, K).

    Returns:
        The mean entropy of a row, and the divergence of the mean row from uniform, ln K minus its
        entropy, both as shares of ln K. An entropy of 1 is a teacher that says the same of
        everything: the loss stays at ln K. A divergence of 1 is one prototype for all tiles;
        B rows cannot push it below 1 - ln B / ln K where each is decided.
    """
    most = math.log(targets.shape[1])
    rows = targets.float()
    entropy = torch.special.entr(rows).sum(1).mean() / most
    return entropy, 1 - torch.special.entr(rows.mean(0)).sum() / most


@torch.no_grad()
def label_agreement(first: Tensor, second: Tensor, clusters: int) -> Tensor:
    """Return how far two clusterings of the same rows agree, whatever their numbering.

    Their mutual information divided by the mean of their entropies: 1 for the same clusters, 0
    for independent ones (or a single cluster, or no rows). On several ranks that of all rows
    together.

    Args:
        first: int64 tensor of shape (B,) with values in [0, clusters).
        second: the same for the other clustering.
        clusters: number K of clusters.
    """
    numbers = torch.arange(clusters, device=first.device)
    with torch.autocast(first.device.type, enabled=False):  # bfloat16 counts to 256
        table = (first[:, None] == numbers).float().T @ (second[:, None] == numbers).float()
    table = distributed.all_reduce_sum(table)
    table = table / table.sum().clamp_min(1)
    entropies = torch.special.entr(table.sum(0)).sum(), torch.special.entr(table.sum(1)).sum()
    shared = sum(entropies) - torch.special.entr(table).sum()
    return 2 * shared / sum(entropies).clamp_min(torch.finfo(shared.dtype).tiny)
