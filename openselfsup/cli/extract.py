"""Write the features of tiles into one file, with their paths and labels.

Example:
    openselfsup extract demo/plm_r18 work_dirs/demo/latest.pth --out features.npz
    openselfsup extract CONFIG CKPT --out val.h5 --data CRC-VAL-HE-7K --size 224

The tiles are those of the config, or of --data; the backbone and the normalisation are those of
the config. The file holds features (N, D) float32, paths, and labels and classes where there are.
"""

import argparse
from pathlib import Path

from ..errors import UserError
from ..files import check_folder
from ..values import Count
from .arguments import add_amp, add_config_arguments, checked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup extract``."""
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='weights of the backbone, of any kind we can read')
    parser.add_argument('--out', type=Path, required=True, help='the .npz or .h5 to write')
    parser.add_argument('--data',
                        help='folder of tiles (or a PCam _x.h5) in place of the config\'s')
    parser.add_argument('--size', type=checked(Count),
                        help='side of the input (default: that of the views)')
    parser.add_argument('--batch-size', type=checked(Count), default=64)
    parser.add_argument('--device', help='default: a GPU if there is one')
    add_amp(parser, 'precision (default: %(default)s)', 'off')


def main(args: argparse.Namespace) -> None:
    """Extract, write and say how much was written."""
    if args.out.suffix not in ('.npz', '.h5'):
        raise UserError(f"'{args.out.suffix}' is no format of ours", where='--out',
                        expected='a file ending in .npz or .h5')
    check_folder(args.out.parent)
    import torch

    from ..checkpoints import load_backbone_weights
    from ..claims import claimed
    from ..datasets.recipes import view_recipes
    from ..evaluation.extract import (
        extract_source,
        inputs_of,
        refuse_other_features,
        write_features,
    )
    from ..lineage.configs import load_config
    from ..registry import BACKBONES, SOURCES
    from ..training.precision import resolve
    cfg = load_config(args.config, args.cfg_options)
    backbone = BACKBONES.build(cfg.model.backbone)
    print(load_backbone_weights(backbone, args.checkpoint))
    if args.data and Path(args.data).suffix == '.h5':
        described = dict(type='PCam', x=args.data)
    else:
        described = dict(type='ImageFolder', root=args.data) if args.data else cfg.dataset.source
    source = SOURCES.build(described)
    _, recipe = next(iter(view_recipes(cfg.dataset.recipe).values()))
    size = args.size or recipe['size']
    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    settings = (size, cfg.normalize['mean'], cfg.normalize['std'],
                resolve(args.amp, torch.device(device), '--amp'))
    inputs = inputs_of(backbone, source, *settings)
    with claimed(args.out.parent, 'extracting features', f'.{args.out.name}.in_use'):
        refuse_other_features(args.out, inputs)
        features = extract_source(backbone.to(device), source, size, args.batch_size, *settings[1:])
        write_features(args.out, features, source, inputs)
    print(f'{len(features)} tiles x {features.shape[1]} features: {args.out}')
