"""ConCL's and CA2CL's path of `openselfsup segment instance`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from openselfsup.cli.main import command

if __name__ == '__main__':
    command('segment instance')
