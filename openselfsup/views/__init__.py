"""Views of tiles: drawn first, rendered second, with their geometry known by construction.

A recipe draws the parameters of a batch of views, among them `view_to_tile`, the affine map
of each; a renderer turns tile and parameters into pixels; `match_cells` says which cells of
two views show the same tissue. This package uses torch, numpy, OpenCV, PIL and torchvision
and nothing else of ours.
"""

from . import geometry, render_cpu, render_pil, render_torch
from .distortion_steps import ElasticDistortion, GridDistortion
from .geometric_steps import (
                              HorizontalFlip,
                              QuarterTurn,
                              RandomResizedCrop,
                              ShiftScaleRotate,
                              Transpose,
                              VerticalFlip,
)
from .geometry import cell_boxes, cell_polygons, compose, invert, is_axis_aligned
from .overlap import Matching, match_cells
from .photometric_steps import ColorJitter, GaussianBlur, Grayscale, HEDJitter, Solarize
from .recipe import STEPS, ViewRecipe, build_step, unbind
from .steps import GeometricStep, ImageStep, Step
from .torchvision_pipeline import TorchvisionPipeline

__all__ = [
    'STEPS', 'ColorJitter', 'ElasticDistortion', 'GaussianBlur', 'GeometricStep', 'Grayscale',
    'GridDistortion', 'HEDJitter', 'HorizontalFlip', 'ImageStep', 'Matching', 'QuarterTurn',
    'RandomResizedCrop', 'ShiftScaleRotate', 'Solarize', 'Step', 'TorchvisionPipeline',
    'Transpose', 'VerticalFlip', 'ViewRecipe', 'build_step', 'cell_boxes', 'cell_polygons',
    'compose', 'geometry', 'invert', 'is_axis_aligned', 'match_cells', 'render_cpu',
    'render_pil', 'render_torch', 'unbind']
