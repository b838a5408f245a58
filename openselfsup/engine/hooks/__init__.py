"""Hooks: what happens around the steps of a run. Each is one small class.

The loop they hook into is drawn in :class:`openselfsup.engine.loop.PretrainLoop`.
"""

from mmengine.config import Config
from mmengine.hooks import Hook

from .checkpoint import CheckpointHook
from .health import HealthHook
from .metrics import MetricsHook
from .part_pictures import AdversaryPictures, ClusterPictures
from .pictures import PicturesHook
from .probe import KNNProbeHook, LinearProbeHook
from .progress import ProgressHook

__all__ = ['AdversaryPictures', 'CheckpointHook', 'ClusterPictures', 'HealthHook', 'KNNProbeHook',
           'LinearProbeHook', 'MetricsHook', 'PicturesHook', 'ProgressHook', 'default_hooks']


def default_hooks(cfg: Config) -> list[Hook]:
    """Return the hooks that every run has, in the order in which they act."""
    return [PicturesHook(), MetricsHook(cfg.log_interval), HealthHook(), ProgressHook(),
            CheckpointHook(cfg.checkpoint_interval, cfg.save_every, cfg.keep_checkpoints)]
