"""CA2CL's ``python pretrain.py``: its flags and its ``config/config.yaml``, as a run of ours.

Every key of the file is a flag, and flags come after the file. Both have the published defaults.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError, located, nearest
from ..transfer.instance.yaml_config import read_yaml
from .commands import Command, typed

FILE = Path('config/config.yaml')
#: Keys of config.yaml with their published defaults; '' for a data set is the one of our config.
KEYS: dict[str, Any] = {
    'seed': 42, 'workers': 4, 'dataparallel': 1, 'dataset_path': '', 'batch_size': 1792,
    'image_size': 224, 'start_epoch': 0, 'epochs': 100, 'dataset': 'NCT', 'epsilon': 1.0,
    'resnet': 'ResNet18', 'feature_dim': 128, 'model_path': '', 'reload': False, 'do_adv': True,
    'learning_rate': 6e-4, 'weight_decay': 1e-4, 'instance_temperature': 0.2, 'ca-t': 0.2,
    'Lambda': 0.1, 'clusters': 10, 'k-eigen': 100, 'num-iters': 10, 'use-kmeans': True,
    'do_ca': True, 'do_entro': False, 'cos': 1}
#: Flags beside the keys.
FLAGS = {'default_device': 'cuda', 'arch': 'resnet18', 'comet_name': 'pretrain'}
#: What nothing reads here, and why.
UNREAD = {
    'k-eigen': 'no code reads it, the published neither: clusters are those of k-means',
    'use-kmeans': 'clusters are always those of k-means, in the published code too',
    'arch': 'no code reads it, the published neither: resnet names the network',
    'comet_name': 'curves go to TensorBoard and metrics.jsonl, not to comet.ml'}
DEPTHS = {'ResNet18': 18, 'ResNet34': 34, 'ResNet50': 50}
#: torchvision's files, which the published script loads from save/.
IMAGENET = {18: 'resnet18-f37072fd.pth', 34: 'resnet34-333f7ec4.pth', 50: 'resnet50-19c8e357.pth'}
#: The fields of our configs that the keys set; those have the published defaults.
FIELDS = {
    'dataset_path': ['dataset.source.root'], 'batch_size': ['global_batch_size'],
    'image_size': ['dataset.recipe.strong.size', 'dataset.recipe.weak.size'],
    'epochs': ['epochs'], 'learning_rate': ['optimizer.lr'],
    'weight_decay': ['optimizer.weight_decay'], 'instance_temperature': ['model.temperature'],
    'feature_dim': ['model.neck.out_channels', 'model.group_neck.out_channels'],
    'ca-t': ['model.cluster.temperature'], 'Lambda': ['model.cluster.weight'],
    'clusters': ['model.cluster.clusters'], 'num-iters': ['model.cluster.iters'],
    'do_entro': ['model.cluster.mutual_information'], 'epsilon': ['model.adversary.epsilon']}
#: Of ``cos``; 1 is that of our configs.
SCHEDULES: dict[int, dict[str, str]] = {
    1: {}, 2: {'type': 'QuarterCosine', 'by': 'epoch'}, 0: {'type': 'Constant'}}
_ADVERSARY = {'type': 'WeightAdversary', 'target': 'backbone.conv1.weight', 'relative': False,
              'norm': 'l2', 'bn': 'shared', 'detach_anchor': False}


def translate(words: Sequence[str]) -> Command:
    """Return the run of ours that the published command line stands for.

    Args:
        words: behind ``pretrain.py``. Those that it does not know go to ``openselfsup train``.

    Raises:
        UserError: an unknown key in the file, a value of another type, or what has no counterpart.
    """
    args, others = _parser().parse_known_args(words)
    notes: list[str] = []
    given = _given(args, notes)
    values = {**KEYS, **FLAGS, **given}
    for name, why in UNREAD.items():
        if values[name] != {**KEYS, **FLAGS}[name]:
            notes.append(f'{name}: left out, {why}')
    if args.use_redis:
        notes.append('use_redis: left out, tiles are read from the disk (openselfsup pack makes '
                     'a store that is read faster)')
    _told(values, notes)
    depth = DEPTHS[_choice('resnet', values['resnet'], DEPTHS)]
    options = [f'{key}={value!r}' for key, value in _options(given, values, depth).items()]
    out = values['model_path'] or f"save/{values['dataset']}/pretrain/{values['resnet'].lower()}"
    ours = [f'CA2CL/r{depth}_bs1792_ep100' if values['do_ca'] else 'SimCLR/r18_bs1792_ep100',
            *(['--cfg-options', *options] if options else []), '--work-dir', out,
            '--seed', str(values['seed']), *(['--resume'] if values['reload'] else [])]
    weights = args.pretrained or _imagenet(depth, needed=not values['reload'])
    if weights and weights != 'none':
        ours += ['--pretrained', str(weights)]
    environment = {}
    if _choice('default_device', values['default_device'], ('cuda', 'cpu')) == 'cpu':
        environment['CUDA_VISIBLE_DEVICES'] = ''
    return Command('train', [*ours, *others], notes,
                   one_process_per_gpu=values['dataparallel'] != 0, environment=environment)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser('pretrain.py', description=__doc__, allow_abbrev=False)
    for name, default in {**KEYS, **FLAGS}.items():
        flags = dict.fromkeys([f'--{name}', f"--{name.replace('-', '_')}"])
        parser.add_argument(*flags, dest=name, metavar='VALUE', help=f'default {default!r}')
    parser.add_argument('--use_redis', action='store_true')
    parser.add_argument('--pretrained', metavar='CKPT', help='weights to start from (ours): '
                        'default ImageNet\'s, none for random ones')
    return parser


def _given(args: argparse.Namespace, notes: list[str]) -> dict[str, Any]:
    """Return what the file and the flags say, by key."""
    given: dict[str, Any] = {}
    if FILE.is_file():
        notes.append(f'{FILE} is read')
        for name, (value, where) in read_yaml(FILE, nested=False).items():
            if name not in KEYS:
                raise UserError(f"'{name}' is no key of CA2CL's", where=where,
                                expected=', '.join(KEYS), nearest=nearest(name, KEYS))
            given[name] = typed(name, value, KEYS[name], where)
    for name, default in {**KEYS, **FLAGS}.items():
        if (text := getattr(args, name)) is not None:
            given[name] = typed(name, text, default, f'--{name}')
    return given


def _options(given: dict[str, Any], values: dict[str, Any], depth: int) -> dict[str, Any]:
    """Return what the config has to be told, for all values that are not its own."""
    options = {field: values[name] for name, fields in FIELDS.items() for field in fields
               if values[name] != KEYS[name]}
    adversary = {**_ADVERSARY, 'epsilon': values['epsilon']} if values['do_adv'] else None
    if not values['do_ca']:
        options = {field: value for field, value in options.items()
                   if not field.startswith(('model.cluster', 'model.group_neck'))}
        width = 2048 if depth == 50 else 512
        options |= {'model.backbone.depth': depth, 'model.neck.hid_channels': width}
    if not values['do_ca'] or not adversary:
        options.pop('model.adversary.epsilon', None)
        pictures = [{'type': name} for name, drawn in (
            ('ClusterPictures', values['do_ca']), ('AdversaryPictures', values['do_adv'])) if drawn]
        options |= {'model.adversary': adversary, 'hooks': pictures}
    if 'workers' in given:  # otherwise as many as fit the machine
        options['workers'] = given['workers']
    if schedule := SCHEDULES[_choice('cos', values['cos'], SCHEDULES)]:
        options['schedule'] = schedule
    return options


def _told(values: dict[str, Any], notes: list[str]) -> None:
    """Note what means something else here than in the published code.

    Raises:
        UserError: a first epoch without a checkpoint.
    """
    if values['image_size'] != KEYS['image_size']:
        notes.append(f"image_size: views are of {values['image_size']} px; in the published code "
                     'they are of 224 px whatever it says')
    if values['model_path']:
        notes.append('model_path: names the work directory; the published code overwrites it')
    if values['reload']:
        notes.append('reload: the run goes on from latest.pth; the published code reads no '
                     'checkpoint')
    if values['start_epoch']:
        if not values['reload']:
            raise UserError(f"start_epoch is {values['start_epoch']} and no checkpoint is read",
                            where='--start_epoch', expected='0, or --reload True, which goes on '
                            'where latest.pth stands')
        notes.append('start_epoch: left out, the checkpoint says where the run stands')


def _choice(name: str, value: Any, choices: Iterable[Any]) -> Any:
    """Return a value that is one of the choices."""
    if value in choices:
        return value
    known = list(map(str, choices))
    raise UserError(f'{name} is {value!r}', where=f'--{name}', expected=' or '.join(known),
                    nearest=nearest(str(value), known))


def _imagenet(depth: int, needed: bool) -> Path | None:
    """Return torchvision's ImageNet weights where the published script or torch put them."""
    import torch
    name = IMAGENET[depth]
    cached = Path(torch.hub.get_dir()) / 'checkpoints' / name
    for path in (Path('save') / name, Path(name), cached):
        if path.is_file():
            return path
    if not needed:
        return None
    raise UserError('the ImageNet weights that CA2CL starts from are not there',
                    where=located(Path('save') / name),
                    expected=f'https://download.pytorch.org/models/{name} in that place, '
                    'or --pretrained CKPT, or --pretrained none for random weights')
