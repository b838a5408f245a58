import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # toy_model, also for spawned processes


@pytest.fixture(autouse=True)
def same_numbers_every_time():
    torch.manual_seed(0)
