"""Write a checkpoint of an older generation under the names of today.

Example:
    openselfsup upgrade plm_epoch_200.pth plm.pth

It takes our checkpoints from before they said where their backbone is, published ones of PLM,
ConCL, OpenSelfSup, CA2CL and VICRegL, and the bare weights that OpenSelfSup first released.
"""

import argparse
from pathlib import Path

from ..errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup upgrade``."""
    parser.add_argument('checkpoint', help='the old file')
    parser.add_argument('out', nargs='?', type=Path, help='file to write')
    parser.add_argument('--save-path', type=Path, metavar='OUT', help='OUT, as published')


def main(args: argparse.Namespace) -> None:
    """Read, rename, write, and say what was done."""
    from ..checkpoints.upgrading import upgrade
    if (args.out is None) == (args.save_path is None):
        raise UserError('no file to write' if args.out is None else 'two files to write',
                        where='OUT', expected='openselfsup upgrade CHECKPOINT OUT')
    print(upgrade(Path(args.checkpoint), args.out or args.save_path))
