"""Check tiles before training: print what is there, and leave with 1 if any is unusable.

Example:
    openselfsup verify PLM_SSL/r18_bs256_ep200_lambda_1.0
    openselfsup verify data/demo/kather2016 --full
"""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import UserError
from .arguments import folder_or_config

if TYPE_CHECKING:
    from ..datasets import Source


def sources(target: str, labels: bool) -> Iterator[tuple[str, 'Source']]:
    """Yield (name, source) of a folder, or of every ``source`` that a config describes."""
    from ..datasets import build_source
    config = folder_or_config(target, labels)
    if not isinstance(config, dict):
        yield target, config
        return
    found = list(_described(config, ''))
    if not found:
        raise UserError('this config describes no source of tiles', where=target)
    for key, source in found:
        yield key, build_source(source)


def _described(value: object, key: str) -> Iterator[tuple[str, dict]]:
    items = (value.items() if isinstance(value, dict)
             else enumerate(value) if isinstance(value, (list, tuple)) else ())
    for name, item in items:
        path = f'{key}.{name}' if key else str(name)
        if name == 'source' and isinstance(item, dict):
            yield path, item
        else:
            yield from _described(item, path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup verify``."""
    parser.add_argument('target', metavar='CONFIG_OR_FOLDER')
    parser.add_argument('--full', action='store_true',
                        help='decode every tile (minutes for 100,000) instead of its header')
    parser.add_argument('--no-labels', action='store_true',
                        help='take no labels from the names of the folders')


def main(args: argparse.Namespace) -> int:
    """Verify every source; return 1 where a tile is unusable."""
    from ..datasets.verify import verify
    bad = 0
    for name, source in sources(args.target, labels=not args.no_labels):
        summary = verify(source, full=args.full)
        print(f'{name}\n{summary}')
        bad += len(summary.bad)
    return 1 if bad else 0
