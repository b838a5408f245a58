"""Write the features of slides: one HDF5 file of each, as TRIDENT and CLAM lay them out.

Example:
    openselfsup slides embed CONFIG work_dirs/mine/latest.pth /data/slides --out features
    openselfsup slides embed CONFIG backbone.pth '/data/*.svs' --mpp 1.0 --size 224 --out features

The backbone and the normalisation are those of the config. Each file holds features (N, D) and
coords (N, 2), the upper left corners of tiles in pixels of the base level, whose attributes tell
size and magnification. A slide that is done is not read again, so a killed command goes on.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, listed
from ..values import Count, Part, Positive
from .arguments import add_amp, add_config_arguments, checked

if TYPE_CHECKING:
    from ..datasets import Slides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup slides embed``."""
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='weights of the backbone, of any kind we can read')
    parser.add_argument('slides', help='a folder, a slide, or a glob')
    parser.add_argument('--out', '-o', type=Path, required=True, help='folder of the files')
    parser.add_argument('--mpp', type=checked(Positive), default=0.5,
                        help='micrometres per pixel (default: %(default)s)')
    parser.add_argument('--size', type=checked(Count), default=224,
                        help='side of a tile in pixels (default: %(default)s)')
    parser.add_argument('--min-share', type=checked(Part), default=0.5,
                        help='share of a tile that has to be tissue (default: %(default)s)')
    parser.add_argument('--table', help='CSV with columns slide and mpp, of slides whose files do '
                                        'not tell it or are wrong; only those it names are read')
    parser.add_argument('--masks', help='folder of the tissue masks (default: below ~/.cache)')
    parser.add_argument('--batch-size', type=checked(Count), default=64)
    parser.add_argument('--device', help='default: a GPU if there is one')
    add_amp(parser, 'precision (default: %(default)s)', 'off')


def main(args: argparse.Namespace) -> None:
    """Embed the slides and say how many tiles there are."""
    import torch

    from ..claims import claimed
    from ..datasets import Slides
    from ..evaluation.slide_features import embed_slide
    from ..files import check_folder
    from ..lineage.configs import load_config
    from ..progress import progress
    from ..training.precision import resolve
    from .extract import backbone_of
    check_folder(args.out)
    cfg: Any = load_config(args.config, args.cfg_options)
    slides = Slides(args.slides, mpp=args.mpp, size=args.size, table=args.table,
                    masks=args.masks)
    files = files_of(slides, args.out)
    device = torch.device(args.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    settings = (cfg.normalize['mean'], cfg.normalize['std'], resolve(args.amp, device, '--amp'))
    backbone = backbone_of(cfg, args.checkpoint).to(device)
    counts: list[int] = []
    wrong: list[UserError] = [*slides.left_out]  # of one slide, which keeps nobody from the others
    with claimed(args.out, 'embedding slides'):
        for number, file in enumerate(progress(files, 'slides')):
            try:
                counts.append(embed_slide(backbone, slides, number, args.min_share,
                                          args.batch_size, *settings, file))
            except UserError as error:
                wrong.append(error)
    noun = 'slide' if len(counts) == 1 else 'slides'
    print(f'{sum(counts):,} tiles of {len(counts)} {noun}: {args.out}')
    if wrong:
        asked = len(files) + len(slides.left_out)
        raise UserError(listed(f'{len(wrong)} of {asked} slides were not embedded', wrong))


def files_of(slides: 'Slides', out: Path) -> list[Path]:
    """Return the file of each slide.

    Raises:
        UserError: two slides have one name.
    """
    found: dict[str, str] = {}
    twice = []
    for name, path in zip(slides.names, slides.files()):
        if name in found:
            twice.append(f'{found[name]} and {path}')
        found[name] = path
    if twice:
        raise UserError(listed('slides of one name would share a file', twice),
                        expected='one folder of slides at a time')
    return [out / f'{name}.h5' for name in found]
