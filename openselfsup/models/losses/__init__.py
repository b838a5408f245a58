"""Losses: pure functions on tensors, without registry, framework or distributed state."""

from .info_nce import info_nce
from .nt_xent import nt_xent

__all__ = ['info_nce', 'nt_xent']
