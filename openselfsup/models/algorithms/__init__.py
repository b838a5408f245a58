"""Algorithms: what is matched with what. One file each, to be read beside its paper."""

from .densecl import DenseCL
from .moco import MoCo
from .plm import PLM

__all__ = ['DenseCL', 'MoCo', 'PLM']
