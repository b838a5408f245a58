"""Checkpoints in a folder into which each rank writes its own parts (torch.distributed.checkpoint).

================  =========================================================================
``run.pth``       the checkpoint as a file holds it, its tensors without their values
``__R_0.distcp``  the values that rank R wrote
``.metadata``     which part of which tensor lies where, as torch writes it
================  =========================================================================

The folder takes its name, ``step_N.dcp``, when all of it is on the disk; ``epoch_3.pth`` and
``latest.pth`` are symbolic links to it. Importing this file takes seconds.
"""

import contextlib
import errno
import itertools
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import filesystem, metadata
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor
from torch.futures import Future

from .. import distributed
from ..errors import UserError
from ..files import link, not_written, sync_folder, system_error
from .reading import METADATA, RUN
from .writing import save

Keys = tuple[Any, ...]  # those that lead to a tensor in a checkpoint
# What .metadata may name: classes of torch that hold names and numbers and do nothing else.
_HOLDERS: dict[tuple[str, str], Any] = {(kind.__module__, kind.__name__): kind for kind in (
    metadata.Metadata, metadata.MetadataIndex, metadata.StorageMeta, metadata.TensorProperties,
    metadata.TensorStorageMetadata, metadata.ChunkStorageMetadata, metadata.BytesStorageMetadata,
    metadata._MEM_FORMAT_ENCODING, filesystem._StorageInfo, torch.serialization._get_layout,
    torch.Size)}
_HOLDERS |= {('torch', name): value for name, value in vars(torch).items()
             if isinstance(value, torch.dtype)}


def write_parts(state: Mapping[str, Any], names: Sequence[Path]) -> None:
    """Write a checkpoint into a folder, each rank its parts; all ranks call it.

    Args:
        state: tensors and plain types, with ``meta.step``. Of tensors that are shared out each
            rank writes what it has, of all others rank 0 what it has.
        names: what is to stand for it, such as ``epoch_3.pth`` and ``latest.pth``, in one folder.

    Raises:
        NotWritten: on all ranks, if one of them could not write. What the names stood for before
            is untouched.
    """
    tensors: dict[str, Tensor] = {}

    def emptied(keys: Keys, tensor: Tensor) -> Tensor:
        tensors[_name(keys)] = tensor.detach()
        return torch.empty(tensor.shape, dtype=tensor.dtype, device='meta')

    run = _mapped(state, emptied)
    folder = names[0].with_name(distributed.broadcast_object(
        _begin(names[0].parent, state['meta']['step']) if distributed.is_main() else ''))
    writer = _Writer(run, folder, names)
    try:
        with _quiet():
            dcp.save(tensors, storage_writer=writer, planner=dcp.DefaultSavePlanner(
                flatten_state_dict=False, dedup_save_to_lowest_rank=True))
    except CheckpointException as error:
        rank, cause = _cause(error)
        if isinstance(cause, OSError):
            cause = not_written(names[0], cause, f' by rank {rank}')
        raise cause from error
    finally:
        if distributed.is_main():  # it has its final name by now, or is of no use
            shutil.rmtree(writer.path, ignore_errors=True)


def read_parts(folder: Path, run: Any, room: Callable[[Keys, Tensor], Tensor],
               alone: bool) -> dict[str, Any]:
    """Read the values of a checkpoint's tensors.

    Args:
        folder: that of :func:`write_parts`.
        run: what its ``run.pth`` holds.
        room: gives what to read a tensor into, from the keys to it and its shape and type (on the
            device 'meta'): one that is shared out is read as far as this rank has it.
        alone: whether this process reads for itself; else all ranks read, and all fail if one does.

    Returns:
        The checkpoint.

    Raises:
        UserError: parts are missing or damaged, or a file is none of ours.
    """
    tensors: dict[str, Tensor] = {}

    def filled(keys: Keys, tensor: Tensor) -> Tensor:
        return tensors.setdefault(_name(keys), room(keys, tensor))

    checkpoint = _mapped(run, filled)
    reader = _Reader(folder, tensors)
    try:
        with _quiet():
            dcp.load(tensors, storage_reader=reader, no_dist=alone,
                     planner=dcp.DefaultLoadPlanner(flatten_state_dict=False))
    except CheckpointException as error:
        _, cause = _cause(error)
        if isinstance(cause, UserError):
            raise cause from None
        raise _damaged(folder / METADATA, cause) from None
    return checkpoint


class _Writer(dcp.FileSystemWriter):
    """Writes beside the folder's name; rank 0 gives it its name when all ranks are done.

    torch tells all ranks what one of them raises in here.
    """

    def __init__(self, run: Any, folder: Path, names: Sequence[Path]):
        super().__init__(_unfinished(folder))
        self._run, self._folder, self._names = run, folder, names

    def write_data(self, plan: Any, planner: Any) -> Future:
        """Write this rank's parts; what is raised can be sent to other ranks."""
        try:
            return super().write_data(plan, planner)
        except Exception as error:
            raise system_error(error) or RuntimeError(f'{type(error).__name__}: {error}') from error

    def finish(self, metadata: Any, results: list[list[Any]]) -> None:
        """Complete the folder and let the names stand for it, on rank 0."""
        super().finish(metadata, results)
        here = Path(self.path)
        for part in {info.relative_path for info in metadata.storage_data.values()}:
            if not (here / part).exists():
                raise FileNotFoundError(errno.ENOENT, f'{part} of another rank is not to be seen '
                                        'from here; all ranks must see the work directory')
        save(self._run, here / RUN)
        sync_folder(here)
        os.replace(here, self._folder)
        sync_folder(self._folder.parent)
        for name in self._names:
            link(self._folder, name)

    def storage_meta(self) -> None:
        """Leave out the path that the folder had while it was written."""


class _Reader(dcp.FileSystemReader):
    """Reads tensors and nothing else, and looks at their checksums."""

    def __init__(self, folder: Path, tensors: Mapping[str, Tensor]):
        super().__init__(folder)
        self._tensors, self._folder = tensors, folder
        self._metadata = _read_metadata(folder / METADATA)

    def read_metadata(self, *args: Any, **kwargs: Any) -> metadata.Metadata:
        """Return what was read, in a safe way, to begin with."""
        return self._metadata

    def read_data(self, plan: Any, planner: Any) -> Future:
        """Fill this rank's tensors."""
        lacking = {name: (tensor.to_local() if isinstance(tensor, DTensor) else tensor).numel()
                   for name, tensor in self._tensors.items()}
        wanted = sorted(((self.storage_data[item.storage_index], item) for item in plan.items),
                        key=lambda pair: (pair[0].relative_path, pair[0].offset))
        for name, items in itertools.groupby(wanted, lambda pair: pair[0].relative_path):
            path = self._folder / Path(name).name
            try:
                with open(path, 'rb') as file:
                    for info, item in items:
                        target = planner.resolve_tensor(item).detach()
                        target.copy_(_part(_chunk(file, info), item, target))
                        lacking[item.dest_index.fqn] -= target.numel()
            except FileNotFoundError:
                raise UserError('this part of the checkpoint is missing', where=str(path),
                                expected='the folder as it was written') from None
            except OSError as error:
                raise UserError(f'could not be read: {error.strerror}', where=str(path)) from None
            except Exception as error:  # torch fails at damaged bytes in any way there is
                raise _damaged(path, error) from None
        if found := [name for name, count in lacking.items() if count]:
            raise ValueError(f'it does not tell where all of {found[0]} is')
        done: Future = Future()
        done.set_result(None)
        return done


def _chunk(file: BinaryIO, info: Any) -> BytesIO:
    """Return the bytes of one part of a tensor, whose checksums are right."""
    file.seek(info.offset)
    chunk = BytesIO(file.read(info.length))
    if len(chunk.getbuffer()) < info.length:
        raise EOFError('it is cut short')
    if spoilt := zipfile.ZipFile(chunk).testzip():
        raise ValueError(f"the checksum of '{spoilt}' is wrong")
    chunk.seek(0)
    return chunk


def _part(chunk: BytesIO, item: Any, target: Tensor) -> Tensor:
    """Return what is wanted of a part that was written."""
    found = torch.load(chunk, map_location='cpu', weights_only=True)
    part = found[tuple(slice(start, start + length) for start, length
                       in zip(item.storage_offsets, item.lengths))]
    if part.shape != target.shape or part.dtype != target.dtype:
        raise ValueError(f'{item.dest_index.fqn} is of another shape or type')
    return part


class _Unpickler(pickle.Unpickler):
    """Knows :data:`_HOLDERS` only: nothing that a file names besides is imported or called."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class of torch that holds names and numbers."""
        if (module, name) not in _HOLDERS:
            raise UserError(f'this file names {module}.{name}, and reading that would run code '
                            'from the file', expected='the .metadata that torch writes')
        return _HOLDERS[module, name]


def _read_metadata(path: Path) -> metadata.Metadata:
    try:
        found = _Unpickler(BytesIO(path.read_bytes())).load()
    except FileNotFoundError:
        raise UserError('this folder lacks its .metadata, a hidden file which says where its '
                        'tensors are: it was not copied as a whole', where=str(path.parent),
                        ) from None
    except OSError as error:
        raise UserError(f'could not be read: {error.strerror}', where=str(path)) from None
    except UserError as error:
        raise UserError(error.what, where=str(path), expected=error.expected) from None
    except Exception as error:  # the unpickler obeys damaged bytes and fails in any way there is
        raise _damaged(path, error) from None
    if not isinstance(found, metadata.Metadata):
        raise _damaged(path, TypeError(f'it holds a {type(found).__name__}'))
    return found


def _damaged(path: Path, error: BaseException) -> UserError:
    reason = ' '.join(str(error).split())[:100]
    return UserError(f'this file is damaged or cut short ({type(error).__name__}: {reason})',
                     where=str(path), expected='the folder as it was written')


def _cause(error: CheckpointException) -> tuple[int, BaseException]:
    """Return what a rank raised, and its number; rather what tells of files."""
    found = {rank: cause for rank, (cause, _) in sorted(error.failures.items())}
    return next(((rank, cause) for rank, cause in found.items()
                 if isinstance(cause, (OSError, UserError))), next(iter(found.items())))


def _begin(parent: Path, step: int) -> str:
    """Return a name that is free, and remove what killed processes left unfinished."""
    with contextlib.suppress(OSError):
        for left in parent.glob(_unfinished(parent / 'step_*.dcp').name):
            shutil.rmtree(left)
    names = (f'step_{step}.dcp' if n == 1 else f'step_{step}_{n}.dcp' for n in itertools.count(1))
    return next(name for name in names if not os.path.lexists(parent / name)
                and not os.path.lexists(_unfinished(parent / name)))


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f'.{folder.name}.unfinished')


def _name(keys: Keys) -> str:
    return '.'.join(map(str, keys))


def _mapped(value: Any, change: Callable[[Keys, Tensor], Tensor], keys: Keys = ()) -> Any:
    """Return a checkpoint whose tensors are others."""
    if isinstance(value, Tensor):
        return change(keys, value)
    if isinstance(value, Mapping):
        return {key: _mapped(one, change, (*keys, key)) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(one, change, (*keys, i)) for i, one in enumerate(value))
    return value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out that a single process reads, which torch warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='torch.distributed is disabled')
        yield
