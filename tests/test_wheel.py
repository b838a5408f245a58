"""The wheel holds what `pip install` promises: the code, the configs, the tiles of the demo."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
SHIPPED = ('configs', 'data/demo', 'segmentation/detection/configs',
           'segmentation/semantic/configs')


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> Path:
    """The wheel of a copy of the source, unpacked; pip would put the same files there."""
    work = tmp_path_factory.mktemp('wheel')
    for folder in ('openselfsup', *SHIPPED):
        shutil.copytree(REPO / folder, work / 'source' / folder,
                        ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('pyproject.toml', 'setup.py', 'MANIFEST.in', 'README.md', 'LICENSE'):
        shutil.copy(REPO / name, work / 'source')
    done = subprocess.run(
        [sys.executable, '-c', "from setuptools import build_meta; build_meta.build_wheel('..')"],
        cwd=work / 'source', capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    wheel, = work.glob('*.whl')
    zipfile.ZipFile(wheel).extractall(work / 'installed')
    return work / 'installed'


def test_it_holds_the_code_the_configs_and_the_tiles(installed):
    def files(top: Path) -> set[str]:
        return {path.relative_to(top).as_posix() for path in top.rglob('*')
                if path.is_file() and path.suffix != '.pyc'}

    expected = {f'{folder}/{file}' for folder in SHIPPED for file in files(REPO / folder)}
    assert files(installed / 'openselfsup') == expected | files(REPO / 'openselfsup')
    assert (installed / 'openselfsup/py.typed').exists()
    about, = installed.glob('*.dist-info')
    assert {path.name for path in installed.iterdir()} == {'openselfsup', about.name}
    metadata = (about / 'METADATA').read_text()
    assert 'Requires-Dist: torch>=' in metadata and 'Requires-Dist: onedl-mmengine>=' in metadata
    assert 'openselfsup = openselfsup.cli.main:main' in (about / 'entry_points.txt').read_text()


def test_its_configs_and_tiles_are_found_from_anywhere(installed, tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'openselfsup', 'verify', 'demo/plm_r18'], cwd=tmp_path, text=True,
        env={**os.environ, 'PYTHONPATH': str(installed)}, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert 'tiles    170' in done.stdout
