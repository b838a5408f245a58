"""Hooks: what happens around the steps of a run. Each is one small class.

The loop they hook into is drawn in :class:`.hook.Hook`.
"""

from collections.abc import Sequence

from mmengine.config import Config

from ...errors import UserError
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


def build_hooks(cfg: Config) -> list[Hook]:
    """Return the hooks that every run has and those of the config, in the order of their acts.

    Raises:
        UserError: a class of the config is no :class:`.hook.Hook`, or its order is none, or two
            probes would write under the same name.
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
        if hook.order not in ORDER:
            raise UserError(f"the order of {type(hook).__name__} is {hook.order!r}",
                            where=f'hooks.{place}', expected='one of ' + ', '.join(ORDER))
        if isinstance(hook, ProbeHook):
            _check_alone(hook, place, [one for one in hooks if isinstance(one, ProbeHook)])
        hooks.append(hook)
    return sorted(hooks, key=lambda hook: ORDER.index(hook.order))


def _check_alone(probe: ProbeHook, place: int, others: Sequence[ProbeHook]) -> None:
    """Refuse a probe whose scores or best checkpoint another one writes, too."""
    for other in others:
        if (probe.best_file == other.best_file != ''
                or probe.key + probe.suffix == other.key + other.suffix):
            raise UserError(f'two probes write {probe.key + probe.suffix} and {probe.best_file}',
                            where=f'hooks.{place}', expected='a name of its own, such as '
                            f"dict(type='{type(probe).__name__}', name='second', ...)")
