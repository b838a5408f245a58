"""Reading checkpoints without running code, with one sentence for whatever is wrong."""

import json
import math
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError, nearest
from .names import shorten

_SUFFIXES = ('.pth', '.pt', '.tar', '.ckpt', '.safetensors', '.bin')
# Files that torch wrote before version 1.6 are pickles that start with this number.
_TORCH_MAGIC = (0x1950a86a20f9469cfc6c).to_bytes(10, 'little')


def load(path: str | Path, map_location: str | torch.device = 'cpu') -> dict[str, Any]:
    """Read a checkpoint without running any code that it may contain.

    Args:
        path: file written by :func:`save` or ``torch.save``, or a ``.safetensors`` file.
        map_location: device of the tensors.

    Raises:
        UserError: the file is missing, a folder, empty, truncated, damaged or no checkpoint,
            or holds objects that only running code could restore.
    """
    path = Path(path)
    if not path.exists():
        raise UserError('no such file', where=str(path), nearest=_sibling(path))
    if path.is_dir():
        inside = _sibling(path / 'latest.pth')
        raise UserError('this is a folder, not a checkpoint', where=str(path),
                        nearest=str(path / inside) if inside else None)
    try:
        with open(path, 'rb') as file:
            start = file.read(64)
        _refuse_what_cannot_be_weights(path, start)
        if path.suffix == '.safetensors':
            return _read_safetensors(path, map_location)
        return _read_torch(path, start, map_location)
    except OSError as error:
        raise UserError(f'could not be read: {error.strerror}', where=str(path)) from None


def _refuse_what_cannot_be_weights(path: Path, start: bytes) -> None:
    if not start:
        raise UserError('this file is empty', where=str(path), nearest=_sibling(path))
    if start.lstrip().lower().startswith((b'<!doctype', b'<html', b'<?xml')):
        raise UserError('this is a web page, not a checkpoint: the download failed',
                        where=str(path), nearest=_sibling(path))
    if start.startswith(b'\x80') and _TORCH_MAGIC not in start:
        raise UserError('this is a plain pickle, and reading it could run code from the file',
                        where=str(path), expected='a file written by torch.save, or .safetensors',
                        nearest=_sibling(path))
    if start.startswith(b'version https://git-lfs'):
        raise UserError("this is a Git LFS pointer, not the weights; 'git lfs pull' gets them",
                        where=str(path))


def _read_torch(path: Path, start: bytes, map_location: str | torch.device) -> dict[str, Any]:
    is_zip = start.startswith(b'PK\x03\x04')
    try:
        if is_zip and (spoilt := zipfile.ZipFile(path).testzip()):
            raise UserError(f"this file is damaged: the checksum of '{spoilt}' is wrong",
                            where=str(path), nearest=_sibling(path))
        content = torch.load(path, map_location=map_location, weights_only=True)
    except (EOFError, zipfile.BadZipFile):
        raise _truncated(path) from None
    except (RuntimeError, KeyError, pickle.UnpicklingError, struct.error, ValueError) as error:
        raise _not_readable(path, is_zip, error) from None
    if not isinstance(content, dict):
        raise UserError(f'this file holds a {type(content).__name__}, not a dict of weights',
                        where=str(path))
    return content


def _truncated(path: Path) -> UserError:
    return UserError('this file is cut short: writing or copying it was interrupted',
                     where=str(path), nearest=_sibling(path))


def _not_readable(path: Path, is_zip: bool, error: Exception) -> UserError:
    """Explain why torch refused a file."""
    if 'unexpected EOF' in str(error) or 'truncated' in str(error):
        return _truncated(path)
    if 'TorchScript' in str(error):
        return _needs_code(path, 'a TorchScript program',
                           f"{{'state_dict': torch.jit.load('{path.name}').state_dict()}}")
    if found := _objects_in(path, is_zip, error):
        return _needs_code(path, f'Python objects besides tensors ({shorten(found)})',
                           f"torch.load('{path.name}', weights_only=False)['state_dict']")
    return UserError('this is no PyTorch checkpoint, or it is damaged', where=str(path),
                     expected='a file written by torch.save, or .safetensors',
                     nearest=_sibling(path))


def _needs_code(path: Path, what: str, weights: str) -> UserError:
    return UserError(
        f'this file holds {what}, and reading that would run code from the file; if you trust '
        "where it comes from, convert it once (adapt 'state_dict' if its weights are under "
        f'another key): python -c "import torch; torch.save({weights}, \'weights.pth\')"',
        where=str(path))


def _objects_in(path: Path, is_zip: bool, error: Exception) -> list[str]:
    """Name what a file would call when unpickled, without calling it."""
    if is_zip and 'Unsupported operand' in str(error):
        return ['in a newer pickle protocol']
    if is_zip and isinstance(error, pickle.UnpicklingError):
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    return re.findall(r'GLOBAL ([\w.]+)', str(error))[:1]


def _read_safetensors(path: Path, map_location: str | torch.device) -> dict[str, Tensor]:
    """Read the safetensors format: header length (u64), JSON header, raw little-endian data."""
    dtypes = dict(F64=torch.float64, F32=torch.float32, F16=torch.float16, BF16=torch.bfloat16,
                  I64=torch.int64, I32=torch.int32, I16=torch.int16, I8=torch.int8,
                  U8=torch.uint8, BOOL=torch.bool)
    data = bytearray(path.read_bytes())
    try:
        start = 8 + struct.unpack('<Q', data[:8])[0]
        header = json.loads(data[8:start])
        state = {}
        for name, entry in header.items():
            if name == '__metadata__':
                continue
            begin, end = entry['data_offsets']
            dtype, shape = dtypes[entry['dtype']], entry['shape']
            if end - begin != math.prod(shape) * dtype.itemsize or start + end > len(data):
                raise _truncated(path)
            values = torch.frombuffer(data[start + begin:start + end] or bytearray(1),
                                      dtype=torch.uint8)[:end - begin]
            state[name] = values.view(dtype).reshape(shape).to(map_location)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise UserError('this is no safetensors file, or it is damaged', where=str(path),
                        nearest=_sibling(path)) from None
    return state


def _sibling(path: Path) -> str | None:
    """Return the file beside ``path`` of the nearest name, else the newest checkpoint there."""
    try:
        files = [f for f in path.parent.iterdir()
                 if f.is_file() and f.name != path.name and not f.name.startswith('.')]
    except OSError:
        return None
    named_alike = nearest(path.name, (f.name for f in files))
    checkpoints = [f for f in files if f.suffix in _SUFFIXES]
    newest = max(checkpoints, key=lambda f: f.stat().st_mtime, default=None)
    return named_alike or (newest.name if newest else None)
