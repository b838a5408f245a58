"""Pickles of backbone weights: arrays that fit a name, or refused; nothing else is run."""

import io
import pickle
from pathlib import Path

import numpy as np
from torch import Tensor

from openselfsup.transfer.instance.weights import read_pickle

SUFFIX = '.pkl'


def seeds() -> list[bytes]:
    """detectron2's form in two protocols, and a bare mapping."""
    model = {'stem.conv1.weight': np.arange(24, dtype=np.float32).reshape(2, 3, 4),
             'res2.0.conv1.norm.bias': np.ones(5, np.float32)}
    files = []
    for content, protocol in ((dict(model=model, __author__='A', matching_heuristics=True), 4),
                              (dict(model=model, __author__='A'), 2), (model, 4)):
        file = io.BytesIO()
        pickle.dump(content, file, protocol=protocol)
        files.append(file.getvalue())
    return files


def check(path: Path, original: bytes) -> None:
    """Read a pickle as train_net.py does."""
    found = read_pickle(path)
    assert found and all(isinstance(v, Tensor) for v in found.values())
