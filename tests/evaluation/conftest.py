import shutil
from pathlib import Path

import pytest
import torch
import torchvision

DEMO = Path(__file__).parents[2] / 'data/demo/kather2016'


@pytest.fixture(scope='session')
def split(tmp_path_factory) -> Path:
    """The bundled Kather tiles, every third one in ``test``, the others in ``train``."""
    root = tmp_path_factory.mktemp('split')
    for folder in sorted(DEMO.iterdir()):
        for i, path in enumerate(sorted(folder.iterdir())):
            target = root / ('test' if i % 3 == 2 else 'train') / folder.name
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / path.name)
    return root


@pytest.fixture(scope='session')
def weights(tmp_path_factory) -> Path:
    """Weights of a ResNet-18 as torchvision saves them."""
    path = tmp_path_factory.mktemp('weights') / 'r18.pth'
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(num_classes=8).state_dict(), path)
    return path
