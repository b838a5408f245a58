"""Write the features of tiles into one file, with their paths and labels.

Example:
    openselfsup extract demo/plm_r18 work_dirs/demo/latest.pth --out features.npz
    openselfsup extract CONFIG CKPT --out val.h5 --data CRC-VAL-HE-7K --size 224
    torchrun --nproc_per_node=4 -m openselfsup extract CONFIG CKPT --out features.npz

The tiles are those of the config, or of --data; the backbone and the normalisation are those of
the config. The file holds features (N, D) float32, paths, and labels and classes where there are.
With --layer-ind it holds feat1 ... feat5 in their place: the maps of those stages, pooled. With
--work_dir they go to DIR/features/*.npy, as published.

With --format safetensors it is the backbone that is written, as timm reads it, with a model card:
    openselfsup extract CONFIG CKPT --format safetensors --out FOLDER
"""

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..files import check_folder
from ..values import LAUNCHERS, Count
from .arguments import add_amp, add_config_arguments, checked

if TYPE_CHECKING:
    from torch import nn

    from ..datasets.sources import Source

    Sized = tuple[Source, int, dict[str, slice]]  # tiles, side of the input, parts by name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup extract``."""
    add_config_arguments(parser)
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument('checkpoint', nargs='?',
                         help='weights of the backbone, of any kind we can read')
    parser.add_argument('--out', type=Path, help='the .npz or .h5 to write')
    parser.add_argument('--format', choices=('features', 'safetensors'), default='features',
                        help="what to write: features, or the backbone itself in timm's names")
    parser.add_argument('--data',
                        help='folder of tiles (or a PCam _x.h5) in place of the config\'s')
    parser.add_argument('--size', type=checked(Count),
                        help='side of the input (default: that of the views)')
    parser.add_argument('--batch-size', type=checked(Count), default=64)
    parser.add_argument('--device', help='default: a GPU if there is one')
    add_amp(parser, 'precision (default: %(default)s)', 'off')
    parser.add_argument('--launcher', choices=LAUNCHERS,
                        help='how processes were started (default: found out)')
    weights.add_argument('--checkpoint', dest='weights', metavar='CKPT',
                         help='published: the same as CKPT')
    weights.add_argument('--pretrained', metavar='CKPT', help='published: CKPT, or random')
    add = parser.add_argument_group('published flags').add_argument
    add('--layer-ind', type=_stages, default=(), metavar='0,1,2,3,4',
        help='stages whose pooled maps to write, 0 is the stem')
    add('--dataset-config', metavar='PY', help='published config of the tiles and their splits')
    add('--work_dir', type=Path, metavar='DIR', help='where features/*.npy go')
    add('--port', type=checked(Count), help='where the processes of --launcher slurm meet')
    add('--local-rank', '--local_rank', type=int, help=argparse.SUPPRESS)


def main(args: argparse.Namespace) -> None:
    """Extract, write and say how much was written."""
    if (args.out is None) == (args.work_dir is None):
        raise UserError('nothing says where features go' if args.out is None else
                        'two places are named', where='--out, --work_dir', expected='one of both')
    if args.format == 'safetensors':
        _export(args)
        return
    if args.out is not None and args.out.suffix not in ('.npz', '.h5'):
        raise UserError(f"'{args.out.suffix}' is no format of ours", where='--out',
                        expected='a file ending in .npz or .h5')
    folder = args.work_dir / 'features' if args.out is None else args.out.parent
    check_folder(folder)
    from ..lineage.configs import load_config
    from ..training import launch
    cfg = load_config(args.config, args.cfg_options)
    try:
        launch.use_port(args.launcher, args.port)
        where = launch.start(args.launcher)
        _extract(args, cfg, _tiles(args, cfg), folder, args.device or str(where.device))
    finally:
        launch.stop()


def _extract(args: argparse.Namespace, cfg: Any, tiles: 'Sized', folder: Path,
             device: str) -> None:
    """Extract in this process what is its part; rank 0 writes all."""
    import torch

    from ..claims import claimed
    from ..distributed import is_main
    from ..engine.work_dir import on_main
    from ..evaluation.extract import (
        extract_source,
        inputs_of,
        refuse_other_features,
        write_features,
    )
    from ..lineage.extraction import refuse_other_splits, write_splits
    from ..training.precision import resolve
    source, size, splits = tiles
    backbone = backbone_of(cfg, args.checkpoint or args.weights or args.pretrained)
    settings = (cfg.normalize['mean'], cfg.normalize['std'],
                resolve(args.amp, torch.device(device), '--amp'))
    inputs = inputs_of(backbone, source, size, *settings, args.layer_ind)
    with contextlib.ExitStack() as stack:
        name = '.in_use' if args.out is None else f'.{args.out.name}.in_use'
        on_main(lambda: stack.enter_context(claimed(folder, 'extracting features', name)),
                share=False)
        on_main(lambda: refuse_other_splits(folder, inputs) if args.out is None
                else refuse_other_features(args.out, inputs))
        found = extract_source(backbone.to(device), source, size, args.batch_size, *settings,
                               folder, args.layer_ind)
        if not is_main() or found is None:
            return
        if args.out is None:
            write_splits(folder, found, splits, inputs)
        else:
            write_features(args.out, found, source, inputs)
    widths = ', '.join(str(values.shape[1]) for values in found.values())
    print(f'{len(source)} tiles x {widths} features: {args.out or folder}')


def _export(args: argparse.Namespace) -> None:
    """Write the backbone as timm reads it."""
    if args.out is None or args.out.suffix:
        raise UserError('a backbone is written into a folder', where='--out',
                        expected='a folder, such as --out my_backbone')
    check_folder(args.out)
    from ..lineage.configs import load_config
    from ..models.exporting import export_to_timm
    cfg = load_config(args.config, args.cfg_options)
    weights = args.checkpoint or args.weights or args.pretrained
    backbone = backbone_of(cfg, weights)
    print(export_to_timm(backbone, config_of(cfg), args.out,
                         list(cfg.normalize['mean']), list(cfg.normalize['std']),
                         f'The method is {cfg.model.type}.'))


def config_of(cfg: Any) -> dict[str, Any]:
    """Return the config of the backbone, which a user's own method may call otherwise.

    Raises:
        UserError: nothing in the config describes it.
    """
    from ..checkpoints import describe_backbone
    from ..registry import ALGORITHMS
    if 'backbone' in cfg.model:
        return cfg.model.backbone.to_dict()
    found = describe_backbone(ALGORITHMS.build(cfg.model), cfg.to_dict())['config']
    if found is None:
        raise UserError(f'nothing here describes the backbone of {cfg.model.type}', where='model',
                        expected="model.backbone, or one part that has its class as 'type'")
    return found


def backbone_of(cfg: Any, weights: str) -> 'nn.Module':
    """Return the backbone of a config with weights, or as it starts for 'random'."""
    from ..checkpoints import load_backbone_weights
    from ..distributed import is_main
    from ..engine.building import tell_feature
    from ..registry import BACKBONES
    from ..training.normalization import wants_another
    tell_feature(cfg)
    backbone = BACKBONES.build(config_of(cfg))
    said = ('random weights' if weights == 'random'
            else str(load_backbone_weights(backbone, weights)))
    if is_main():
        print(said)
        if weights != 'random' and (told := wants_another(weights, **cfg.normalize)):
            print(f'WARNING: {told}')
    return backbone


def _tiles(args: argparse.Namespace, cfg: Any) -> 'Sized':
    """Return the tiles that are meant, the side of the input and the parts they are split into."""
    from ..datasets.recipes import view_recipes
    from ..lineage.extraction import read_dataset_config
    from ..registry import SOURCES
    _, recipe = next(iter(view_recipes(cfg.dataset.recipe).values()))
    if args.dataset_config:
        if args.data:
            raise UserError('two things say which tiles', where='--data, --dataset-config',
                            expected='one of both')
        source, size, splits = read_dataset_config(args.dataset_config)
        return source, args.size or size or recipe['size'], splits
    if args.data and Path(args.data).suffix == '.h5':
        described = dict(type='PCam', x=args.data)
    else:
        described = dict(type='ImageFolder', root=args.data) if args.data else cfg.dataset.source
    return SOURCES.build(described), args.size or recipe['size'], {'tiles': slice(None)}


def _stages(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(',')))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers such as 0,1,2,3,4, not '{text}'"
                                         ) from None
