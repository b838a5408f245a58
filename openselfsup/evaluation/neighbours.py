"""Finding nearest neighbours among many tiles: faiss where it helps, torch everywhere."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError

_ROWS = 4096  # queries compared at a time by the torch path


def nearest_tiles(bank: Tensor, queries: Tensor, k: int,
                  backend: str = 'auto') -> tuple[Tensor, Tensor]:
    """Return the k tiles of the bank with the highest cosine similarity to each query.

    Args:
        bank: features of shape (N, D).
        queries: features of shape (M, D).
        k: number of neighbours, at most N.
        backend: 'faiss' (CPU, exact inner products), 'torch' (any device), or 'auto': faiss
            where it is installed and the features are on the CPU.

    Returns:
        Similarities, float32 (M, k), falling, and indices, int64 (M, k).

    Raises:
        UserError: k is not in 1..N, or features are not finite.
    """
    if not 1 <= k <= len(bank):
        raise UserError(f'{k} neighbours are asked for', where='k',
                        expected=f'1 to {len(bank)}, the number of training tiles')
    refuse_not_finite(bank, queries)
    bank, queries = F.normalize(bank.float(), dim=1), F.normalize(queries.float(), dim=1)
    faiss = _faiss() if backend != 'torch' and bank.device.type == 'cpu' else None
    if faiss is None:
        if backend == 'faiss':
            raise UserError('faiss is not installed, or the features are on a GPU',
                            expected='pip install faiss-cpu, or the torch backend')
        parts = [(rows @ bank.T).topk(k) for rows in queries.split(_ROWS)]
        return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(bank.contiguous().numpy())
    similarity, found = index.search(queries.contiguous().numpy(), k)
    return torch.from_numpy(similarity), torch.from_numpy(found)


def refuse_not_finite(*features: Tensor, of: str = '') -> None:
    """Refuse features that hold NaN or infinity: nothing that is computed from them means anything.

    Args:
        features: tensors of shape (N, D).
        of: whose features they are, for the sentence.

    Raises:
        UserError: some are not finite; it says of how many tiles.
    """
    for part in features:
        wrong = int((~part.isfinite().all(1)).sum())
        if wrong:
            raise UserError(f'the features{f" of {of}" if of else ""} are not finite for {wrong} '
                            f'of {len(part)} tiles', expected='a backbone without NaN or inf, in '
                            'a precision that holds its values (fp16 ends at 65,504)')


def vote_shares(similarity: Tensor, neighbours: Tensor, labels: Tensor, classes: int,
                temperature: float) -> Tensor:
    """Return the share of each class in the votes of the neighbours, float64 (M, C).

    A neighbour of similarity s has weight exp(s / temperature) (Wu et al. 2018,
    arXiv:1805.01978, section 3.4).

    Args:
        similarity, neighbours: of :func:`nearest_tiles`, (M, k).
        labels: int64 tensor of shape (N,), classes of the bank.
        classes: C.
        temperature: above 0.
    """
    weight = (similarity.double() / temperature).softmax(1)
    votes = weight.new_zeros(len(weight), classes)
    return votes.scatter_add_(1, labels.to(neighbours.device)[neighbours], weight)


def _faiss() -> object | None:
    try:
        import faiss
    except ImportError:
        return None
    return faiss
