"""Pack tiles into one memory-mapped file, or into shards for a bucket.

Example:
    openselfsup pack data/NCT-CRC-HE/NCT-CRC-HE-100K-NONORM packed/nct
    openselfsup pack PLM_SSL/r18_bs256_ep200_lambda_1.0 packed/nct
    openselfsup pack --verify packed/nct
    openselfsup pack --shards data/NCT-CRC-HE/NCT-CRC-HE-100K-NONORM shards/nct

A killed run goes on where it stopped when it is started again. Train from the result with
dataset.source=dict(_delete_=True, type='PackedTiles', root='packed/nct'), from shards with
dict(_delete_=True, type='Shards', url='shards/nct'), or s3://... once they are copied there.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import UserError, listed
from ..values import Count, Positive
from .arguments import checked, folder_or_config

if TYPE_CHECKING:
    from ..datasets import PackedTiles, Shards, Source

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


def open_store(root: str) -> 'PackedTiles | Shards':
    """Return what lies in a folder or at a URL: packed tiles or shards."""
    from ..datasets import PackedTiles, Shards
    if '://' in root or any(Path(root).glob('shard-*')):
        shards = Shards(root)
        shards.check()
        return shards
    return PackedTiles(root)


def described(store: 'PackedTiles | Shards') -> str:
    """Return how many tiles of which size there are."""
    size = 'several sizes' if store.tile_size is None else '{1} x {0} px'.format(*store.tile_size)
    return f'{len(store)} tiles of {size}'


def verify(root: str) -> int:
    """Compare every tile of a store with its checksum."""
    store = open_store(root)
    damaged = with_progress('checking', len(store), store.damaged)
    if damaged:
        raise UserError(listed(f'{len(damaged)} of {len(store)} tiles have changed since they '
                               'were packed', damaged), where=root, expected='tiles packed anew')
    print(f'{root}: {described(store)}, all as they were packed')
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
    shards = parser.add_argument_group('shards (files of WebDataset, see docs/shards.md)')
    shards.add_argument('--shards', action='store_true',
                        help='write shards, which a bucket may hold, instead of one file')
    shards.add_argument('--encoding', choices=('keep', 'jpeg', 'png', 'raw'),
                        help='how tiles are stored: files as they are (default), or encoded; tiles '
                             'that are no files of their own, or of another --size, are png by '
                             'default')
    shards.add_argument('--shard-mb', type=checked(Positive), default=256, metavar='MB',
                        help='size of a shard (default %(default)s)')
    shards.add_argument('--keep-order', action='store_true',
                        help='pack tiles in the order of the source, not in random order')
    parser.add_argument('--skip-corrupt', action='store_true',
                        help='leave unreadable tiles out')
    parser.add_argument('--no-labels', action='store_true',
                        help='take no labels from the names of the folders')


def packed(args: argparse.Namespace, source: 'Source', on_progress: Callable[[int], None]
           ) -> 'PackedTiles | Shards':
    """Pack a source as the arguments say."""
    from ..datasets import pack, write_shards
    if not args.shards:
        if args.encoding or args.keep_order:
            raise UserError('--encoding and --keep-order are for shards', expected='--shards')
        return pack(source, args.out, args.size, args.skip_corrupt, on_progress)
    return write_shards(source, args.out, args.encoding, args.size, args.shard_mb,
                        not args.keep_order, args.skip_corrupt, on_progress)


def main(args: argparse.Namespace) -> int:
    """Pack, verify or both; return the exit status."""
    from ..datasets.packed import INDEX
    if args.out is None:
        if not args.verify:
            raise UserError('OUT is missing')
        return verify(args.target)
    source = source_of(args.target, labels=not args.no_labels)
    if source.fault:
        print(f'packed without labels: {source.fault}', file=sys.stderr)
    store = with_progress('packing', len(source), lambda report: packed(args, source, report))
    print(f'{args.out}: {described(store)}')
    if left_out := len(source) - len(store):
        print(f"{left_out} unreadable tiles were left out; {Path(args.out) / INDEX} lists them "
              "as 'skipped'")
    return verify(args.out) if args.verify else 0
