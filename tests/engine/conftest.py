from pathlib import Path

import pytest
import torch
from small_runs import DEMO, REPO, SMALL

from openselfsup.engine.config import load_config
from openselfsup.engine.runner import Runner
from openselfsup.training.launch import Launch


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(REPO)


@pytest.fixture
def make_runner(tmp_path):
    """Build a small run in this process."""
    def make(*options: str, config: Path = DEMO, name: str = 'run') -> Runner:
        cfg = load_config(config, [*SMALL, *options])
        return Runner(cfg, Launch(0, 1, torch.device('cpu')), tmp_path / name)
    return make
