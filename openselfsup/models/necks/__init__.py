"""Necks: feature maps in, projections out."""

from .matching import AttentionMatchingNeck, MatchingNeck
from .projection import DenseCLNeck, LinearNeck, NonLinearNeck

__all__ = ['AttentionMatchingNeck', 'DenseCLNeck', 'LinearNeck', 'MatchingNeck', 'NonLinearNeck']
