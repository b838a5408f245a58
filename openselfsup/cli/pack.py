"""Pack tiles into one memory-mapped file, from which a GPU can be fed.

Example:
    openselfsup pack data/NCT-CRC-HE/NCT-CRC-HE-100K-NONORM packed/nct
    openselfsup pack PLM_SSL/r18_bs256_ep200_lambda_1.0 packed/nct
    openselfsup pack --verify packed/nct

A killed run goes on where it stopped when it is started again. Train from the result with
dataset.source=dict(_delete_=True, type='PackedTiles', root='packed/nct').
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import UserError, listed
from ..values import Count
from .arguments import checked, folder_or_config

if TYPE_CHECKING:
    from ..datasets import Source

T = TypeVar('T')


def source_of(target: str, labels: bool) -> 'Source':
    """Return the tiles of a folder, or of the ``dataset.source`` of a config."""
    from ..datasets import build_source
    found = folder_or_config(target, labels)
    return build_source(found['dataset']['source']) if isinstance(found, dict) else found


def with_progress(what: str, total: int, work: Callable[[Callable[[int], None]], T]) -> T:
    """Do ``work`` beneath a bar: it is handed what to call with the number of tiles done."""
    from rich import progress as bars
    from rich.console import Console
    columns = (bars.TextColumn(what), bars.BarColumn(), bars.MofNCompleteColumn(),
               bars.TimeRemainingColumn())
    with bars.Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        result = work(lambda done: progress.update(task, completed=done))
        progress.update(task, completed=total)
    return result


def verify(root: str) -> int:
    """Compare every tile of a store with its checksum."""
    from ..datasets import PackedTiles
    store = PackedTiles(root)
    damaged = with_progress('checking', len(store), store.damaged)
    if damaged:
        raise UserError(listed(f'{len(damaged)} of {len(store)} tiles have changed since they '
                               'were packed', damaged), where=root, expected='tiles packed anew')
    height, width = store.tile_size
    print(f'{root}: {len(store)} tiles of {width} x {height} px, all as they were packed')
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup pack``."""
    parser.add_argument('target', metavar='CONFIG_OR_FOLDER',
                        help='the tiles: a folder, or the dataset.source of a config')
    parser.add_argument('out', metavar='OUT', nargs='?', help='folder of the store')
    parser.add_argument('--verify', action='store_true',
                        help='compare every tile of a store with its checksum, after packing it '
                             'or, without OUT, of the store CONFIG_OR_FOLDER')
    parser.add_argument('--size', type=checked(Count), metavar='PX',
                        help='resize the short side to this and crop the centre')
    parser.add_argument('--skip-corrupt', action='store_true',
                        help='leave unreadable tiles out')
    parser.add_argument('--no-labels', action='store_true',
                        help='take no labels from the names of the folders')


def main(args: argparse.Namespace) -> int:
    """Pack, verify or both; return the exit status."""
    from ..datasets.packed import INDEX, pack
    if args.out is None:
        if not args.verify:
            raise UserError('OUT is missing')
        return verify(args.target)
    source = source_of(args.target, labels=not args.no_labels)
    store = with_progress('packing', len(source), lambda report: pack(
        source, args.out, args.size, args.skip_corrupt, report))
    height, width = store.tile_size
    print(f'{args.out}: {len(store)} tiles of {width} x {height} px')
    if left_out := len(source) - len(store):
        print(f"{left_out} unreadable tiles were left out; {Path(args.out) / INDEX} lists them "
              "as 'skipped'")
    return verify(args.out) if args.verify else 0
