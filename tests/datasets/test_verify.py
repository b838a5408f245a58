"""What a source holds and what is wrong with it, from the library and the command line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openselfsup.datasets.sources import ImageFolder, Source
from openselfsup.datasets.verify import verify

ROOT = Path(__file__).parents[2]
DEMO = ROOT / 'data/demo'


@pytest.fixture
def mixed(tmp_path):
    """Two classes, two sizes, three formats; one tile damaged, one no image at all."""
    for name, size in [('TUM/a.tif', 64), ('TUM/b.png', 64), ('ADI/c.jpg', 48), ('ADI/d.png', 64)]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((size, 64), 50).convert('RGB').save(path)
    damaged = bytearray((tmp_path / 'ADI/d.png').read_bytes())
    damaged[600] ^= 1
    (tmp_path / 'ADI/d.png').write_bytes(damaged)
    (tmp_path / 'ADI/e.bmp').write_bytes(b'no image')
    return tmp_path


def test_headers_only(mixed):
    summary = verify(ImageFolder(str(mixed)))
    assert summary.tiles == 5
    assert summary.formats == {'TIFF': 1, 'PNG': 2, 'JPEG': 1}
    assert summary.sizes == {(64, 64): 3, (48, 64): 1}
    assert summary.labels == {'ADI': 3, 'TUM': 2}
    assert len(summary.bad) == 1 and 'e.bmp: neither' in summary.bad[0]


def test_full_decode_finds_what_headers_hide(mixed):
    summary = verify(ImageFolder(str(mixed), labels=False), full=True)
    assert summary.labels is None and summary.sizes == {(64, 64): 2, (48, 64): 1}
    assert [Path(line.split(': ')[0]).name for line in summary.bad] == ['d.png', 'e.bmp']


def test_sources_that_are_no_files_are_read():
    class Blank(Source):
        classes, labels = ['x', 'y', 'z'], np.array([2, 0, 2])

        def __len__(self):
            return 3

        def read(self, index):
            return np.zeros((40, 50, 3), np.uint8)

        def path(self, index):
            return f'blank {index}'

    summary = verify(Blank())
    assert summary.sizes == {(50, 40): 3} and not summary.bad
    assert summary.labels == {'x': 1, 'y': 0, 'z': 2}
    assert str(summary).splitlines() == ['tiles    3', 'sizes    50 x 40 px: 3',
                                         'labels   x: 1, y: 0, z: 2', 'bad      0']


def test_tool_on_a_config_with_good_tiles(tool):
    result = tool('tools/verify_data.py', 'configs/demo/plm_r18.py', '--full')
    assert result.returncode == 0, result.stderr
    assert result.stdout == ('dataset.source\ntiles    170\nformats  PNG: 100, JPEG: 70\n'
                             'sizes    224 x 224 px: 170\nlabels   none\n'
                             'others   3 .txt, 1 .md, folders without a file of these: meta\n'
                             'bad      0\n')
    assert not result.stderr


def test_tool_on_a_folder_with_bad_tiles(mixed, tool):
    result = tool('tools/verify_data.py', mixed, '--full', '--no-labels')
    assert result.returncode == 1 and 'labels   none\nbad      2' in result.stdout
    assert 'd.png: cannot be decoded' in result.stdout and not result.stderr
