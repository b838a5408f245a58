"""Draw slides: where their tissue is found, and tiles that a run would read.

Example:
    openselfsup slides browse mine.py --out slides
    openselfsup slides browse /data/slides --mpp 0.5 --size 224

Open index.html in the folder of --out. The masks that are made are those that training uses.
"""

import argparse
import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError, located
from ..values import Count, Positive
from .arguments import add_overrides, checked

if TYPE_CHECKING:
    from ..datasets import Slides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup slides browse``."""
    parser.add_argument('target', metavar='CONFIG_OR_SLIDES',
                        help='a config with Slides as its source, or a folder, a slide, a glob')
    parser.add_argument('--out', type=Path, default=Path('slides'),
                        help='folder for the page (default: %(default)s)')
    parser.add_argument('--slides', type=checked(Count), default=100,
                        help='slides to draw at most (default: %(default)s)')
    parser.add_argument('--tiles', type=checked(Count), default=8,
                        help='tiles of each (default: %(default)s)')
    parser.add_argument('--mpp', type=checked(Positive),
                        help='micrometres per pixel, for slides without a config (default: 0.5)')
    parser.add_argument('--size', type=checked(Count),
                        help='side of a tile, for slides without a config (default: 224)')
    add_overrides(parser, 'override single fields of the config, e.g. dataset.source.mpp=1.0')


def main(args: argparse.Namespace) -> None:
    """Draw the page and print its path."""
    from ..claims import claimed
    from ..files import check_folder
    from ..visualization.slide_page import write_slide_page
    check_folder(args.out)
    source = slides_of(args)
    with claimed(args.out, 'drawing slides'):
        print(write_slide_page(source, args.out, args.slides, args.tiles))


def slides_of(args: argparse.Namespace) -> 'Slides':
    """Return the slides that a config or a path names.

    Raises:
        UserError: the config's tiles come from elsewhere, or arguments do not go together.
    """
    from ..datasets import Slides, build_source
    from ..lineage.configs import load_config
    from ..shipped import find_config, is_config
    given = {name: value for name in ('mpp', 'size')
             if (value := getattr(args, name)) is not None}
    if not is_config(args.target) and (os.path.exists(args.target) or glob.has_magic(args.target)):
        if args.cfg_options:
            raise UserError('these are slides, not a config', where='--cfg-options',
                            expected='--mpp and --size')
        return Slides(args.target, **given)
    try:
        find_config(args.target)
    except UserError as error:
        raise UserError('no such config, slide, folder or pattern', where=located(args.target),
                        nearest=error.nearest) from None
    config = load_config(args.target, args.cfg_options)
    if given:
        raise UserError('a config tells it', where=', '.join(f'--{name}' for name in given),
                        expected='--cfg-options dataset.source.mpp=... dataset.source.size=...')
    source = build_source(config.dataset['source']) \
        if config.dataset['source']['type'] == 'Slides' else None
    if not isinstance(source, Slides):
        raise UserError(f"its tiles come from {config.dataset['source']['type']}",
                        where='dataset.source', expected="dict(type='Slides', root=...)")
    return source
