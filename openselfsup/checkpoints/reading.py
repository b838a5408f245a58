"""Reading checkpoints without running code, with one sentence for whatever is wrong."""

import argparse
import json
import os
import pickle
import re
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..errors import UserError, nearest
from .fetching import from_hub, in_folder, is_on_hub
from .names import CONTAINERS, shorten

RUN, METADATA = 'run.pth', '.metadata'  # of a folder of parts, see :mod:`.parts`
_SUFFIXES = ('.pth', '.pt', '.tar', '.ckpt', '.safetensors', '.bin')
# Files that torch wrote before version 1.6 are pickles that start with this number.
_TORCH_MAGIC = (0x1950a86a20f9469cfc6c).to_bytes(10, 'little')


class NotRead:
    """Stands where a file names a function or class of its author's, which is not imported."""


# What published checkpoints name beside tensors: DINO's its arguments, VICRegL's a function of its
# optimiser. Neither does anything here: a namespace only holds values, a stand-in not even those.
_HARMLESS: list = [argparse.Namespace, (NotRead, 'optimizers.exclude_bias_and_norm')]


def load(path: str | Path, map_location: str | torch.device = 'cpu',
         room: Callable[[tuple, Tensor], Tensor] | None = None) -> dict[str, Any]:
    """Read a checkpoint without running any code that it may contain.

    Args:
        path: file written by :func:`save` or ``torch.save``, or a ``.safetensors`` file; a folder
            as hubs have it, with ``model.safetensors`` or ``pytorch_model.bin``; one into which
            ranks wrote their parts; or 'hf-hub:OWNER/NAME', which is downloaded.
        map_location: device of the tensors.
        room: what a folder of parts is read into, by all ranks together, see
            :func:`.parts.read_parts`; default: whole tensors, by this process.

    Raises:
        UserError: the file is missing, a folder, empty, truncated, damaged or no checkpoint,
            or holds objects that only running code could restore.
    """
    path = from_hub(str(path)) if is_on_hub(path) else Path(path)
    if path.is_dir() and (found := in_folder(path)):
        path = found
    if is_parts(path):
        return _read_parts(path, map_location, room)
    if not path.exists():
        raise UserError(f"this is a link to '{os.readlink(path)}', which is not there"
                        if path.is_symlink() else 'no such file', where=str(path),
                        nearest=_sibling(path))
    if path.is_dir():
        inside = ('latest.pth' if (path / 'latest.pth').exists()
                  else _sibling(path / 'latest.pth'))
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


def is_parts(path: Path) -> bool:
    """Return whether a path is a folder into which ranks wrote their parts of a checkpoint."""
    return path.is_dir() and ((path / METADATA).exists() or any(path.glob('*.distcp')))


def _read_parts(folder: Path, map_location: str | torch.device,
                room: Callable[[tuple, Tensor], Tensor] | None) -> dict[str, Any]:
    from .parts import read_parts  # takes seconds
    if not (folder / RUN).exists():
        raise UserError(f'this folder lacks {RUN}: it was not copied as a whole, or is of another '
                        'program', where=str(folder))
    return read_parts(folder, load(folder / RUN), room or (
        lambda keys, tensor: torch.empty_like(tensor, device=map_location)), alone=room is None)


def _refuse_what_cannot_be_weights(path: Path, start: bytes) -> None:
    if not start:
        raise UserError('this file is empty', where=str(path), nearest=_sibling(path))
    if start.lstrip().lower().startswith((b'<!doctype', b'<html', b'<?xml')):
        raise UserError('this is a web page, not a checkpoint: the download failed',
                        where=str(path), nearest=_sibling(path))
    # The length of a safetensors header, eight bytes before its {, may begin as a pickle does.
    if start.startswith(b'\x80') and _TORCH_MAGIC not in start and start[8:9] != b'{':
        raise UserError('this is a plain pickle, and reading it could run code from the file',
                        where=str(path), expected='a file written by torch.save, or .safetensors',
                        nearest=_sibling(path))
    if start.startswith(b'version https://git-lfs'):
        raise UserError("this is a Git LFS pointer, not the weights; 'git lfs pull' gets them",
                        where=str(path))


def _is_text(start: bytes) -> bool:
    """Return whether the first bytes of a file are characters that can be printed."""
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # else a character that is cut in two
            return False
        text = start[:error.start].decode()
    return ''.join(text.split()).isprintable()


def _read_torch(path: Path, start: bytes, map_location: str | torch.device) -> dict[str, Any]:
    if _is_text(start):
        raise UserError('this is a text file, not a checkpoint', where=str(path),
                        expected='a file written by torch.save, or .safetensors',
                        nearest=_sibling(path))
    is_zip = start.startswith(b'PK\x03\x04')
    try:
        if is_zip and (spoilt := zipfile.ZipFile(path).testzip()):
            raise UserError(f"this file is damaged: the checksum of '{spoilt}' is wrong",
                            where=str(path), nearest=_sibling(path))
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location=map_location, weights_only=True)
    except (OSError, UserError):
        raise
    except (EOFError, zipfile.BadZipFile):
        raise _truncated(path) from None
    except Exception as error:  # the unpickler obeys damaged bytes and fails in any way there is
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
                           'torch.jit.load({path}, map_location="cpu")')
    if found := _objects_in(path, is_zip, error):
        return _needs_code(path, f'Python objects besides tensors ({shorten(found)})',
                           'torch.load({path}, map_location="cpu", weights_only=False)')
    reason = f" ({type(error).__name__}: {' '.join(str(error).split())[:100]})"
    if 'weights_only' in str(error):  # torch's advice, which does not help here
        reason = ''
    return UserError(f'this is no PyTorch checkpoint, or it is damaged{reason}', where=str(path),
                     expected='a file written by torch.save, or .safetensors',
                     nearest=_sibling(path))


def _needs_code(path: Path, what: str, reading: str) -> UserError:
    """Advise a command that takes the weights out of a dict, of a module in it, or of a module."""
    target = path.with_name(f'{path.stem}_weights.pth')
    reading = reading.format(path=json.dumps(str(path)))
    script = (f'import torch; c = {reading}; '
              f'c = next((c[k] for k in {json.dumps(CONTAINERS)} if k in c), c) '
              'if isinstance(c, dict) else c; '
              'c = c if isinstance(c, dict) else c.state_dict(); '
              'torch.save({k: v for k, v in c.items() if isinstance(v, torch.Tensor)}, '
              f'{json.dumps(str(target))})')
    return UserError(
        f'this file holds {what}, and reading that would run code from the file; if you trust '
        'where it comes from, take the weights out of it once, where the code that it was '
        f'written with can be imported: python -c {shlex.quote(script)}', where=str(path))


def _objects_in(path: Path, is_zip: bool, error: Exception) -> list[str]:
    """Name what a file would call when unpickled, without calling it."""
    if is_zip and 'Unsupported operand' in str(error):
        return ['in a newer pickle protocol']
    if is_zip and isinstance(error, pickle.UnpicklingError):
        try:
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        except Exception:  # as above: then the file is damaged, and that is what will be said
            return []
    return re.findall(r'GLOBAL ([\w.]+)', str(error))[:1]


def _read_safetensors(path: Path, map_location: str | torch.device) -> dict[str, Tensor]:
    try:
        state = safetensors.torch.load(path.read_bytes())
    except KeyError as error:
        raise UserError(f'torch has no numbers of the type {error} that this file holds',
                        where=str(path), expected='weights in float32, float16 or bfloat16'
                        ) from None
    except (safetensors.SafetensorError, ValueError) as error:
        if 'not fully covered' in str(error):
            raise _truncated(path) from None
        raise UserError('this is no safetensors file, or it is damaged', where=str(path),
                        nearest=_sibling(path)) from None
    return {name: value.to(map_location) for name, value in state.items()}


def _sibling(path: Path) -> str | None:
    """Return the checkpoint beside ``path`` of the nearest name, else the newest one there."""
    try:
        files = [f for f in path.parent.iterdir() if (f.is_file() or is_parts(f))
                 and f.name != path.name and not f.name.startswith('.')]
    except OSError:
        return None
    checkpoints = [f for f in files if f.suffix in _SUFFIXES or is_parts(f)]
    named_alike = nearest(path.name, (f.name for f in checkpoints))
    newest = max(checkpoints, key=lambda f: f.stat().st_mtime, default=None)
    return named_alike or (newest.name if newest else None)
