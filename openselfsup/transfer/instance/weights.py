"""Weights in detectron2's pickle: written for it, and read back without running code."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...checkpoints import backbone_record, backbone_state_dict, load, refuse_spoilt, to_detectron2
from ...errors import UserError
from ...files import atomic_file
from ...training.normalization import IMAGENET_MEAN, IMAGENET_STD, normalization_of
from .pickled_arrays import load_arrays

AUTHOR = 'OpenSelfSup'


def convert(source: str | Path, target: str | Path) -> str:
    """Write the backbone of a checkpoint as the pickle that detectron2 loads.

    Args:
        source: any checkpoint :func:`openselfsup.checkpoints.backbone_state_dict` knows: our
            extracted backbone, ours, published PLM and CA2CL, torchvision.
        target: ``.pkl`` to write.

    Returns:
        What was converted, in one line, and in another how its images are to be normalised
        unless as those of ImageNet: a pickle does not say so.

    Raises:
        UserError: the checkpoint cannot be read or holds NaN, the target is called otherwise, or
            is a file that holds something else.
    """
    if Path(target).suffix != '.pkl':
        raise UserError('detectron2 tells the format from the suffix', where=str(target),
                        expected='a name ending in .pkl')
    checkpoint = load(source)
    state, kind = resnet_state_dict(checkpoint, str(source))
    refuse_spoilt(state, str(source))
    renamed = {name: value.detach().cpu().float() for name, value in to_detectron2(state).items()
               if not name.endswith('num_batches_tracked')}
    if not renamed:
        raise UserError('no backbone weights were found', where=str(source))
    if Path(target).is_file() and not _holds(target, renamed):
        raise UserError('this file holds something else than this backbone', where=str(target),
                        expected='another name, or this file removed')
    arrays = {name: value.numpy() for name, value in renamed.items()}
    with atomic_file(target) as file:
        # With the heuristics on, detectron2 matches names by their ends, below any prefix.
        file.write(pickle.dumps(dict(model=arrays, __author__=AUTHOR, matching_heuristics=True),
                                protocol=4))
    told = other_pixels(source, checkpoint, [255 * value for value in IMAGENET_MEAN],
                        [255 * value for value in IMAGENET_STD])
    return (f'{len(renamed)} tensors of the backbone ({kind} checkpoint {source}) to {target}'
            + (f'\n{told}' if told else ''))


def _holds(path: str | Path, weights: dict[str, Tensor]) -> bool:
    """Return whether a pickle has these weights; versions of numpy write the same otherwise."""
    try:
        found = read_pickle(path)
    except UserError:
        return False
    return found.keys() == weights.keys() and all(
        found[name].dtype == value.dtype and torch.equal(found[name], value)
        for name, value in weights.items())


def resnet_state_dict(checkpoint: dict[str, Any], where: str) -> tuple[dict[str, Tensor], str]:
    """Return the backbone of a checkpoint and its kind; refuse one that detectron2 has not.

    Raises:
        UserError: the checkpoint says that its backbone is no ResNet, or it has none.
    """
    state, kind = backbone_state_dict(checkpoint, where)
    if 'layer1.0.conv1.weight' not in state:
        record = backbone_record(checkpoint, where)
        name = record.config['type'] if record and record.config else 'another network'
        raise UserError(f"this backbone is a {name}; detectron2's configs of ours hold a ResNet",
                        where=where, expected='weights of a ResNet or ResNeXt')
    return state, kind


def read_pickle(path: str | Path) -> dict[str, Tensor]:
    """Read a pickle of arrays by name, as written by :func:`convert` or MoCo's script.

    Raises:
        UserError: it cannot be read, or holds anything else: that could run code.
    """
    try:
        arrays = load_arrays(Path(path).read_bytes())
    except OSError as error:
        raise UserError(error.strerror or str(error), where=str(path)) from None
    except ValueError as error:
        raise UserError(f'this pickle is damaged, or holds more than arrays ({error})',
                        where=str(path), expected='a file of `openselfsup convert`') from None
    found = {name: torch.from_numpy(array.astype(array.dtype.newbyteorder('=')))
             for name, array in arrays.items()}
    if not found:
        raise UserError('there are no arrays in this pickle', where=str(path))
    return found


def read_backbone(path: str | Path) -> dict[str, Any]:
    """Read backbone weights from a pickle of detectron2's or from any checkpoint we know."""
    if Path(path).suffix == '.pkl':
        return dict(model=read_pickle(path))
    return load(path)


def other_pixels(path: str | Path, checkpoint: Mapping[str, Any], mean: Sequence[float],
                 std: Sequence[float], bgr: bool = False) -> str:
    """Say that a backbone was trained on images of another normalisation, '' if nothing says so.

    Args:
        path: of the weights; a pickle says nothing of images.
        checkpoint: what the file holds.
        mean, std: what images are normalised with, MODEL.PIXEL_MEAN and MODEL.PIXEL_STD.
        bgr: whether their channels are blue, green, red.

    Returns:
        A sentence with the values to give instead.
    """
    if Path(path).suffix == '.pkl':
        return ''
    order = slice(None, None, -1) if bgr else slice(None)
    wanted = normalization_of(path, checkpoint)
    if not wanted.differs_from(*([value / 255 for value in values[order]]
                                 for values in (mean, std))):
        return ''
    mean, std = ([round(255 * value, 3) for value in values[order]]
                 for values in (wanted.mean, wanted.std))
    return (f'{path} wants images normalised otherwise, {wanted.source}; give '
            f'MODEL.PIXEL_MEAN "{mean}" MODEL.PIXEL_STD "{std}"')
