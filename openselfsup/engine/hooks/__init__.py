"""Hooks: what happens around the steps of a run. Each is one small class.

The loop they hook into is drawn in :class:`.hook.Hook`.
"""

from collections.abc import Sequence

from mmengine.config import Config

from ...errors import UserError, nearest
from ...registry import HOOKS
from .checkpoint import CheckpointHook
from .clustering import ClusteringHook, DeepClusterHook, ODCHook
from .correspondence import CorrespondenceHook
from .health import HealthHook
from .hook import ORDER, Hook
from .metrics import MetricsHook
from .part_pictures import AdversaryPictures, ClusterPictures
from .pictures import PicturesHook
from .probe import KNNProbeHook, LinearProbeHook, ProbeHook
from .progress import ProgressHook

__all__ = ['AdversaryPictures', 'CheckpointHook', 'ClusterPictures', 'ClusteringHook',
           'CorrespondenceHook', 'DeepClusterHook', 'HealthHook', 'Hook', 'KNNProbeHook',
           'LinearProbeHook', 'MetricsHook', 'ODCHook', 'PicturesHook', 'ProbeHook',
           'ProgressHook', 'build_hooks']

# Stages of mmengine's hooks, and ours of the same moment.
_MMENGINE = dict(before_run='before_train', after_run='close', before_train_epoch='before_epoch',
                 after_train_epoch='after_epoch', before_train_iter='before_step',
                 after_train_iter='after_step', before_iter='before_step',
                 after_iter='after_step')


def build_hooks(cfg: Config) -> list[Hook]:
    """Return the hooks that every run has and those of the config, in the order of their acts.

    Raises:
        UserError: a class of the config is no :class:`.hook.Hook`, or its order is none, or it
            has a method that nothing calls, or two probes would write under the same name.
    """
    hooks = [PicturesHook(), MetricsHook(cfg.log_interval), HealthHook(), ProgressHook(),
             CheckpointHook(cfg.checkpoint_interval, cfg.save_every, cfg.keep_checkpoints)]
    for place, described in enumerate(cfg.hooks):
        hook = HOOKS.build(described)
        if not isinstance(hook, Hook):
            raise UserError(f'{type(hook).__name__} is no hook that this engine could call',
                            where=f'hooks.{place}',
                            expected='a subclass of openselfsup.engine.hooks.Hook; see '
                                     'docs/extend/hook.md for how a hook of mmengine becomes one')
        _check_stages(type(hook), f'hooks.{place}')
        if hook.order not in ORDER:
            raise UserError(f"the order of {type(hook).__name__} is {hook.order!r}",
                            where=f'hooks.{place}', expected='one of ' + ', '.join(ORDER))
        if isinstance(hook, ProbeHook):
            _check_alone(hook, place, [one for one in hooks if isinstance(one, ProbeHook)])
        hooks.append(hook)
    return sorted(hooks, key=lambda hook: ORDER.index(hook.order))


def _check_stages(kind: type[Hook], where: str) -> None:
    """Refuse a method that is called like a stage and is none: it would never be called."""
    stages = [name for name in vars(Hook) if name.startswith(('before_', 'after_'))]
    for name in dir(kind):
        if (name.startswith(('before_', 'after_')) and name not in stages
                and callable(getattr(kind, name))):
            elsewhere = any(word in name for word in ('_val', '_test', '_checkpoint'))
            raise UserError(
                f'{kind.__name__}.{name} is no stage of a run and would never be called',
                where=where, expected=f"one of {', '.join(stages)}, close, or a name that begins "
                'otherwise',
                nearest=_MMENGINE.get(name) or (None if elsewhere else nearest(name, stages)))


def _check_alone(probe: ProbeHook, place: int, others: Sequence[ProbeHook]) -> None:
    """Refuse a probe whose scores or best checkpoint another one writes, too."""
    for other in others:
        if (probe.best_file == other.best_file != ''
                or probe.key + probe.suffix == other.key + other.suffix):
            raise UserError(f'two probes write {probe.key + probe.suffix} and {probe.best_file}',
                            where=f'hooks.{place}', expected='a name of its own, such as '
                            f"dict(type='{type(probe).__name__}', name='second', ...)")
