"""Losses: pure functions on tensors, without registry, framework or distributed state."""

from .cluster_contrast import cluster_contrast, joint_assignment, negative_mutual_information
from .info_nce import info_nce
from .nt_xent import nt_xent
from .sampled_info_nce import sampled_info_nce
from .vicreg import covariance_term, nearest_cells, variance_term, vicreg

__all__ = ['cluster_contrast', 'covariance_term', 'info_nce', 'joint_assignment', 'nearest_cells',
           'negative_mutual_information', 'nt_xent', 'sampled_info_nce', 'variance_term', 'vicreg']
