"""Views of tiles: drawn first, rendered second, with their geometry known by construction.

A recipe draws the parameters of a batch of views, among them `view_to_tile`, the affine map
of each; a renderer turns tile and parameters into pixels; `match_cells` says which cells of
two views show the same tissue. This package uses torch, numpy, OpenCV, PIL and torchvision,
and of ours :mod:`openselfsup.values` only.
"""

from . import steps
from .draws import Draws
from .geometry import (
    cell_boxes,
    cell_centres,
    cell_polygons,
    compose,
    determinant,
    invert,
    is_axis_aligned,
    transform,
)
from .multicrop import dino_views, hed_jitter, tissue_views, unit_scale
from .overlap import Matching, match_cells
from .published import strong_view, vicregl_views, weak_view
from .recipe import ViewRecipe, unbind
from .render import TorchRenderer, missing_steps, render_opencv, render_pil
from .steps import *  # noqa: F403
from .torchvision_pipeline import TorchvisionPipeline
from .union import UnionView

__all__ = [
    'Draws', 'Matching', 'TorchRenderer', 'TorchvisionPipeline', 'UnionView', 'ViewRecipe',
    'cell_boxes', 'cell_centres', 'cell_polygons', 'compose', 'determinant', 'dino_views',
    'hed_jitter', 'invert', 'is_axis_aligned', 'match_cells', 'missing_steps',
    'render_opencv', 'render_pil', 'strong_view', 'tissue_views', 'transform', 'unbind',
    'unit_scale', 'vicregl_views', 'weak_view']
__all__ += steps.__all__
