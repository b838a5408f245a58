import shutil
from pathlib import Path

import pytest

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
