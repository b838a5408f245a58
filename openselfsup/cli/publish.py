"""Write a checkpoint to give away: without optimiser and config, its hash in its name.

Example:
    openselfsup publish work_dirs/plm/latest.pth plm_r18_nct.pth     # plm_r18_nct-1a2b3c4d.pth

It keeps all weights, and what says where the backbone is and how it is built. For the backbone
alone, extract it first.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup publish``."""
    parser.add_argument('checkpoint', help='e.g. work_dirs/demo/latest.pth')
    parser.add_argument('out', nargs='?', type=Path,
                        help='name to write, to which the hash is added (default: CHECKPOINT)')


def main(args: argparse.Namespace) -> None:
    """Read, strip, write, and say where."""
    from ..checkpoints.publishing import publish
    print(f'wrote {publish(Path(args.checkpoint), args.out)}')
