"""k nearest neighbours on frozen features: the cheapest look at what a backbone has learnt.

Nothing is trained: the most similar tiles (cosine) vote for their classes (Wu et al. 2018,
arXiv:1805.01978, section 3.4). The protocol knn-v1 lets training tiles vote for test tiles; the
leave-one-out accuracy lets all other tiles vote for each.
"""

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..training.features import refuse_not_finite
from .fitted import Fitted

_ROWS = 1024  # queries compared at a time by the torch path: bounds its memory


def fit_knn(features: Tensor, labels: Tensor, classes: int, k: int = 20,
            temperature: float = 0.07, standardise: bool = False) -> Fitted:
    """knn-v1: votes of the k most similar training tiles, weighted by exp(s / T).

    k is at most the mean number of training tiles of a class. Colour baselines are
    standardised first, because the cosine between raw colours is always near 1.

    Args:
        features: float32 tensor of shape (N, D).
        labels: int64 tensor of shape (N,).
        classes: C.
        k: number of neighbours.
        temperature: T.
        standardise: subtract the mean and divide by the deviation of each dimension.
    """
    k = max(1, min(k, len(labels) // classes))
    mean = features.mean(0) if standardise else features.new_zeros(features.shape[1])
    scale = (features.std(0, correction=min(1, len(features) - 1)).clamp(min=1e-6) if standardise
             else features.new_ones(features.shape[1]))
    bank = (features - mean) / scale

    def probabilities(queries: Tensor) -> Tensor:
        similarity, found = nearest_tiles(bank, (queries - mean) / scale, k)
        return vote_shares(similarity, found, labels, classes, temperature)

    return Fitted(probabilities, dict(k=k, temperature=temperature, similarity='cosine',
                                      standardised=standardise))


def leave_one_out_accuracy(features: Tensor, labels: Tensor, k: int = 3,
                           temperature: float | None = None, groups: Tensor | None = None
                           ) -> float:
    """Return how many tiles their k nearest other tiles classify correctly.

    Similarities are float64, so that the result does not depend on the order of sums.

    Args:
        features: tensor of shape (N, D).
        labels: int64 tensor of shape (N,), any whole numbers; the smaller label wins between
            classes of exactly equal votes.
        k: number of neighbours, at most N - 1, or as :func:`nearest_tiles` says of groups.
        temperature: as in :func:`vote_shares`.
        groups: as in :func:`nearest_tiles`.

    Returns:
        The share of correct tiles in [0, 1].

    Raises:
        UserError: k is too many, or features are not finite.
    """
    classes, label = labels.to(features.device).unique(return_inverse=True)
    near = nearest_tiles(features.detach().double(), None, k, groups=groups)
    winners = vote_shares(*near, label, len(classes), temperature).argmax(1)
    return float((winners == label).double().mean())


def nearest_tiles(bank: Tensor, queries: Tensor | None, k: int,
                  backend: str = 'auto', groups: Tensor | None = None
                  ) -> tuple[Tensor, Tensor]:
    """Return the k tiles of the bank with the highest cosine similarity to each query.

    Args:
        bank: features of shape (N, D).
        queries: features of shape (M, D), or None for those of the bank itself: then no tile is
            a neighbour of itself.
        k: number of neighbours, at most N; without queries N - 1, with groups as many tiles as lie
            outside of the largest.
        backend: 'faiss' (float32 on the CPU, exact inner products), 'torch' (all that faiss does
            not take), or 'auto': faiss where it is installed and takes the features.
        groups: patient of each tile as a whole number, (N,), without queries: tiles of one patient
            are no neighbours of each other.

    Returns:
        Similarities (M, k), falling, float64 where the bank is and float32 otherwise, and
        indices, int64 (M, k).

    Raises:
        UserError: k is out of range, or features are not finite.
    """
    others, precision = len(bank), torch.promote_types(bank.dtype, torch.float32)
    if queries is None:
        others -= 1 if groups is None else int(groups.unique(return_counts=True)[1].max())
    if not 1 <= k <= others:
        raise UserError(f'{k} neighbours are asked for', where='k',
                        expected=f'1 to {others}, the number of '
                                 f"{'other' if queries is None else 'training'} tiles")
    refuse_not_finite(bank, *(() if queries is None else (queries,)))
    bank = F.normalize(bank.to(precision), dim=1)
    if queries is not None:
        queries = F.normalize(queries.to(precision), dim=1)
        faiss = _faiss() if backend != 'torch' and bank.device.type == 'cpu' else None
        if faiss is not None and precision == torch.float32:
            return _by_faiss(faiss, bank, queries, k)
    if backend == 'faiss':
        raise UserError('faiss is not installed, or cannot compare these features',
                        expected='pip install faiss-cpu, or the torch backend')
    return _by_torch(bank, queries, k, groups)


def vote_shares(similarity: Tensor, neighbours: Tensor, labels: Tensor, classes: int,
                temperature: float | None) -> Tensor:
    """Return the share of each class in the votes of the neighbours, float64 (M, C).

    Args:
        similarity, neighbours: of :func:`nearest_tiles`, (M, k).
        labels: int64 tensor of shape (N,), classes of the bank.
        classes: C.
        temperature: T, above 0: a neighbour of similarity s has weight exp(s / T). None counts
            votes, and a tie goes to the class whose neighbours are more similar in sum.
    """
    similarity = similarity.double()
    if temperature is None:
        # All similarities of a query together are less than one vote: they only break ties.
        weight = 1 + similarity / (4 * similarity.shape[1])
        weight = weight / weight.sum(1, keepdim=True)
    else:
        weight = (similarity / temperature).softmax(1)
    votes = weight.new_zeros(len(weight), classes)
    return votes.scatter_add_(1, labels.to(neighbours.device)[neighbours], weight)


def _by_torch(bank: Tensor, queries: Tensor | None, k: int, groups: Tensor | None
              ) -> tuple[Tensor, Tensor]:
    parts = []
    for start in range(0, len(bank if queries is None else queries), _ROWS):
        rows = (bank if queries is None else queries)[start:start + _ROWS]
        similarity = rows @ bank.T
        if groups is not None:
            mine = groups[start:start + _ROWS, None] == groups
            similarity.masked_fill_(mine.to(similarity.device), -torch.inf)
        elif queries is None:  # a tile is no neighbour of itself
            similarity.diagonal(start).fill_(-torch.inf)
        parts.append(similarity.topk(k))
    if not parts:
        return bank.new_zeros(0, k), torch.zeros(0, k, dtype=torch.int64, device=bank.device)
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


def _by_faiss(faiss: ModuleType, bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(bank.contiguous().numpy())
    similarity, found = index.search(queries.contiguous().numpy(), k)
    return torch.from_numpy(similarity), torch.from_numpy(found)


def _faiss() -> ModuleType | None:
    try:
        import faiss
    except ImportError:
        return None
    return faiss
