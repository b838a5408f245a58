"""Algorithms: what is matched with what. One file each, to be read beside its paper."""

from .ca2cl import CA2CL
from .densecl import DenseCL
from .moco import MoCo
from .plm import PLM
from .simclr import SimCLR

__all__ = ['CA2CL', 'DenseCL', 'MoCo', 'PLM', 'SimCLR']
