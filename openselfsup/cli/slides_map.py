"""Draw what features tell apart on slides, and where a region has its like.

Example:
    openselfsup slides map features /data/slides --out maps
    openselfsup slides map features /data/slides --out maps --like a.svs#xywh=12000,8000,900,900

The features are those that slides embed wrote. Open index.html in the folder of --out. The first
three principal components of all tiles are red, green and blue, so a colour means the same on each
slide. With --like, each slide also shows how similar its tiles are to those of a region, and the
most similar ones.
"""

import argparse
from pathlib import Path

from ..errors import UserError, listed, located


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup slides map``."""
    parser.add_argument('features', type=Path,
                        help='a folder of files that slides embed wrote, or one')
    parser.add_argument('slides', help='the slides: a folder, a slide, or a glob')
    parser.add_argument('--out', '-o', type=Path, default=Path('maps'),
                        help='folder for the page (default: %(default)s)')
    parser.add_argument('--like', metavar='SLIDE#xywh=LEFT,TOP,WIDTH,HEIGHT',
                        help='a region to find the like of, in pixels of the base level')


def main(args: argparse.Namespace) -> None:
    """Draw the page and print its path."""
    from ..claims import claimed
    from ..datasets.slides import find_slides, slide_names
    from ..evaluation.slide_features import open_slide_of
    from ..files import check_folder
    from ..visualization.slide_maps import place_of, write_slide_maps
    check_folder(args.out)
    files = [args.features] if args.features.is_file() else sorted(args.features.glob('*.h5'))
    if not files:
        raise UserError('there are no features of slides', where=located(args.features),
                        expected='the folder that openselfsup slides embed wrote')
    found = find_slides(args.slides)
    paths: dict[str, list[str]] = {}
    for name, path in zip(slide_names(found), found):
        paths.setdefault(name, []).append(path)
    for what, wrong in (('no slide is', lambda count: not count),
                        ('several slides are', lambda count: count > 1)):
        if those := [file for file in files if wrong(len(paths.get(file.stem, ())))]:
            raise UserError(listed(f'{what} called as these features are', those),
                            where=located(args.slides))
    slides = [open_slide_of(file, paths[file.stem][0]) for file in files]
    like = args.like and place_of(args.like, [slide.path for slide in slides],
                                  [file.stem for file in files])
    with claimed(args.out, 'drawing maps of slides'):
        print(write_slide_maps(files, slides, args.out, like))
