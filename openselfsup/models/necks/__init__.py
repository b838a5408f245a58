"""Necks: feature maps in, projections out."""

from .group import GroupNeck
from .matching import AttentionMatchingNeck, MatchingNeck
from .projection import DenseCLNeck, LinearNeck, NonLinearNeck

__all__ = ['AttentionMatchingNeck', 'DenseCLNeck', 'GroupNeck', 'LinearNeck', 'MatchingNeck',
           'NonLinearNeck']
