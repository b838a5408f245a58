"""The published configs as files, beside eight tiles where their lists look for them."""

import shutil
from pathlib import Path

import pytest
from published import REPO, write

TILES = sorted((REPO / 'data/demo/kather2016').glob('*/*.png'))[::6][:8]


@pytest.fixture(scope='session')
def repositories(tmp_path_factory) -> Path:
    """A folder with PLM_SSL, ConCL and OpenSelfSup's configs, and the data that they name."""
    folder = tmp_path_factory.mktemp('published')
    write(folder)
    names = [tile.name for tile in TILES]
    for root, meta in (('NCT/data', 'NCT'), ('imagenet/train', 'imagenet'),
                       ('imagenet/jpeg/train', 'imagenet'), ('places205/train', 'places205')):
        (folder / 'data' / root).mkdir(parents=True)
        for tile in TILES:
            shutil.copy(tile, folder / 'data' / root)
        lists = folder / 'data' / meta / 'meta'
        lists.mkdir(exist_ok=True)
        # ConCL's lists end their lines as Windows does.
        (lists / 'train.txt').write_text(''.join(f'{name}\r\n' for name in names))
        for kind in '', '_1percent', '_10percent':
            (lists / f'train_labeled{kind}.txt').write_text(
                ''.join(f'{name} {i % 4}\n' for i, name in enumerate(names)))
    return folder


@pytest.fixture
def there(repositories, monkeypatch) -> Path:
    """The same, as the folder in which commands run."""
    monkeypatch.chdir(repositories)
    return repositories
