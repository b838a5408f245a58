"""Steps that hide a part of the view."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...values import Fraction
from ..draws import Draws
from .base import ImageStep, Scope, Size, check_limit, registered
from .pixels import column, on_floats

__all__ = ['Cutout']


@registered
@dataclass(kw_only=True)
class Cutout(ImageStep):
    """Blacken a rectangle (DeVries & Taylor 2017); what lies beyond the edge is lost.

    Args:
        size: its sides as shares of the view's. Its middle is drawn evenly from the view.
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.5
    size: Fraction = 0.375
    after_resize: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        check_limit(self, 'size', 1)

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        extent = torch.tensor(size, dtype=torch.float32)
        half = self.size * extent / 2
        middle = generator.rand(2) * extent
        edges = torch.stack([middle - half, middle + half], dim=1).round().long()  # B 2 (y, x)
        return {'edges': torch.minimum(edges.clamp(min=0), torch.tensor(size))}

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        (top, left), (bottom, right) = np.asarray(drawn['edges']).tolist()
        image = image.copy()
        image[top:bottom, left:right] = 0
        return image

    @on_floats
    def render_pil(self, view: np.ndarray, drawn: Scope) -> np.ndarray:
        return self.render_opencv(view, drawn, view.shape[:2])

    def prepare_torch(self, drawn: Scope) -> Tensor:
        return drawn.where_applied(drawn['edges'].flatten(1), 0)

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        top, left, bottom, right = (column(numbers, i) for i in range(4))
        y, x = (torch.arange(n, device=view.device) for n in view.shape[2:])
        hole = (y[:, None] >= top) & (y[:, None] < bottom) & (x >= left) & (x < right)
        return torch.where(hole, 0., view)
