"""Memories: what a method remembers between steps or finds in a batch."""

from .kmeans import Clusters, batch_kmeans
from .queue import Queue

__all__ = ['Clusters', 'Queue', 'batch_kmeans']
