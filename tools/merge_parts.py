"""The script of `openselfsup merge`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from openselfsup.cli.main import command

if __name__ == '__main__':
    command('merge')
