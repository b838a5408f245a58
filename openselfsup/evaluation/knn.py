"""k nearest neighbours on frozen features: the cheapest look at what a backbone has learnt.

Nothing is trained. Similarities and votes are summed in float64, so that a result depends
neither on the batch size nor on the order of the sums.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .neighbours import refuse_not_finite

_ROWS = 1024  # queries compared at a time: bounds the memory of the similarity matrix


def knn_predict(train_features: Tensor, train_labels: Tensor, test_features: Tensor, k: int,
                temperature: float | None = None) -> Tensor:
    """Classify by the k training tiles of highest cosine similarity.

    Args:
        train_features: tensor of shape (N, D).
        train_labels: int64 tensor of shape (N,), any whole numbers.
        test_features: tensor of shape (M, D).
        k: number of neighbours, at most N.
        temperature: None counts votes, and a tie goes to the class whose neighbours are
            more similar in sum, then to the smaller label. Otherwise a neighbour of
            similarity s votes with weight exp(s / temperature) (Wu et al. 2018,
            arXiv:1805.01978, section 3.4).

    Returns:
        int64 tensor of shape (M,), the predicted labels.

    Raises:
        UserError: k is not in 1..N, or features are not finite.
    """
    bank, queries = _normalised(train_features), _normalised(test_features)
    _check_k(k, len(bank))
    classes, label = train_labels.to(bank.device).unique(return_inverse=True)
    winners = label.new_empty(len(queries))
    for rows in _row_blocks(len(queries)):
        winners[rows] = _vote(*(queries[rows] @ bank.T).topk(k), label, len(classes), temperature)
    return classes[winners]


def leave_one_out_accuracy(features: Tensor, labels: Tensor, k: int = 3,
                           temperature: float | None = None) -> float:
    """Return how many tiles their k nearest other tiles classify correctly.

    Args:
        features: tensor of shape (N, D).
        labels: int64 tensor of shape (N,).
        k: number of neighbours, at most N - 1.
        temperature: as in :func:`knn_predict`.

    Returns:
        The share of correct tiles in [0, 1].
    """
    bank = _normalised(features)
    _check_k(k, len(bank) - 1)
    classes, label = labels.to(bank.device).unique(return_inverse=True)
    correct = 0
    for rows in _row_blocks(len(bank)):
        similarity = bank[rows] @ bank.T
        similarity.diagonal(rows.start).fill_(-torch.inf)  # a tile is no neighbour of itself
        winners = _vote(*similarity.topk(k), label, len(classes), temperature)
        correct += int((winners == label[rows]).sum())
    return correct / len(bank)


def _normalised(features: Tensor) -> Tensor:
    refuse_not_finite(features)
    return F.normalize(features.detach().double(), dim=1)


def _check_k(k: int, largest: int) -> None:
    if not 1 <= k <= largest:
        raise UserError(f'{k} neighbours are asked for', where='k',
                        expected=f'1 to {largest}, the number of other tiles')


def _row_blocks(count: int) -> list[slice]:
    return [slice(start, min(start + _ROWS, count)) for start in range(0, count, _ROWS)]


def _vote(similarity: Tensor, neighbours: Tensor, label: Tensor, n_classes: int,
          temperature: float | None) -> Tensor:
    """Return the winning class (M,) from the similarities and indices of neighbours (M, k)."""
    if temperature is None:
        # All similarities of a query together are less than one vote: they only break ties.
        weight = 1 + similarity / (4 * similarity.shape[1])
    else:  # exp((s - largest s) / T): the same winner, no overflow
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
    votes = similarity.new_zeros(len(similarity), n_classes)
    votes.scatter_add_(1, label[neighbours], weight)
    return votes.argmax(1)
