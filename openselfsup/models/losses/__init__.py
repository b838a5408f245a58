"""Losses: pure functions on tensors, without registry, framework or distributed state."""

from .info_nce import info_nce

__all__ = ['info_nce']
