"""Building a wheel: pyproject.toml describes it, and this puts what is not code into it."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
# As in openselfsup/shipped.py: in a wheel they lie inside the package, under the same names.
SHIPPED = ('configs', 'data/demo', 'segmentation/detection/configs',
           'segmentation/semantic/configs')


class BuildWithConfigs(build_py):
    """Copy configs and demo tiles into the package; an editable install finds the checkout's."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for folder in SHIPPED:
                shutil.copytree(HERE / folder, Path(self.build_lib, 'openselfsup', folder),
                                dirs_exist_ok=True,
                                ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))


setup(cmdclass={'build_py': BuildWithConfigs})
