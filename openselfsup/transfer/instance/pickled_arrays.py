"""Pickles of numpy arrays, read without numpy's own constructors or anybody else's code.

A pickle says which functions make its objects. Numpy's trust what they are given: a damaged state
of a dtype ends the process. So arrays are put together here, of numbers, shapes and bytes that
have been looked at.
"""

import io
import math
import pickle
import pickletools
import re
from collections import OrderedDict
from typing import Any

import numpy as np


class _DType:
    """Stands for ``numpy.dtype``: plain numbers of 1 to 8 bytes."""

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        if not (isinstance(code, str) and re.fullmatch('[<>=|]?[biuf][1248]', code)):
            raise ValueError(f'arrays of {code!r}')
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if len(state) < 5 or state[1] not in ('<', '>', '=', '|') or any(state[2:5]):
            raise ValueError('a dtype that is not of plain numbers')
        self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands for ``numpy.ndarray``: filled by its state."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _array(data, dtype, shape, 'F' if fortran else 'C')


def _reconstruct(kind: type, shape: tuple, code: bytes) -> _Array:
    return _Array()


def _frombuffer(data: Any, dtype: _DType, shape: tuple, order: str) -> _Array:
    made = _Array()
    made.value = _array(data, dtype, shape, order)
    return made


def _scalar(dtype: _DType, data: Any) -> Any:
    return _array(data, dtype, (), 'C')[()]


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ('latin1', 'latin-1'):
        raise ValueError(f'text in {encoding!r}')
    return text.encode('latin-1')


def _no_bytes() -> bytes:
    return b''


def _array(data: Any, dtype: _DType, shape: tuple, order: str) -> np.ndarray:
    """Return a copy of data as an array, if there are as many bytes as its shape needs."""
    if isinstance(data, str):  # of Python 2
        data = data.encode('latin-1')
    if not (isinstance(data, (bytes, bytearray)) and isinstance(dtype, _DType)
            and isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
            and order in ('C', 'F')):
        raise ValueError('an array of another form')
    if len(data) != math.prod(shape) * dtype.value.itemsize:
        raise ValueError(f'{len(data)} bytes for an array of shape {shape}')
    flat = np.frombuffer(data, dtype.value)
    return flat.reshape(shape, order='C' if order == 'C' else 'F').copy()


_MAKERS = {('collections', 'OrderedDict'): OrderedDict, ('_codecs', 'encode'): _encode,
           ('__builtin__', 'bytes'): _no_bytes,  # how protocol 2 writes none
           ('numpy', 'ndarray'): _Array, ('numpy', 'dtype'): _DType} | {
    (f'numpy.{core}.{module}', name): maker for core in ('core', '_core')
    for module, name, maker in (('multiarray', '_reconstruct', _reconstruct),
                                ('multiarray', 'scalar', _scalar),
                                ('numeric', '_frombuffer', _frombuffer))}


class _ArraysOnly(pickle.Unpickler):
    """Unpickles containers, numbers, text and arrays; anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for an allowed function."""
        if (module, name) not in _MAKERS:
            raise pickle.UnpicklingError(f'{module}.{name}')
        return _MAKERS[module, name]


def load_arrays(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of a pickled dict, or of the dict under its key 'model', by name.

    Raises:
        ValueError: the pickle is damaged, or holds anything that could run code.
    """
    try:
        # A damaged number of four bytes would make the unpickler ask for tens of gigabytes.
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ('PUT', 'BINPUT', 'LONG_BINPUT') and (argument or 0) > len(data):
                raise ValueError(f'a memo of {argument} places')
        content = _ArraysOnly(io.BytesIO(data), encoding='latin1').load()
    # What the unpickler raises of bytes that make no sense.
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, AttributeError,
            OverflowError, MemoryError, RecursionError, SystemError) as error:
        raise ValueError(str(error)) from None
    model = content.get('model', content) if isinstance(content, dict) else {}
    found = {k: v.value for k, v in model.items() if isinstance(v, _Array)
             and v.value is not None} if isinstance(model, dict) else {}
    if sum(value.nbytes for value in found.values()) > len(data):
        raise ValueError('its arrays are larger than the file')
    return found
