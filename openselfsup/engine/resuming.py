"""What may change when a run goes on: the checkpoint's config against today's, field by field.

Whatever is not refused is applied, and told as 'was ... and is now ...'. Nothing of the old config
stays in use unseen, so what a run records of itself is true.
"""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from ..checkpoints import check_training_state, refuse_spoilt
from ..checkpoints.config_text import read_config_text
from ..checkpoints.loading import differences
from ..checkpoints.names import shorten
from ..checkpoints.upgrading import initial_state
from ..datasets.recipes import are_named_views
from ..errors import UserError
from ..training.sharding import load_state, part_of_optimizer

QUIET = 'applied, and no number of the run depends on it'
APPLIED = 'applied from here on'
VIEWS = 'applied from here on; views and shuffling are no longer those of an uninterrupted run'
SHARED = ('applied from here on; tiles and views stay those of an uninterrupted run, shared out '
          'differently, but for up to a global batch here and at the end of each epoch')
CURVE = 'applied from here on; the learning rate follows its new curve'
# One rule for each field of PretrainConfig, and for fields below them that are an exception. A
# rule that begins with 'refused' says why.
RULES = {
    'model': APPLIED,  # whether the tensors fit is checked against the checkpoint itself
    'model.type': 'refused: the state of one method means nothing to another',
    'dataset': VIEWS,
    'optimizer': APPLIED,
    'optimizer.lr': CURVE,
    'optimizer.type': 'refused: the momenta of one optimiser mean nothing to another',
    'optimizer.amsgrad': 'refused: the checkpoint lacks what one of the two needs',
    'optimizer.decay_norm_and_bias': 'refused: it sorts the parameters and their momenta anew',
    'optimizer.layer_decay': 'refused: it sorts the parameters and their momenta anew',
    'schedule': CURVE,
    'epochs': CURVE,
    'global_batch_size': SHARED,
    'accumulate': SHARED,
    'base_batch_size': CURVE,
    'amp': APPLIED,
    'channels_last': QUIET,
    'compile': QUIET,
    'parallel': QUIET,
    'clip_grad': APPLIED,
    'clip_grad_by': APPLIED,
    'normalize': APPLIED,
    'render': QUIET,
    'workers': QUIET,
    'drop_last': VIEWS,
    'seed': VIEWS,
    'deterministic': APPLIED,
    'pretrained': 'refused: a run that goes on has the weights of its checkpoint',
    'log_interval': QUIET,
    'checkpoint_interval': QUIET,
    'save_every': QUIET,
    'keep_checkpoints': QUIET,
    'custom_imports': QUIET,
    'hooks': APPLIED,  # some look on, others find the clusters that are learnt
    'work_dir': QUIET,
}
# What a checkpoint knows of the run besides its config.
FACTS = {
    'world_size': SHARED,
    'tiles': VIEWS,
    'tile_names': VIEWS,
    'tile_contents': 'applied from here on; a tile is known by its size and time of change',
    'precision': APPLIED,
}
DRAWS = 2  # how views are drawn: 1 by rank and batch, 2 by the tile's position in the epoch
_ABSENT = object()


@dataclasses.dataclass(frozen=True)
class Change:
    """One field that is not what it was."""

    key: str
    was: Any
    now: Any

    @property
    def rule(self) -> str:
        """What becomes of it: the rule of the longest part of its key that has one."""
        rules = RULES | FACTS
        parts = self.key.split('.')
        return next(rules[key] for n in range(len(parts), 0, -1)
                    if (key := '.'.join(parts[:n])) in rules)

    @property
    def refused(self) -> bool:
        """Whether a run cannot go on with it."""
        return self.rule.startswith('refused')

    def __str__(self) -> str:
        return f'{self.key} was {_shown(self.was)} and is now {_shown(self.now)}'


def start_from_weights(checkpoint: Mapping[str, Any], module: nn.Module, where: str) -> str | None:
    """Fill a whole method from a file that has its weights but no state of a run of ours.

    Published training checkpoints are such files: their encoders and queues are taken, their
    optimiser is not.

    Returns:
        What was taken, in a line; None if it is no such file.

    Raises:
        UserError: it is one of another model.
    """
    found = initial_state(checkpoint)
    if found is None:
        return None
    (state, method), own = found, module.state_dict()
    buffers = {name for name, _ in module.named_buffers()}  # a memory, how full a queue is
    if said := differences(state, own, may_lack=buffers):
        if method is None:
            return None
        raise UserError(f'these are the weights of a {method} of another model; {said}',
                        where=where)
    refuse_spoilt(state, where)
    load_state(module, state, strict=False)
    anew = [name for name in own if name not in state]
    return (f'started from all weights of {where}, {len(state)} of {len(own)} tensors, at epoch 1 '
            'with a new optimiser' + (f"; as at a start: {shorten(anew, 3)}" if anew else ''))


def changes(was: dict, now: dict, prefix: str = '') -> list[Change]:
    """Return every field that differs between two configs (or facts), the deepest that does."""
    found = []
    ordered = prefix.endswith('steps.') or prefix == 'dataset.recipe.' and are_named_views(now)
    if ordered and list(was) != list(now) and was.keys() == now.keys():
        found.append(Change(prefix[:-1], list(was), list(now)))  # their order counts
    for key in dict.fromkeys([*was, *now]):
        old, new = was.get(key, _ABSENT), now.get(key, _ABSENT)
        if isinstance(old, dict) and isinstance(new, dict):
            found += changes(old, new, f'{prefix}{key}.')
        elif _plain(old) != _plain(new):
            found.append(Change(prefix + key, old, new))
    return found


def _name_views(was: Any, now: Any) -> None:
    """Give the views of an older config, a list, the names they have now: nothing else differs."""
    if not (isinstance(was, dict) and isinstance(now, dict) and are_named_views(now.get('recipe'))
            and isinstance(was.get('recipe'), (list, tuple))
            and len(was['recipe']) == len(now['recipe'])):
        return
    was['recipe'] = dict(zip(now['recipe'], was['recipe']))
    if was.get('n_views') == len(was['recipe']) and 'n_views' not in now:
        del was['n_views']  # it said the same


def changes_since(checkpoint: Mapping[str, Any], cfg: Config, facts: Mapping[str, Any],
                  where: str) -> list[Change]:
    """Return what differs between the run that a checkpoint is of and today's.

    Where ``cfg.pretrained`` is not given any more, it is set to what the run started from.

    Args:
        checkpoint: what :func:`openselfsup.checkpoints.load` returned.
        cfg: today's config.
        facts: today's values of :data:`FACTS`; those of the tiles on rank 0 only.
        where: path of the checkpoint.

    Raises:
        UserError: it is no training checkpoint of ours.
    """
    meta: Any = checkpoint.get('meta')
    lacking = [key for key in ('epoch', 'iteration', 'step', 'global_batch_size', 'config')
               if not isinstance(meta, dict) or key not in meta]
    if lacking:
        raise UserError(f"no run can go on from this file: its 'meta' lacks {', '.join(lacking)}",
                        where=where, expected='an epoch_N.pth or latest.pth of a work directory '
                                              '(other weights are for --pretrained)')
    try:
        was = read_config_text(meta['config'])
    except ValueError as error:
        raise UserError(f'the config in this checkpoint cannot be read: {error}',
                        where=where) from None
    if not cfg.pretrained:
        cfg.pretrained = was.get('pretrained')
    _name_views(was.get('dataset'), cfg.get('dataset'))
    known = {key: meta[key] for key in FACTS if key in meta and key in facts}
    return changes(was | known, cfg.to_dict() | {key: facts[key] for key in known})


def check_state(checkpoint: Mapping[str, Any], model: nn.Module, found: list[Change],
                where: str) -> None:
    """Make sure that a checkpoint's tensors fit the model; say what was changed if they do not.

    Raises:
        UserError: it is a checkpoint of another model.
    """
    try:
        check_training_state(checkpoint, model, where)
    except UserError as error:
        changed = [str(change) for change in found if change.key.startswith('model.')]
        raise UserError('; '.join([error.what, *changed]), where=where,
                        expected=error.expected) from None


def refuse(found: list[Change], where: str) -> None:
    """Raise UserError with all changes with which a run cannot go on, if there are any.

    Args:
        found: what :func:`changes` returned.
        where: path of the checkpoint.
    """
    lines = [f"{change}: {change.rule.removeprefix('refused: ')}"
             for change in found if change.refused]
    if lines:
        raise UserError('this run cannot go on with other settings: ' + '; '.join(lines),
                        where=where, expected='the settings that it had, or another --work-dir '
                                              f'and --pretrained {where} instead of --resume')


def refuse_other_tiles(found: list[Change], where: str) -> None:
    """Raise UserError if the tiles have changed, for a method that keeps something of each of them.

    Args:
        found: what :func:`changes` returned.
        where: path of the checkpoint.
    """
    if any(change.key in ('tiles', 'tile_names') for change in found):
        raise UserError('this checkpoint remembers each tile by its place in the data set, and the '
                        'tiles are not those that it had', where=where,
                        expected='the same tiles in the same order, or another --work-dir and '
                                 f'--pretrained {where} instead of --resume')


def tell(found: list[Change], logger: logging.Logger) -> None:
    """Log every change that is applied."""
    for change in found:
        logger.log(logging.INFO if change.rule == QUIET else logging.WARNING,
                   '%s: %s', change, change.rule)


def tell_draws(meta: Mapping[str, Any], logger: logging.Logger) -> None:
    """Say once that views of a run are drawn in another way than they were."""
    if meta.get('draws', 1) != DRAWS:
        logger.warning('this run drew its views by rank and batch so far; from here on they are '
                       "drawn by each tile's position in the epoch, so its further views differ "
                       'from those that it would have had')


def next_rate(rates: np.ndarray, step: int) -> float:
    """Return the learning rate of the step after ``step`` steps; the last one behind the end."""
    return float(rates[min(step, len(rates) - 1)])


def tell_jump(was: float | None, now: float, logger: logging.Logger) -> None:
    """Log a jump of the learning rate of the next step; ``was`` is None if it is not known."""
    if was is not None and not np.isclose(was, now, rtol=1e-6, atol=0):
        logger.warning('the learning rate of the next step was %.4g and is now %.4g: it jumps '
                       'here', was, now)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict, where: str) -> None:
    """Load momenta and the like; settings stay those that the optimiser was built with.

    Args:
        optimizer: built from today's config.
        state: ``state_dict()`` of the optimiser in the checkpoint.
        where: path of the checkpoint.

    Raises:
        UserError: it is the state of other parameters.
    """
    settings = [{key: value for key, value in group.items() if key != 'params'}
                for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(part_of_optimizer(optimizer, state))
    except ValueError as error:
        raise UserError(f'the optimiser of this checkpoint trains other parameters: {error}',
                        where=where) from None
    for group, own in zip(optimizer.param_groups, settings):
        for key in group.keys() - own.keys() - {'params'}:
            del group[key]  # such as an lr_mult that is no more
        group.update(own)


def _plain(value: Any) -> Any:
    """Return a value in which tuples and lists of the same items are equal."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _shown(value: Any) -> str:
    text = 'not given' if value is _ABSENT else repr(value)
    return text if len(text) <= 120 else text[:117] + '...'
