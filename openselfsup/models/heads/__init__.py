"""Heads: registered shells that hold a loss's settings, for methods whose loss has any."""

from .adversary import WeightAdversary
from .cluster import ClusterHead

__all__ = ['ClusterHead', 'WeightAdversary']
