"""Write a checkpoint that ranks wrote in parts, a folder, into one file.

Example:
    openselfsup merge work_dirs/vitl14/latest.pth vitl14.pth

The file holds all of it: a run goes on from it as from the folder. For the backbone alone,
`openselfsup extract-backbone` takes the folder as it is.
"""

import argparse
from pathlib import Path

from ..errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup merge``."""
    parser.add_argument('checkpoint', help='the folder, or a link to it such as '
                                           'work_dirs/vitl14/latest.pth')
    parser.add_argument('out', type=Path, help='file to write, which must not be there yet')


def main(args: argparse.Namespace) -> None:
    """Read the parts, write one file, and say so."""
    from ..checkpoints import load, save
    from ..checkpoints.reading import is_parts
    source = Path(args.checkpoint)
    if source.exists() and not is_parts(source):
        raise UserError('this checkpoint is not in parts', where=str(source))
    if args.out.exists() or args.out.is_symlink():
        raise UserError('this is there already', where=str(args.out), expected='another name')
    save(load(source), args.out)
    print(f'wrote {args.out}: {args.out.stat().st_size / 1e6:,.1f} MB')
