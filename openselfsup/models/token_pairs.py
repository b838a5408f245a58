"""Tokens of images, and which cells of a student's crop see the tissue of a teacher's crop."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..views import match_cells
from .method import Geometry
from .parts import cells


class Seen(NamedTuple):
    """What a backbone makes of images.

    Attributes:
        cls: one vector of each image, (B, D): the class token, or the mean of the cells.
        patches: patch tokens, or the cells of the last feature map, (B, N, D), row by row.
        grid: (rows, columns) of the patches.
    """

    cls: Tensor
    patches: Tensor
    grid: tuple[int, int]


def takes_masks(backbone: nn.Module) -> bool:
    """Return whether a backbone has a token that stands for masked patches."""
    return getattr(backbone, 'mask_token', None) is not None


def tokens_of(backbone: nn.Module, images: Tensor, mask: Tensor | None = None) -> Seen:
    """Return the tokens of images (B, 3, H, W), of any backbone.

    Args:
        backbone: a ViT with the method ``tokens(images, mask)``, or any that returns maps.
        images: normalised.
        mask: patches that a ViT is not to see, bool (B, N).
    """
    if takes_masks(backbone):
        found = backbone.tokens(images, mask)  # type: ignore[operator]  # a method of ViTs
        cls = found.patches.mean(1) if found.cls is None else found.cls
        return Seen(cls, found.patches, tuple(found.grid))
    grid = backbone(images)[-1]
    return Seen(grid.mean((2, 3)), cells(grid), tuple(grid.shape[-2:]))


class TokenPairs(NamedTuple):
    """The cells of L student crops against the teacher's tokens of each of G global crops.

    Attributes:
        student: (G, B, L, N, D).
        teacher: (G, B, M, D).
        weight: share of each student cell that the teacher's crop covers, (G, B, L, N).
        match: M_ij, (G, B, L, N, M); rows sum to 1, or to 0 without coverage.
        visible: student cells that are not masked, bool (G, B, L, N); None if all are visible.
    """

    student: Tensor
    teacher: Tensor
    weight: Tensor
    match: Tensor
    visible: Tensor | None

    def seen_by_teacher(self) -> Tensor:
        """Return Σ_j M_ij z_j for every student cell, (G, B, L, N, D)."""
        return _mixed(self.match, self.teacher)


def _mixed(match: Tensor, teacher: Tensor) -> Tensor:
    """Mix teacher tokens (G, B, M, D) for rows (G, B, L, n, M), in float32 at least."""
    with torch.autocast(match.device.type, enabled=False):
        teacher = teacher.to(torch.promote_types(teacher.dtype, match.dtype))
        mixed = match.flatten(2, 3).to(teacher.dtype) @ teacher
        return mixed.unflatten(2, match.shape[2:4])


def mixed_rows(pairs: TokenPairs, rows: Tensor) -> Tensor:
    """Return Σ_j M_ij z_j of some student cells.

    Args:
        pairs: of crops.
        rows: numbers of cells, int64 (G, B, L, n).

    Returns:
        Tensor of shape (G, B, L, n, D).
    """
    match = pairs.match.gather(3, rows[..., None].expand(*rows.shape, pairs.match.shape[-1]))
    return _mixed(match, pairs.teacher)


def pair_globals(student: Seen, teacher: Seen, maps: Tensor, geometry: Geometry,
                 mask: Tensor | None = None) -> TokenPairs:
    """Pair each of two global crops of the student with the teacher's other one.

    Args:
        student: of 2B crops, all first ones, then all second ones.
        teacher: of the same crops.
        maps: view-to-tile maps, (B, V, 2, 3).
        geometry: 'axis_aligned' or 'affine', what the maps are.
        mask: patches that the student did not see, bool (2B, N).
    """
    rows = len(maps)
    with torch.autocast(maps.device.type, enabled=False):
        found = match_cells(maps[:, 1], maps[:, 0], student.grid, geometry)
    own, other = (seen.patches.unflatten(0, (2, rows)) for seen in (student, teacher))
    visible = None if mask is None else ~mask.unflatten(0, (2, rows)).flip(0)[:, :, None]
    return TokenPairs(own.flip(0)[:, :, None], other,
                      torch.stack([found.weight_q, found.weight_k])[:, :, None],
                      torch.stack([found.match_q, found.match_k])[:, :, None], visible)


def pair_locals(student: Seen, teacher: Seen, maps: Tensor, first: int, geometry: Geometry
                ) -> TokenPairs:
    """Pair local crops of the student with both global crops of the teacher.

    Args:
        student: of L·B crops of one size, crop by crop.
        teacher: of 2B global crops.
        maps: view-to-tile maps, (B, V, 2, 3).
        first: number of the first local crop among the V views.
        geometry: 'axis_aligned' or 'affine', what the maps are.
    """
    rows = len(maps)
    count = len(student.patches) // rows
    shape = 2, rows, count
    query = maps[:, first:first + count].expand(2, -1, -1, -1, -1)  # G B L 2 3
    key = maps[:, :2].transpose(0, 1)[:, :, None].expand(*shape, 2, 3)
    with torch.autocast(maps.device.type, enabled=False):
        found = match_cells(query.flatten(0, 2), key.flatten(0, 2), student.grid, geometry,
                            teacher.grid)
    own = student.patches.unflatten(0, (count, rows)).transpose(0, 1)  # B L N D
    return TokenPairs(own.expand(2, *own.shape), teacher.patches.unflatten(0, (2, rows)),
                      found.weight_q.unflatten(0, shape), found.match_q.unflatten(0, shape), None)


def check_mask_token(backbone: nn.Module, method: nn.Module) -> None:
    """Raise a UserError if a backbone has no token for masked patches."""
    if not takes_masks(backbone):
        raise UserError(
            f'{type(method).__name__} masks patches, which a {type(backbone).__name__} cannot be '
            'shown', where='model.backbone', expected="a ViT (type='TimmBackbone'), or type='DINO' "
            "with matched=dict(type='MatchedPatches'), whose loss of cells needs no masks")
