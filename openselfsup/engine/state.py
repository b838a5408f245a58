"""The state of a run: what a checkpoint holds of it, and how a run gets it back.

Which settings may differ by then is said in :mod:`.resuming`.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from .. import __version__, checkpoints
from ..checkpoints.loading import differences
from ..checkpoints.names import shorten
from ..checkpoints.upgrading import initial_state
from ..errors import UserError
from ..training.sharding import is_sharded, load_state, part_of_optimizer, room_for
from . import resuming
from .config_text import config_text
from .position import Position

if TYPE_CHECKING:
    from .runner import Runner

DRAWS = 2  # how views are drawn: 1 by rank and batch, 2 by the tile's position in the epoch


def collect(run: 'Runner') -> dict[str, Any]:
    """Return what a checkpoint holds: tensors and plain types only."""
    meta = dict(version=__version__, epoch=run.position.epoch, iteration=run.position.step,
                step=run.steps_done, global_batch_size=run.cfg.global_batch_size,
                lr=_next_rate(run), draws=DRAWS, **run.facts, config=config_text(run.cfg),
                backbone=run.backbone_record, time=time.strftime('%Y-%m-%d %H:%M:%S'))
    return dict(state_dict=run.module.state_dict(), optimizer=run.optimizer.state_dict(),
                scaler=run.step.scaler.state_dict(), meta=meta)


def restore(run: 'Runner', path: str | Path) -> None:
    """Give a run the state of a checkpoint, or start it from a published one.

    Raises:
        UserError: no training checkpoint, or one of another model.
    """
    where = str(path)
    checkpoint = checkpoints.load(path, room=room_for(run.module, run.optimizer)
                                  if is_sharded(run.module) else None)
    if said := _start_from_weights(checkpoint, run.module, where):
        run.logger.info(said)
        return
    found = resuming.changes_since(checkpoint, run.cfg, run.facts, where)
    resuming.refuse(found, where)
    if 'index' in run.algorithm.batch_keys:
        resuming.refuse_other_tiles(found, where)
    _check(checkpoint, run.module, found, where)
    meta = checkpoint['meta']
    load_state(run.module, checkpoint['state_dict'])
    anew = restore_optimizer(run.optimizer, checkpoint['optimizer'], where, found)
    if checkpoint['scaler']:  # empty if fp16 is new
        run.step.scaler.load_state_dict(checkpoint['scaler'])
    # Count tiles, not steps: the global batch may have changed.
    done = meta['iteration'] * meta['global_batch_size'] // run.cfg.global_batch_size
    run.position = Position(meta['epoch'], min(done, run.steps_per_epoch))
    run.saver.last = where
    run.logger.info('resumed %s at epoch %d, step %d', path, meta['epoch'] + 1, meta['step'])
    resuming.tell(found, run.logger)
    if anew:
        run.logger.warning('%d parameters were not trained so far and start without momenta: %s',
                           len(anew), shorten(anew, 3))
    _tell_draws(meta, run.logger)
    _tell_jump(meta.get('lr'), _next_rate(run), run.logger)


def _start_from_weights(checkpoint: Mapping[str, Any], module: nn.Module, where: str) -> str | None:
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
    checkpoints.refuse_spoilt(state, where)
    load_state(module, state, strict=False)
    anew = [name for name in own if name not in state]
    return (f'started from all weights of {where}, {len(state)} of {len(own)} tensors, at epoch 1 '
            'with a new optimiser' + (f"; as at a start: {shorten(anew, 3)}" if anew else ''))


def _check(checkpoint: Mapping[str, Any], model: nn.Module, found: list[resuming.Change],
           where: str) -> None:
    """Make sure that a checkpoint's tensors fit the model; say what was changed if they do not.

    Raises:
        UserError: it is a checkpoint of another model.
    """
    try:
        checkpoints.check_training_state(checkpoint, model, where)
    except UserError as error:
        changed = [str(change) for change in found if change.key.startswith('model.')]
        raise UserError('; '.join([error.what, *changed]), where=where,
                        expected=error.expected) from None


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], where: str,
                      found: Sequence[resuming.Change] = ()) -> list[str]:
    """Load momenta and the like; settings stay those that the optimiser was built with.

    Parameters are known by their names. Checkpoints of earlier versions lack these: there they are
    known by their place, where nothing has sorted them anew.

    Args:
        optimizer: built from today's config.
        state: ``state_dict()`` of the optimiser in the checkpoint.
        where: path of the checkpoint.
        found: what differs from the config of the checkpoint.

    Returns:
        The names of parameters that were not trained before.

    Raises:
        UserError: it is the state of other parameters, or may be.
    """
    groups = optimizer.state_dict()['param_groups']
    was, now = _places(state['param_groups']), _places(groups)
    anew: list[str] = []
    if was is not None and now is not None:
        anew = [name for name in now if name not in was]
        if len(anew) == len(now):
            raise UserError('the optimiser of this checkpoint trains none of the parameters that '
                            f'are trained now: {shorten(anew, 3)}', where=where)
        state = dict(param_groups=groups, state={
            i: state['state'][was[name]] for name, i in now.items()
            if was.get(name) in state['state']})
    elif _in_order(state['param_groups']) and _in_order(groups):
        if _count(state['param_groups']) == _count(groups):
            state = dict(state, param_groups=groups)
    else:
        resuming.refuse_other_order(found, _paced(state['param_groups']), _paced(groups), where)
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
    return anew


def _places(groups: Sequence[Mapping[str, Any]]) -> dict[str, int] | None:
    """Return where an optimiser's state has each parameter, None if it does not name them."""
    if any(len(group.get('param_names', ())) != len(group['params']) for group in groups):
        return None
    return {name: i for group in groups for name, i in zip(group['param_names'], group['params'])}


def _in_order(groups: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether parameters stand in the order of the model, however it is set up."""
    return len(groups) == 1 or all(len(group['params']) == 1 for group in groups)


def _count(groups: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(group['params']) for group in groups)


def _paced(groups: Sequence[Mapping[str, Any]]) -> set[str]:
    return {group['paced'] for group in groups if group.get('paced')}


def _next_rate(run: 'Runner') -> float:
    """Return the learning rate of the run's next step; the last one behind the end."""
    return float(run.learning_rates[min(run.steps_done, len(run.learning_rates) - 1)])


def _tell_draws(meta: Mapping[str, Any], logger: logging.Logger) -> None:
    """Say once that views of a run are drawn in another way than they were."""
    if meta.get('draws', 1) != DRAWS:
        logger.warning('this run drew its views by rank and batch so far; from here on they are '
                       "drawn by each tile's position in the epoch, so its further views differ "
                       'from those that it would have had')


def _tell_jump(was: float | None, now: float, logger: logging.Logger) -> None:
    """Log a jump of the learning rate of the next step; ``was`` is None if it is not known."""
    if was is not None and not np.isclose(was, now, rtol=1e-6, atol=0):
        logger.warning('the learning rate of the next step was %.4g and is now %.4g: it jumps '
                       'here', was, now)
