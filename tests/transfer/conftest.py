"""A tiny synthetic GlaS and a config that trains on it in seconds."""

from pathlib import Path

import pytest
import torch

from openselfsup.datasets.prepare.glands import prepare_glas
from openselfsup.datasets.prepare.report import Report
from openselfsup.datasets.prepare.synthetic import write_glas_layout


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='session')
def datasets(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('datasets')
    official = write_glas_layout(tmp_path_factory.mktemp('official'), (5, 2, 1), size=96)
    prepare_glas(official, folder, Report('GlaS'))
    return folder
