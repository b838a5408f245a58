"""Memories: what a method remembers between steps or finds in a batch."""

from .kmeans import Clusters, batch_kmeans
from .queue import Queue
from .simple import SimpleMemory

__all__ = ['Clusters', 'Queue', 'SimpleMemory', 'batch_kmeans']
