"""Renderers: tile and drawn parameters to pixels. They walk a recipe; its steps do the rest."""

from .opencv import render as render_opencv
from .pil import render as render_pil
from .torch import TorchRenderer, missing_steps

__all__ = ['TorchRenderer', 'missing_steps', 'render_opencv', 'render_pil']
