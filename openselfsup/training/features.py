"""Features of tiles by a backbone, whatever they are for."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from ..datasets.parallel import default_workers
from ..datasets.prefetch import prefetch
from ..errors import UserError
from ..models.parts import features_of
from .modes import eval_mode
from .normalization import IMAGENET_MEAN, IMAGENET_STD, Normalize
from .precision import autocast

Result = TypeVar('Result')


class Tiles(Protocol):
    """Tiles by their index, such as a :class:`~openselfsup.datasets.labeled.LabeledTileDataset`."""

    def __len__(self) -> int:
        """Return their number."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        """Return a tile, uint8 (3, H, W), and its label."""
        ...


def extract_features(backbone: nn.Module, tiles: Tiles | Tensor,
                     batch_size: int = 64, mean: Sequence[float] = IMAGENET_MEAN,
                     std: Sequence[float] = IMAGENET_STD, amp: str = 'off') -> Tensor:
    """Return one vector of each tile, see :func:`openselfsup.models.parts.features_of`.

    Takes what :func:`feature_maps` does.

    Returns:
        float32 tensor of shape (N, C) on the CPU.
    """
    return torch.cat([found.float().cpu() for found in _outputs(
        backbone, lambda images: features_of(backbone, images), tiles, batch_size, mean, std,
        amp)])


def feature_maps(backbone: nn.Module, tiles: Tiles | Tensor,
                 batch_size: int = 64, mean: Sequence[float] = IMAGENET_MEAN,
                 std: Sequence[float] = IMAGENET_STD, amp: str = 'off') -> Iterator[list[Tensor]]:
    """Yield the feature maps (B, C, h, w) of batches of tiles, on the backbone's device.

    Args:
        backbone: maps images (B, 3, H, W) to a list of feature maps (B, C, h, w). It runs
            in eval mode where its parameters are, and has its mode again after the last batch.
        tiles: N tiles, as a dataset or as uint8 tensor of shape (N, 3, H, W). A batch ends before
            ``batch_size`` where the next tile of a dataset has another size.
        batch_size: tiles of one forward pass.
        mean: mean of each channel, for values in [0, 1].
        std: standard deviation of each channel, for values in [0, 1].
        amp: precision of the forward pass, 'off', 'bf16' or 'fp16'.
    """
    yield from _outputs(backbone, backbone, tiles, batch_size, mean, std, amp)


@torch.no_grad()
def _outputs(backbone: nn.Module, forward: Callable[[Tensor], Result], tiles: Tiles | Tensor,
             batch_size: int, mean: Sequence[float], std: Sequence[float],
             amp: str) -> Iterator[Result]:
    """Yield what ``forward`` makes of batches of normalised tiles."""
    device = next((p.device for p in backbone.parameters()), torch.device('cpu'))
    normalize = Normalize(mean, std).to(device)
    with eval_mode(backbone):
        for batch in _batches(tiles, batch_size):
            with autocast(device, amp):
                found = forward(normalize(batch))
            yield found


def _batches(tiles: Tiles | Tensor, batch_size: int) -> Iterator[Tensor]:
    """Yield uint8 batches; threads read the next one while this one is used."""
    if isinstance(tiles, Tensor):
        yield from tiles.split(batch_size)
        return
    batch: list[Tensor] = []
    for tile in prefetch(lambda index: tiles[index][0], range(len(tiles)), default_workers(),
                         2 * batch_size, 'tiles'):
        if batch and (len(batch) == batch_size or tile.shape != batch[0].shape):
            yield torch.stack(batch)
            batch = []
        batch.append(tile)
    if batch:
        yield torch.stack(batch)


def refuse_not_finite(*features: Tensor, of: str = '') -> None:
    """Refuse features that hold NaN or infinity: nothing that is computed from them means anything.

    Args:
        features: tensors of shape (N, D).
        of: whose features they are, for the sentence.

    Raises:
        UserError: some are not finite; it says of how many tiles.
    """
    for part in features:
        wrong = int((~part.isfinite().all(1)).sum())
        if wrong:
            raise UserError(f'the features{f" of {of}" if of else ""} are not finite for {wrong} '
                            f'of {len(part)} tiles', expected='a backbone without NaN or inf, in '
                            'a precision that holds its values (fp16 ends at 65,504)')
