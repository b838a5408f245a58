"""Epochs in which all classes are seen alike, however many tiles they have."""

import numpy as np


def uniform_indices(labels: np.ndarray, generator: np.random.RandomState) -> np.ndarray:
    """Return N tiles, about as many of each class, shuffled (DeepCluster, arXiv 1807.05520).

    Of each of K classes that have tiles, ⌊N/K⌋ + 1 are drawn, without replacement where it has
    more; all are shuffled and cut to N. The draws are those of OpenSelfSup.

    Args:
        labels: class of each of N tiles, int64 (N,).
        generator: numpy's legacy generator; the published code seeds it with the epoch.

    Returns:
        int64 array of shape (N,).
    """
    order = np.argsort(labels, kind='stable')
    members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    count = len(labels) // len(members) + 1
    drawn = [generator.choice(tiles, count, replace=len(tiles) <= count) for tiles in members]
    found = np.concatenate(drawn).astype(np.int64)
    generator.shuffle(found)
    return found[:len(labels)]
