"""PLM's path of `openselfsup convert`, which also reads PCL's checkpoints."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from openselfsup.cli.main import command

if __name__ == '__main__':
    command('convert')
