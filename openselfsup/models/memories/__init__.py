"""Memories: what a method remembers between steps or finds in a batch."""

from .cell_kmeans import CellClusters, cell_kmeans
from .kmeans import Clusters, batch_kmeans
from .odc import ODCMemory
from .queue import Queue
from .simple import SimpleMemory

__all__ = ['CellClusters', 'Clusters', 'ODCMemory', 'Queue', 'SimpleMemory', 'batch_kmeans',
           'cell_kmeans']
