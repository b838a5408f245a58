"""What may change when a run goes on: the checkpoint's config against today's, field by field.

Whatever is not refused is applied, and told as 'was ... and is now ...'. Nothing of the old config
stays in use unseen, so what a run records of itself is true.
"""

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from ..checkpoints.config_text import read_config_text
from ..datasets.recipes import are_named_views
from ..errors import UserError

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
    'model.gram.start': 'refused: the earlier teacher was taken at that time, or is to be',
    'dataset': VIEWS,
    'optimizer': APPLIED,
    'optimizer.lr': CURVE,
    'optimizer.type': 'refused: the momenta of one optimiser mean nothing to another',
    'optimizer.amsgrad': 'refused: the checkpoint lacks what one of the two needs',
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
# What sorts the parameters of an optimiser anew.
_SORTING = ('optimizer.paramwise_options', 'optimizer.layer_decay',
            'optimizer.decay_norm_and_bias')
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


def refuse_other_order(found: Sequence[Change], was: Collection[str], now: Collection[str],
                       where: str) -> None:
    """Raise UserError if momenta that are known by their place alone may be others' by now.

    Args:
        found: what :func:`changes` returned.
        was: beginnings of the names of parameters that had a pace of their own, see
            ``rate_factors`` of :class:`openselfsup.models.method.Method`.
        now: those of today.
        where: path of the checkpoint.
    """
    lines = [str(change) for change in found if change.key.startswith(_SORTING)]
    if was != now:
        changed = [str(change) for change in found if change.key.startswith('model.')]
        lines.append(f"what has a pace of its own was {', '.join(sorted(was)) or 'nothing'} and is "
                     f"now {', '.join(sorted(now)) or 'nothing'}"
                     + (f" ({'; '.join(changed)})" if changed else ''))
    if lines:
        raise UserError('this checkpoint of an earlier version does not name the parameters whose '
                        'momenta it holds, and they are sorted anew since: ' + '; '.join(lines),
                        where=where, expected='the settings that it had, or another --work-dir '
                                              f'and --pretrained {where} instead of --resume')


def tell(found: list[Change], logger: logging.Logger) -> None:
    """Log every change that is applied."""
    for change in found:
        logger.log(logging.INFO if change.rule == QUIET else logging.WARNING,
                   '%s: %s', change, change.rule)


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
