"""Losses: pure functions on tensors, without registry, framework or distributed state."""

from .cluster_contrast import cluster_contrast, joint_assignment, negative_mutual_information
from .info_nce import info_nce
from .nt_xent import nt_xent, nt_xent_of_pairs
from .sampled_info_nce import sampled_info_nce
from .self_distillation import dino_loss, masked_patch_loss, soft_cross_entropy
from .spread import kernel_density, koleo
from .tokens import gram_anchoring, kernel_alignment, matched_patch_loss
from .vicreg import covariance_term, nearest_cells, variance_term, vicreg

__all__ = ['cluster_contrast', 'covariance_term', 'dino_loss', 'gram_anchoring', 'info_nce',
           'joint_assignment', 'kernel_alignment', 'kernel_density', 'koleo', 'masked_patch_loss',
           'matched_patch_loss', 'nearest_cells', 'negative_mutual_information', 'nt_xent',
           'nt_xent_of_pairs', 'sampled_info_nce', 'soft_cross_entropy', 'variance_term', 'vicreg']
