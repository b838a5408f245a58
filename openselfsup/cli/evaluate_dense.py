"""Arguments and steps of ``openselfsup evaluate --dense``."""

import argparse
from pathlib import Path

from ..errors import UserError
from ..values import Count, Positive
from .arguments import checked

_FLAGS = ('train_masks', 'test_masks', 'instances', 'dense_layers', 'dense_scale', 'dense_patches')
#: Flags of classification that --dense has no use for, with their defaults.
_OTHERS = dict(dataset_path=None, only_fine_tuning=False, only_linear_eval=False, debug=False,
               fp16=False, labeled_train=[0.01], image_size=224, paper_compat=False,
               knn_k=20, knn_temperature=0.07, head_lr=[1.0, 10.0, 100.0], ft_epoch=100,
               lr=0.01, work_dir=None,
               eval_metrics='accuracy,f1,precision,recall')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the dense evaluation."""
    add = parser.add_argument_group('patches of images with masks').add_argument
    add('--dense', action='store_true', help='classify the pixels of --train and --test, folders '
        'of images, by the patches of frozen feature maps: dense-linear-v2, dense-knn-v1')
    add('--train_masks', metavar='MASKS', help='masks of --train, of the same names; may end in '
        '_anno, _mask, ..., also in the folder of the images')
    add('--test_masks', metavar='MASKS', help='masks of --test')
    add('--instances', action='store_true',
        help='masks hold 0 and ids of objects: all objects are foreground')
    add('--dense_layers', nargs='+', metavar='LAYERS', help='feature maps laid over each other: '
        'last2 (default), all, or numbers such as 3 or 3+4; several make several rows')
    add('--dense_scale', type=checked(Positive), nargs='+', metavar='SCALE',
        help='enlarge images so that patches are finer (default 1)')
    add('--dense_patches', type=checked(Count), metavar='N',
        help='training patches at most (default 20000)')


def refuse(args: argparse.Namespace) -> None:
    """Refuse dense flags without --dense.

    Raises:
        UserError: some are given.
    """
    given = [f'--{name}' for name in _FLAGS if getattr(args, name)]
    if given:
        raise UserError(f'{", ".join(given)} without --dense', expected='--dense beside it')


def normalization(args: argparse.Namespace
                  ) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the mean and std that are given, None if they are not.

    Raises:
        UserError: one of both is given.
    """
    if (args.mean is None) != (args.std is None):
        raise UserError('one of both is given', where='--mean, --std',
                        expected='three numbers each, or neither')
    return None if args.mean is None else (tuple(args.mean), tuple(args.std))


def evaluate(args: argparse.Namespace, device: str, out: Path) -> None:
    """Evaluate patches, print the table and write the page.

    Args:
        args: of ``openselfsup evaluate``.
        device: where networks run.
        out: folder of the results.

    Raises:
        UserError: flags that have no use here, and see
            :class:`~openselfsup.evaluation.dense.evaluate.DenseEvaluation`.
    """
    import torch

    from ..evaluation.dense.data import find_dense_data
    from ..evaluation.dense.evaluate import DenseEvaluation, DenseSettings
    from ..evaluation.dense.measure import PATCHES
    from ..evaluation.dense.table import dense_table
    from ..evaluation.settings import DENSE_PROTOCOLS
    from ..files import check_folder
    from ..training.logs import build_logger
    from ..training.precision import resolve
    from ..visualization.dense_page import write_dense_page

    unused = [f'--{name}' for name, usual in _OTHERS.items() if getattr(args, name) != usual]
    if unused:
        raise UserError(f'{", ".join(unused)} has no use with --dense', where='--dense',
                        expected='images with masks, see openselfsup evaluate --help')
    build_logger()
    settings = DenseSettings(
        out, args.model_name, args.model_path, tuple(args.protocols or DENSE_PROTOCOLS),
        tuple(args.dense_layers or ('last2',)), tuple(map(float, args.dense_scale or (1,))),
        args.dense_patches or PATCHES, tuple(args.seeds or [args.seed]), torch.device(device),
        resolve(args.amp or 'off', torch.device(device), '--amp'), args.imagenet,
        resizing=args.resizing, normalize=normalization(args), rename_out=args.out is None)
    settings.check()  # before the masks are read, which can take minutes
    check_folder(out)
    data = find_dense_data(args.train, args.train_masks, args.test, args.test_masks,
                           args.holdout, args.instances, args.patient_pattern,
                           args.allow_overlap)
    results = DenseEvaluation(settings, data).run()
    print(dense_table(results))
    print(f'report: {write_dense_page(settings.out)}')
