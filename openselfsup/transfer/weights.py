"""Weights in detectron2's pickle: written for it, and read back without running code."""

import io
import pickle
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoints import backbone_state_dict, load, refuse_spoilt, to_detectron2
from ..errors import UserError
from ..files import atomic_file

AUTHOR = 'OpenSelfSup'
# All that a pickle of names and numpy arrays needs.
_ALLOWED = {('collections', 'OrderedDict'), ('_codecs', 'encode'), ('numpy', 'ndarray'),
            ('numpy', 'dtype')} | {
    (f'numpy.{core}.{module}', name) for core in ('core', '_core')
    for module, name in (('multiarray', '_reconstruct'), ('multiarray', 'scalar'),
                         ('numeric', '_frombuffer'))}


def convert(source: str | Path, target: str | Path) -> str:
    """Write the backbone of a checkpoint as the pickle that detectron2 loads.

    Args:
        source: any checkpoint :func:`openselfsup.checkpoints.backbone_state_dict` knows: our
            extracted backbone, ours, published PLM and CA2CL, torchvision.
        target: ``.pkl`` to write.

    Returns:
        What was converted, in one line.

    Raises:
        UserError: the checkpoint cannot be read or holds NaN, the target is called otherwise, or
            is a file that holds something else.
    """
    if Path(target).suffix != '.pkl':
        raise UserError('detectron2 tells the format from the suffix', where=str(target),
                        expected='a name ending in .pkl')
    state, kind = backbone_state_dict(load(source))
    refuse_spoilt(state, str(source))
    renamed = {name: value.detach().cpu().float().numpy()
               for name, value in to_detectron2(state).items()
               if not name.endswith('num_batches_tracked')}
    if not renamed:
        raise UserError('no backbone weights were found', where=str(source))
    # With the heuristics on, detectron2 matches names by their ends, below any prefix.
    content = pickle.dumps(dict(model=renamed, __author__=AUTHOR, matching_heuristics=True),
                           protocol=4)
    if Path(target).is_file() and Path(target).read_bytes() != content:
        raise UserError('this file holds something else than this backbone', where=str(target),
                        expected='another name, or this file removed')
    with atomic_file(target) as file:
        file.write(content)
    return f'{len(renamed)} tensors of the backbone ({kind} checkpoint {source}) to {target}'


class _ArraysOnly(pickle.Unpickler):
    """Unpickles containers, numbers, text and numpy arrays; anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed class."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f'{module}.{name}')
        return super().find_class(module, name)


def _refuse_boundless(data: bytes) -> None:
    """Raise ValueError for a pickle whose memo has more places than it has bytes.

    A damaged number of four bytes makes the unpickler ask for tens of gigabytes.
    """
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ('PUT', 'BINPUT', 'LONG_BINPUT') and argument > len(data):
            raise ValueError(f'a memo of {argument} places')


def read_pickle(path: str | Path) -> dict[str, Tensor]:
    """Read a pickle of arrays by name, as written by :func:`convert` or MoCo's script.

    Raises:
        UserError: it cannot be read, or holds anything else: that could run code.
    """
    try:
        data = Path(path).read_bytes()
        _refuse_boundless(data)
        content = _ArraysOnly(io.BytesIO(data), encoding='latin1').load()
        model = content.get('model', content) if isinstance(content, Mapping) else {}
        arrays = {k: v for k, v in model.items() if isinstance(v, np.ndarray)}
        if sum(v.nbytes for v in arrays.values()) > len(data):
            raise ValueError('its arrays are larger than the file')
        found = {k: torch.from_numpy(np.array(v)) for k, v in arrays.items()}
    except OSError as error:
        raise UserError(error.strerror or str(error), where=str(path)) from None
    # What the unpickler and numpy's constructors raise of bytes that make no sense.
    except (pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, AttributeError,
            OverflowError, MemoryError, RecursionError, SystemError) as error:
        raise UserError(f'this pickle is damaged, or holds more than arrays ({error})',
                        where=str(path), expected='a file of convert-pretrain-to-detectron2.py'
                        ) from None
    if not found:
        raise UserError('there are no arrays in this pickle', where=str(path))
    return found


def read_backbone(path: str | Path) -> dict[str, Any]:
    """Read backbone weights from a pickle of detectron2's or from any checkpoint we know."""
    if Path(path).suffix == '.pkl':
        return dict(model=read_pickle(path))
    return load(path)
