"""What training asks of a method: :class:`Method` says it, :class:`BaseMethod` answers most of it.

A method of your own needs a ``backbone`` and a ``forward``; see docs/new_method.md.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from torch import Tensor, nn

from ..checkpoints import LoadReport, channels_of, load_backbone_weights, prefix_of_backbone
from ..errors import UserError

Geometry = Literal['axis_aligned', 'affine']

#: What a method may ask of a batch beside its views.
BATCH_KEYS = ('index', 'label')


class Progress(NamedTuple):
    """Where a run stands before a step.

    Attributes:
        epoch: the epoch that the step belongs to, from 0.
        step: optimiser steps behind the run.
        steps_per_epoch: optimiser steps of an epoch.
        steps: optimiser steps of the whole run.
    """

    epoch: int = 0
    step: int = 0
    steps_per_epoch: int = 1
    steps: int = 1


class Method(Protocol):
    """A pretraining method, an ``nn.Module`` of which training knows no more than this.

    It is built from the config's ``model``. In a run, training calls :meth:`set_data`,
    :meth:`set_geometry` (if ``needs_geometry``) and :meth:`load_backbone` (if the config has
    ``pretrained``) once; then for each optimiser step :meth:`begin_step`, for each of its batches
    :meth:`begin_pass`, the method itself and ``backward`` of the sum of its losses, and after the
    optimiser's update :meth:`end_step`. What must outlast an interruption is a parameter or a
    buffer.

    Attributes:
        backbone: what pretraining is for: maps images (B, 3, S, S) to a list of feature maps
            (B, C, h, w), with ``out_channels``, the C of each. One module of the method, whose
            place among the method's modules is written into every checkpoint.
        needs_geometry: whether ``view_to_tile`` is needed; recipes that lose it are then refused.
        batch_keys: what else a call is given by keyword, of :data:`BATCH_KEYS`.
        features: what the last forward made of the views, detached, of shape (B, D), or None;
            their effective rank is logged.
    """

    needs_geometry: bool
    batch_keys: tuple[str, ...]
    features: Tensor | None

    @property
    def backbone(self) -> nn.Module:
        """An attribute of most methods, a property of those that have it in an encoder."""
        ...

    def __call__(self, views: list[Tensor], view_to_tile: Tensor | None = None,
                 **asked: Tensor) -> dict[str, Tensor]:
        """Return losses and monitors of a batch.

        Args:
            views: V normalised tensors of shape (B, 3, S, S), whose sizes S may differ.
            view_to_tile: float32 tensor of shape (B, V, 2, 3): affine maps from view to tile
                coordinates, both in [0, 1], x to the right and y down; None if the recipe does
                not keep track of them.
            asked: what ``batch_keys`` names: ``index``, the place of each tile in the data set,
                int64 (B,), and ``label``, its class, int64 (B,).

        Returns:
            Scalar tensors. Those whose names start with ``loss`` are summed and trained, the
            others are logged. ``skip_step``, equal on all ranks, leaves the step out if it is 1.
        """

    def set_data(self, length: int, classes: list[str] | None) -> None:
        """Hear how many tiles the data set has, and its class names if it has labels."""

    def begin_step(self, progress: Progress) -> None:
        """Hear where the run stands, before each optimiser step."""

    def end_step(self) -> None:
        """Hear that the optimiser has moved the parameters; not after a step left out.

        Steps are left out where ``skip_step`` asks for it, and where gradients of fp16 overflow.
        """

    def begin_pass(self, first: bool = True, loss_scale: Tensor | float = 1.0) -> None:
        """Hear what the next forward pass belongs to.

        Args:
            first: whether it is the first pass of its optimiser step; moving averages move in
                that one only.
            loss_scale: what the losses will be multiplied with before backward (fp16):
                gradients that the method itself takes in its forward vanish without it.
        """

    def rate_factors(self) -> dict[str, float]:
        """Return factors on this step's learning rates, by how parameters' names begin.

        The longest beginning counts; the factor 0 leaves parameters as they are. The beginnings
        are the same in every step of a run.
        """
        ...

    def set_geometry(self, geometry: Geometry) -> None:
        """Hear of what kind the maps in ``view_to_tile`` are in this run."""

    def load_backbone(self, path: str, allow_partial: bool = False) -> LoadReport:
        """Start from the backbone weights in a file, in all encoders that start equal.

        Takes and returns what :func:`openselfsup.checkpoints.load_backbone_weights` does.
        """
        ...


class BaseMethod(nn.Module):
    """A :class:`Method` but for ``backbone`` and ``forward``, which remembers what it hears.

    Attributes:
        takes_views: the fewest and the most views of a tile that ``forward`` takes, None for any
            number; recipes that make others are refused.
        needs_reference: whether the third view is to hold the first two (ConCL's reference).
        needs_hooks: names of hooks without which the method learns nothing; a config without
            them is refused.
        can_shard: whether ``forward`` changes no parameter, so that each rank may keep a part of
            them only (``parallel='fsdp'``).
        trains_class_token: whether it is a ViT's class token that learns what an image is; most
            methods pool maps, and leave that token untrained.
        progress: where the run stands.
        first_pass: whether the next forward is the first of its optimiser step.
        loss_scale: what the losses will be multiplied with before backward.
        geometry: of what kind the maps in ``view_to_tile`` are.
    """

    needs_geometry: bool = False
    batch_keys: tuple[str, ...] = ()
    takes_views: tuple[int, int | None] = (1, None)
    needs_reference: bool = False
    needs_hooks: tuple[str, ...] = ()
    features: Tensor | None = None
    can_shard: bool = False
    trains_class_token: bool = False
    progress: Progress = Progress()
    first_pass: bool = True
    loss_scale: Tensor | float = 1.0
    geometry: Geometry = 'axis_aligned'

    def set_data(self, length: int, classes: list[str] | None) -> None:
        """See :meth:`Method.set_data`; :class:`PerTileMethod` makes room for each tile."""

    def begin_step(self, progress: Progress) -> None:
        """See :meth:`Method.begin_step`."""
        self.progress = progress

    def end_step(self) -> None:
        """See :meth:`Method.end_step`; a method with work after its steps overrides it."""

    def begin_pass(self, first: bool = True, loss_scale: Tensor | float = 1.0) -> None:
        """See :meth:`Method.begin_pass`."""
        self.first_pass, self.loss_scale = first, loss_scale

    def rate_factors(self) -> dict[str, float]:
        """See :meth:`Method.rate_factors`; none, unless a method overrides it."""
        return {}

    def set_geometry(self, geometry: Geometry) -> None:
        """See :meth:`Method.set_geometry`."""
        self.geometry = geometry

    def load_backbone(self: Method, path: str, allow_partial: bool = False) -> LoadReport:
        """See :meth:`Method.load_backbone`; a method with several encoders overrides it."""
        advice = ''
        if 'layer1.0.conv1.weight' in self.backbone.state_dict():  # a ResNet takes an init_cfg
            advice = ("--cfg-options \"model.backbone.init_cfg=dict(type='Pretrained', "
                      f"checkpoint='{path}', allow_partial=True)\" in place of --pretrained")
        return load_backbone_weights(self.backbone, path, allow_partial=allow_partial,
                                     advice=advice)


class PerTileMethod(BaseMethod, ABC):
    """A method that keeps something of each tile of the data set, found by the tile's index.

    A subclass defines :meth:`remember`, and calls :meth:`expect` when all else is built.

    Attributes:
        length: number N of tiles that the config asks for; None for those of the data set.
        keeps: how the sentence begins that refuses another number of tiles.
    """

    batch_keys = ('index',)
    keeps: ClassVar[str] = 'the memory is to hold'
    length: int | None = None

    def expect(self, length: int | None) -> None:
        """Make room for N tiles, or with None wait for :meth:`set_data`.

        Raises:
            UserError: N is too few.
        """
        self.length = length
        if length is not None:
            self.remember(length)

    def set_data(self, length: int, classes: list[str] | None) -> None:
        """Make room for each tile of the data set.

        Raises:
            UserError: the config asked for another number of tiles, or there are too few.
        """
        if self.length is None:
            self.remember(length)
        elif self.length != length:
            raise UserError(f'{self.keeps} {self.length} tiles, the data set has {length}',
                            where='model.length', expected=f'{length}, or nothing at all')

    @abstractmethod
    def remember(self, length: int) -> None:
        """Make room for N tiles in buffers, or in modules with buffers.

        Raises:
            UserError: N is too few.
        """


def check_method(algorithm: Any) -> None:
    """Raise a UserError that names what a class lacks of a :class:`Method`.

    Raises:
        UserError: something is lacking; or ``backbone`` is none of its modules, or its
            ``out_channels`` no list of numbers, so that no checkpoint could tell of it.
    """
    asked = [*Method.__annotations__, *(name for name in vars(Method) if name[0] != '_')]
    lacking = [name for name in asked if not hasattr(algorithm, name)]
    if lacking:
        raise UserError(
            f"{type(algorithm).__name__} lacks {', '.join(lacking)}", where='model.type',
            expected='a method that sets self.backbone and inherits from '
                     'openselfsup.models.method.BaseMethod')
    for key in algorithm.batch_keys:
        if key not in BATCH_KEYS:
            raise UserError(f"{type(algorithm).__name__}.batch_keys asks for '{key}', which no "
                            'batch has', where='model.type',
                            expected='of ' + ', '.join(BATCH_KEYS))
    prefix_of_backbone(algorithm)
    channels_of(algorithm.backbone)
