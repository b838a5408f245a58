"""PLM's ``semantic_seg/main_segmentation.py``: its flags, as a run of our semantic trainer."""

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..datasets.headers import SUFFIXES
from ..datasets.listing import files_in
from ..errors import UserError, located, nearest
from ..evaluation.baselines import imagenet_weights
from .commands import Command, typed

CONFIG = 'bcss_21_r18_unet_frozen'
CLASSES = 21  # of the config
#: Flags with a value, and their published defaults; '' for paths.
FLAGS: dict[str, Any] = {
    'arch': 'unet_r18', 'patch_size': 16, 'pretrained_weights': '', 'checkpoint_key': 'teacher',
    'resize_image_size': 256, 'low_scale_size': 0, 'num_classes': CLASSES, 'use_fp16': False,
    'weight_decay': 0.02, 'batch_size': 32, 'epochs': 20, 'lr': 5e-4, 'min_lr': 1e-6,
    'optimizer': 'adamw', 'accumulate_grad_batches': 1, 'data_path': '', 'output_dir': '',
    'project': 'test', 'tag': 'test_seg', 'gpu_id': '0', 'num_workers': 8, 'org_dino': True}
#: What nothing reads here, and why.
UNREAD = {
    'patch_size': 'it is of ViTs, which this script never builds',
    'org_dino': 'it is of ViTs, which this script never builds',
    'checkpoint_key': 'the kind of a checkpoint is found out',
    'min_lr': 'the rate falls to 0, in the published code too',
    'optimizer': 'AdamW trains, in the published code whatever this says',
    'project': 'curves go to train.log and index.html, not to wandb',
    'num_workers': 'two batches are read ahead'}
DIFFERS = ('differs from the published training: crops at the resolution of the tiles, turned and '
           'mirrored (published: the tile resized, crops of it, colours changed), cross-entropy '
           'and soft Dice (published: cross-entropy), a rate that changes in each iteration after '
           'a warm-up of 5 %; code 1, tumor, counts (published: left out as label 0)')


def translate(words: Sequence[str]) -> Command:
    """Return the run of ours that the published command line stands for.

    Args:
        words: behind ``main_segmentation.py``. Those that it does not know go to
            ``openselfsup segment semantic``.

    Raises:
        UserError: no data, no weights, values of another type, or what has no counterpart.
    """
    args, others = _parser().parse_known_args(words)
    given = {name: typed(name, text, default, f'--{name}') for name, default in FLAGS.items()
             if (text := getattr(args, name)) is not None}
    values = {**FLAGS, **given}
    _refuse(values)
    notes = [f'{name}: left out, {why}' for name, why in UNREAD.items()
             if values[name] != FLAGS[name]]
    folder = Path(values['data_path'])
    pairs = [(f'{ours}_{kind}s', folder / part / ('img' if kind == 'image' else kind))
             for ours, part in (('train', 'train'), ('test', 'val')) for kind in ('image', 'mask')]
    batch = values['batch_size'] * values['accumulate_grad_batches']
    tiles = len(files_in(pairs[0][1], SUFFIXES, deep=True))
    settings: dict[str, Any] = {
        **dict(pairs), 'iterations': max(values['epochs'] * math.ceil(tiles / batch), 1),
        'batch_size': batch, 'crop': values['resize_image_size'], 'lr': values['lr'],
        'weight_decay': values['weight_decay'], 'amp': 'fp16' if values['use_fp16'] else 'off',
        'backbone': _backbone(args.pretrained, values['pretrained_weights']),
        'out': Path(values['output_dir'] or 'work_dirs/semantic') / values['tag']}
    if values['num_classes'] != CLASSES:
        count = values['num_classes']
        settings['classes'] = [f'code {code + 1}' for code in range(count)]
        settings['codes'] = {0: 'ignore', **{code + 1: code for code in range(count)}}
    notes.append(DIFFERS)
    pairs_of_words = [word for name, value in settings.items() if value is not None
                      for word in (name, str(value))]
    return Command('segment semantic', [CONFIG, *others, *pairs_of_words], notes,
                   environment=_one_gpu(values['gpu_id']))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser('main_segmentation.py', description=__doc__,
                                     allow_abbrev=False)
    for name, default in FLAGS.items():
        parser.add_argument(f'--{name}', metavar='VALUE', help=f'default {default!r}')
    parser.add_argument('--pretrained', action='store_true', help='ImageNet weights')
    parser.add_argument('--debug', action='store_true', help='no effect: progress is always shown')
    return parser


def _refuse(values: dict[str, Any]) -> None:
    """Refuse what this script never trained, or what cannot be trained here."""
    if values['arch'] != FLAGS['arch']:
        raise UserError(f"arch is '{values['arch']}'", where='--arch', expected=FLAGS['arch'] +
                        ', the only one that the published script builds, too',
                        nearest=nearest(values['arch'], [FLAGS['arch']]))
    if values['low_scale_size']:
        raise UserError('no network here takes two scales', where='--low_scale_size', expected='0')
    if not values['data_path']:
        raise UserError('no data is named', where='--data_path',
                        expected='a folder of {train,val}/{img,mask}/*/*.png')
    if not values['gpu_id'].isdecimal():
        raise UserError(f"gpu_id is '{values['gpu_id']}'", where='--gpu_id',
                        expected='the number of one GPU')
    for name in ('epochs', 'batch_size', 'accumulate_grad_batches', 'num_classes'):
        if values[name] < 1:
            raise UserError(f'{name} is {values[name]}', where=f'--{name}', expected='at least 1')


def _one_gpu(number: str) -> dict[str, str]:
    """Return what shows a process one GPU: the one of this number among those that it sees."""
    seen = [gpu for gpu in os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',') if gpu]
    if not seen:
        return {} if number == '0' else {'CUDA_VISIBLE_DEVICES': number}
    if int(number) >= len(seen):
        raise UserError(f'CUDA_VISIBLE_DEVICES shows {len(seen)} GPUs', where='--gpu_id',
                        expected=f'a number below {len(seen)}')
    return {'CUDA_VISIBLE_DEVICES': seen[int(number)]}


def _backbone(imagenet: bool, weights: str) -> str | None:
    """Return the weights to start from, 'none' given for random ones."""
    if imagenet:
        found = imagenet_weights('resnet18')
        if found is None:
            raise UserError('torch\'s cache holds no ImageNet weights', where='--pretrained',
                            expected='--pretrained_weights FILE')
        return str(found)
    if not weights:
        raise UserError('no weights of the frozen encoder are named', where='--pretrained_weights',
                        expected='a checkpoint, --pretrained for ImageNet\'s, or '
                        '--pretrained_weights none for random ones')
    if weights != 'none' and not Path(weights).exists():
        raise UserError('no such file', where=located(weights))
    return None if weights == 'none' else weights
