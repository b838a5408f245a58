"""Draw what a config shows the model: views, where they lie on the tile, matched cells.

Example:
    openselfsup browse demo/plm_r18 --out views --n 32
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..values import Count
from .arguments import add_config_arguments, checked

if TYPE_CHECKING:
    from ..datasets import TileDataset
    from ..engine.config import Config

VIEWS_PER_SHEET, MATCHES_PER_SHEET = 16, 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup browse``."""
    add_config_arguments(parser)
    parser.add_argument('--out', type=Path, default=Path('views'),
                        help='folder for the sheets (default: %(default)s)')
    parser.add_argument('--n', type=checked(Count), default=16,
                        help='tiles to draw (default: %(default)s)')


def main(args: argparse.Namespace) -> None:
    """Draw the sheets and print their paths."""
    from ..claims import claimed
    from ..datasets.loader import ViewLoader
    from ..engine.placing import placed
    from ..files import check_folder
    from ..lineage.configs import load_config
    from ..registry import DATASETS
    check_folder(args.out)
    cfg = load_config(args.config, args.cfg_options)
    with placed(cfg):
        dataset = DATASETS.build(cfg.dataset)
    loader = ViewLoader(dataset, min(args.n, len(dataset)), cfg.seed, workers=0,
                        pin_memory=False)
    batch = next(iter(loader))
    with claimed(args.out, 'drawing views'):
        for kind in ('views', 'matches'):  # fewer sheets would leave some of another config
            for old in args.out.glob(f'{kind}_[0-9][0-9].png'):
                old.unlink()
        draw(cfg, dataset, batch, args.out)


def draw(cfg: 'Config', dataset: 'TileDataset', batch: dict, out: Path) -> None:
    """Draw the sheets of views, and of matches where the method matches."""
    from ..engine.placing import placed
    from ..models.method import check_method
    from ..registry import ALGORITHMS
    from ..visualization import cell_grid, match_sheet, match_views, view_sheet

    for number, part in enumerate(chunks(len(batch['index']), VIEWS_PER_SHEET), 1):
        print(view_sheet(take(batch, part), out / f'views_{number:02d}.png',
                         source=dataset.source, names=dataset.view_names))
    if len(batch['views']) < 2:
        return
    with placed(cfg):
        method = ALGORITHMS.build(cfg.model)  # its settings may say whether it matches cells
    check_method(method)
    if not method.needs_geometry:
        return
    if batch['view_to_tile'] is None:
        raise UserError('there is nothing to match: these steps distort the views',
                        where='dataset.recipe', expected='steps of a known geometry')
    grid, key_grid = (cell_grid(method.backbone, view.shape[-2:]) for view in batch['views'][:2])
    matching = match_views(batch, grid, dataset.geometry, key_grid)
    for number, part in enumerate(chunks(len(batch['index']), MATCHES_PER_SHEET), 1):
        print(match_sheet(batch, matching, out / f'matches_{number:02d}.png',
                          source=dataset.source, grid=grid, key_grid=key_grid,
                          samples=list(part)))


def chunks(count: int, size: int) -> list[range]:
    """Return the positions 0 to ``count`` in parts of ``size``."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def take(batch: dict, samples: range) -> dict:
    """Return some samples of a batch."""
    rows = slice(samples.start, samples.stop)
    maps = batch['view_to_tile']
    return dict(views=[view[rows] for view in batch['views']], index=batch['index'][rows],
                view_to_tile=None if maps is None else maps[rows])
