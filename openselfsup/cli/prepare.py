"""Official archives and folders of public datasets to what we train on.

Example:
    openselfsup prepare glas WARWICK_QU datasets          # datasets/GlaS/...
    openselfsup prepare glas SYNTHETIC datasets --demo    # drawn glands, no download
    openselfsup prepare glas datasets --check

SRC, a folder or an archive (.zip, .tar.gz), is only read. An interrupted run goes on when it
is started again. Status 1: files were left out or are wrong; they are listed.
"""

import argparse
import importlib
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import UserError
from ..values import BelowOne, Count, Fraction, Positive, Seed
from .arguments import checked

if TYPE_CHECKING:
    from ..datasets.prepare.report import Report

MASKS = ('--masks', dict(choices=('rle', 'polygon'), default='rle',
                         help='form of the masks; polygons lose holes'))
VAL = ('--val', dict(type=checked(BelowOne), default=0.2, metavar='SHARE', help='share held out'))
SEED = ('--seed', dict(type=checked(Seed), default=0, help='of the split'))


class Kind(NamedTuple):
    """A dataset: the functions of
    ``datasets/prepare`` that prepare and check it, where below DST it lies, its options."""

    what: str
    prepare: str
    check: str
    folder: str
    options: tuple = ()


KINDS = {
    'glas': Kind('GlaS (Warwick-QU) glands to COCO', 'glands.prepare_glas', 'check.check_coco',
                 'GlaS', (MASKS,)),
    'crag': Kind('CRAG glands to COCO', 'glands.prepare_crag', 'check.check_coco', 'CRAG',
                 (MASKS,)),
    'monuseg': Kind('MoNuSeg nuclei to COCO', 'nuclei.prepare_monuseg', 'check.check_coco',
                    'MoNuSeg', (MASKS, VAL)),
    'bcss': Kind('BCSS regions to tiles with masks, split by site', 'bcss.prepare_bcss',
                 'check.check_semantic', 'BCSS', (
                     ('--tile', dict(type=checked(Count), default=512, help='side in pixels')),
                     ('--mpp', dict(type=checked(Positive), default=0.25, help='µm per pixel')),
                     ('--all-classes', dict(dest='merge', action='store_false',
                                            help='twenty classes instead of five')))),
    'nct-crc': Kind('NCT-CRC-HE: lists', 'tiles.prepare_nct', 'check.check_lists', '', (
        ('--class-order', dict(choices=('alphabetical', 'plm'), default='alphabetical')), SEED)),
    'pcam': Kind('PCam HDF5 to PNG and lists', 'tiles.prepare_pcam', 'check.check_lists', ''),
    'kather2016': Kind('Kather et al. 2016: lists', 'tiles.prepare_kather', 'check.check_lists', '',
                       (VAL, SEED)),
    'folder': Kind('any folder of tiles: lists', 'tiles.prepare_folder', 'check.check_lists', '',
                   (VAL, SEED)),
    'slides': Kind('whole slides to tiles', 'slides.prepare_slides', 'check.check_slides', '', (
        ('--mpp', dict(type=checked(Positive), default=0.5, help='µm per pixel of the tiles')),
        ('--size', dict(type=checked(Count), default=224, help='side of the tiles in pixels')),
        ('--min-tissue', dict(type=checked(Fraction), default=0.5, metavar='SHARE')),
        ('--source-mpp', dict(type=checked(Positive), help='of slides that do not tell theirs')))),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup prepare``."""
    kinds = parser.add_subparsers(dest='kind', required=True, metavar='KIND')
    for name, kind in KINDS.items():
        own = kinds.add_parser(name, help=kind.what, description=kind.what)
        own.add_argument('src', help='folder or archive to read (with --check: DST)')
        own.add_argument('dst', nargs='?', help='folder to write into')
        own.add_argument('--check', action='store_true', help='check what was prepared before')
        for flag, settings in kind.options:
            own.add_argument(flag, **settings)
        if name == 'glas':
            own.add_argument('--demo', action='store_true',
                             help='first draw synthetic glands into SRC, which must be empty')
            own.add_argument('--demo-count', type=checked(Count), nargs=3, default=(40, 12, 8),
                             metavar=('TRAIN', 'TESTA', 'TESTB'))
            own.add_argument('--demo-size', type=checked(Count), default=160, help='side in pixels')


def function(name: str) -> Callable:
    """Import a function of ``datasets/prepare`` by ``module.name``."""
    module, _, name = name.partition('.')
    return getattr(importlib.import_module(f'..datasets.prepare.{module}', __package__), name)


def check_data(args: argparse.Namespace) -> 'Report':
    """Check the folder that was given, or the dataset's folder in it."""
    from ..datasets.prepare.report import Report
    kind, folder = KINDS[args.kind], Path(args.dst or args.src)
    inside = folder / kind.folder
    report = Report(f'{args.kind}: checked')
    function(kind.check)(inside if inside.is_dir() else folder, report)
    return report


def prepared(args: argparse.Namespace) -> 'Report':
    """Prepare SRC into DST."""
    from ..claims import claimed
    from ..datasets.prepare.report import Report
    from ..datasets.sources import stamp_of
    kind, src = KINDS[args.kind], Path(args.src)
    if args.dst is None:
        raise UserError('where to write is missing', where='DST')
    dst = Path(args.dst)
    made = dst / kind.folder
    if made.resolve().is_relative_to(src.resolve()):
        raise UserError('this is where the prepared data go, and it lies in SRC, which must not '
                        'be touched', where=str(made), expected='another DST')
    if getattr(args, 'demo', False):
        from ..datasets.prepare import synthetic
        synthetic.write_glas_layout(src, tuple(args.demo_count), args.demo_size)
    if not src.exists():
        raise UserError('no such file or folder', where=str(src))
    report = Report(kind.folder or args.kind)
    options = {flag_settings[1].get('dest', flag_settings[0].strip('-').replace('-', '_'))
               for flag_settings in kind.options}
    # Two archives that are prepared into one DST must not meet in one folder.
    scratch = dst / f'.unpacked-{args.kind}-{zlib.crc32(repr(stamp_of(src)).encode()):08x}'
    keep = args.kind in ('nct-crc', 'kather2016', 'folder')
    with claimed(made, 'preparing data'):
        if keep and _is_archive(src):
            _refuse_other_archives(src, dst, several=args.kind == 'nct-crc')
        source = unpacked(src, dst / 'images' if keep else scratch, keep)
        prepare = function(kind.prepare)
        prepare(source, dst, report, **{name: getattr(args, name) for name in options})
        for folder in (scratch, dst / '.unpacked'):
            shutil.rmtree(folder, ignore_errors=True)
    return report


def _is_archive(src: Path) -> bool:
    from ..archives import ARCHIVES
    return src.is_file() and src.name.lower().endswith(ARCHIVES)


def _refuse_other_archives(src: Path, dst: Path, several: bool) -> None:
    """Raise UserError where ``dst/images`` holds what another archive was unpacked to.

    Args:
        src: the archive.
        dst: where it is prepared.
        several: whether it has a folder of its own in there, as those of NCT-CRC-HE have.
    """
    from ..datasets.prepare import tiles
    from ..datasets.prepare.resuming import go_on_with
    note = dst / 'options_images.json'
    if not (dst / 'images').exists():  # nothing came of what was noted
        note.unlink(missing_ok=True)
    go_on_with(note, {} if several else dict(archive=src.name), src.parent,
               [] if src.name in tiles.NCT_MD5 else [src])  # those are known by their MD5


def unpacked(src: Path, folder: Path, keep: bool) -> Path:
    """Return ``src``, unpacked where it is an archive or a folder that holds known archives.

    Args:
        src: archive or folder.
        folder: where to unpack.
        keep: whether it stays there: the lists refer to it.
    """
    from ..archives import unpack
    from ..datasets.prepare import tiles
    if _is_archive(src):
        return unpack(src, folder, tiles.NCT_MD5.get(src.name))
    known = [src / name for name in tiles.NCT_MD5 if keep and (src / name).is_file()]
    if any((src / name).is_dir() for name in tiles.NCT_COUNTS):
        return src  # unpacked already
    for archive in known:
        unpack(archive, folder, tiles.NCT_MD5[archive.name])
    return folder if known else src


def main(args: argparse.Namespace) -> int:
    """Prepare or check; return 1 where files were left out or are wrong."""
    report = check_data(args) if args.check else prepared(args)
    print(report)
    return 1 if report.problems else 0
