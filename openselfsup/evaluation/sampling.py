"""Which tiles are labelled, which validate: without replacement, stratified, by patient.

All functions are pure: labels and a seed go in, indices come out, sorted.
"""

from collections.abc import Sized

import numpy as np

#: Settings are chosen on so many tiles, twice the width of the features if that is more.
SEARCH_TILES = 3000


def labelled_fraction(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return the labelled tiles: ``fraction`` of each class, at least one tile of each.

    Args:
        labels: int64 array of shape (N,).
        fraction: share of the tiles, in (0, 1].
        seed: the same seed takes the same tiles; a larger fraction contains a smaller one.

    Returns:
        int64 array of the chosen indices, sorted, none twice.
    """
    chosen = []
    for label in np.unique(labels):
        own = _shuffled(np.flatnonzero(labels == label), seed, label)
        chosen.append(own[:max(1, round(fraction * len(own)))])
    return np.sort(np.concatenate(chosen))


def too_small_for(labels: np.ndarray, fraction: float) -> list[int]:
    """Return the classes of which ``fraction`` would be less than half a tile."""
    found, counts = np.unique(labels, return_counts=True)
    return [int(c) for c, n in zip(found, counts) if round(fraction * n) < 1]


def draw_shots(labels: np.ndarray, shots: int, seed: int) -> np.ndarray | None:
    """Return ``shots`` tiles of each class, sorted; None where a class has fewer.

    Each class then has ``shots`` positives and (classes - 1) · ``shots`` negatives, as published.
    More shots contain fewer ones of the same seed.

    Args:
        labels: int64 array of shape (N,).
        shots: how many of each class.
        seed: another seed draws an independent sample.
    """
    chosen = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        if len(own) < shots:
            return None
        order = np.random.default_rng([seed, int(label), 7]).permutation(len(own))
        chosen.append(own[order[:shots]])
    return np.sort(np.concatenate(chosen))


def hold_out(labels: np.ndarray, share: float, seed: int,
             groups: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Split tiles into those that stay and those held out.

    Without groups each class gives ``share`` of its tiles, at least one, and keeps at least
    one; a class of one tile keeps it. With groups whole patients are held out, chosen so that
    every class comes as close to its share as it can and keeps at least one tile; nothing is
    held out where every patient is all there is of a class.

    Args:
        labels: int64 array of shape (N,).
        share: what part is held out, in (0, 1).
        seed: draws the split.
        groups: patient of each tile, shape (N,), or None.

    Returns:
        Indices that stay and indices held out, both sorted.
    """
    out = (_whole_groups(labels, share, seed, groups) if groups is not None
           else _of_each_class(labels, share, seed))
    return np.flatnonzero(~out), np.flatnonzero(out)


def with_replacement(tiles: int, fraction: float, seed: int) -> np.ndarray:
    """Return the published sample: ``fraction * tiles`` draws with replacement, unstratified.

    Some tiles come several times, others never: at fraction 1 about 63 % of the tiles are
    seen. For ``paper-compat`` only.
    """
    return np.random.default_rng(seed).integers(0, tiles, max(1, int(fraction * tiles)))


def search_tiles(labels: Sized, width: int, seed: int) -> np.ndarray:
    """Return the tiles on which a setting is searched, sorted: all, or a random part of many.

    Args:
        labels: of N tiles; only their number counts.
        width: of the features; the part is larger, so that it spans them.
        seed: draws the part.
    """
    count = max(SEARCH_TILES, 2 * width)
    if len(labels) <= count:
        return np.arange(len(labels))
    return np.sort(np.random.default_rng(seed).permutation(len(labels))[:count])


def validation_split(labels: np.ndarray, share: float, seed: int,
                     patients: np.ndarray | None = None, copies: np.ndarray | None = None
                     ) -> tuple[np.ndarray, np.ndarray, str]:
    """Split labelled tiles into those that are fitted on and those that choose a setting.

    Whole patients choose where patients are known and that leaves every class something to
    fit on; otherwise single tiles do. A copy of a tile that is fitted on chooses nothing.

    Args:
        labels, share, seed: as in :func:`hold_out`.
        patients: patient of each tile, shape (N,), or None.
        copies: a number for each tile, the same for tiles of the same pixels, or None.

    Returns:
        Indices to fit on, indices that choose (none, where every class has a single tile), and
        what chooses: 'patients', 'tiles' or 'nothing'.
    """
    kept, held = hold_out(labels, share, seed, patients)
    how = 'tiles' if patients is None else 'patients'
    if patients is not None and not len(held):
        kept, held = hold_out(labels, share, seed)
        how = 'tiles'
    if copies is not None:
        held = held[~np.isin(copies[held], copies[kept])]
    return kept, held, how if len(held) else 'nothing'


def _of_each_class(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = _shuffled(np.flatnonzero(labels == label), seed, label)
        count = min(max(1, round(share * len(own))), len(own) - 1)
        out[own[:count]] = True
    return out


def _whole_groups(labels: np.ndarray, share: float, seed: int, groups: np.ndarray) -> np.ndarray:
    """Hold out a group whenever that brings the counts of the classes nearer to their share."""
    _, groups = np.unique(groups, return_inverse=True)
    classes, label = np.unique(labels, return_inverse=True)
    counts = np.zeros((int(groups.max()) + 1, len(classes)))
    np.add.at(counts, (groups, label), 1)
    total = counts.sum(0)
    held = np.zeros(len(classes))
    chosen = []
    order = _shuffled(np.unique(groups), seed, -1)
    for group in order:
        after = held + counts[group]
        nearer = np.abs(after - share * total).sum() < np.abs(held - share * total).sum()
        if nearer and (after < total).all():
            held = after
            chosen.append(group)
    if not chosen:  # each is larger than the share: the first that leaves every class something
        chosen = [group for group in order if (counts[group] < total).all()][:1]
    return np.isin(groups, chosen)


def _shuffled(indices: np.ndarray, seed: int, stream: int) -> np.ndarray:
    # Each class has a stream of its own: what one class draws does not depend on the others.
    rng = np.random.default_rng([seed, int(stream) + 1])
    return indices[rng.permutation(len(indices))]
