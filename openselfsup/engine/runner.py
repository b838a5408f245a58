"""mmengine's Runner with the parts replaced that get in the way of pretraining.

Kept: the hook machinery and the properties that hooks rely on. Replaced: environment and
process group (gloo on CPU), loading and saving (tensors and plain types only, atomic),
logging (nothing is fetched from the device between two log lines) and schedules (pure
functions of the optimiser step).
"""

import inspect
import logging
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .. import __version__, checkpoints, distributed
from ..claims import Claim
from ..datasets import TileDataset, ViewLoader
from ..datasets.identity import identity
from ..errors import UserError
from ..files import NotWritten
from ..models.method import Method, check_method
from ..registry import ALGORITHMS, BACKBONES, DATASETS, HOOKS, SCHEDULES
from ..training.environment import describe_environment
from ..training.launch import Launch
from ..training.optimizers import build_optimizer
from ..training.precision import resolve
from ..training.preprocessor import Preprocessor, can_compile, choose_render
from ..training.seeding import make_deterministic, seed_everything
from ..training.step import TrainStep
from . import resuming
from .config_text import config_text
from .hooks import default_hooks
from .loop import PretrainLoop
from .work_dir import LATEST, build_logger, write_run_files

FEW_ATTEMPTS = 3  # to write the first checkpoint of a run


class PretrainRunner(Runner):
    """Pretrains the algorithm of a config.

    Args:
        cfg: a config of :func:`openselfsup.engine.config.load_config`.
        launch: ranks and device.
        work_dir: where everything is written.
        pretrained: whether the backbone starts from ``cfg.pretrained``; False for a run that goes
            on, whose weights are those of its checkpoint.

    Attributes:
        claim: what holds the work directory; looked at before every checkpoint, if given.

    Raises:
        UserError: the global batch does not divide, no tiles, wrong weights and the like.
    """

    def __init__(self, cfg: Config, launch: Launch, work_dir: str | Path,
                 pretrained: bool = True):
        self.launch, self.device = launch, launch.device
        self.claim: Claim | None = None
        self.batch_size = batch_size_per_rank(cfg, launch.world_size)
        dataset = DATASETS.build(cfg.dataset)
        self.render = choose_render(cfg.render, dataset, self.device)
        loader = ViewLoader(dataset, self.batch_size, seed=cfg.seed, rank=launch.rank,
                            world_size=launch.world_size, workers=cfg.workers,
                            drop_last=cfg.drop_last,
                            render='device' if self.render == 'device' else 'cpu')
        seed_everything(cfg.seed)
        algorithm = ALGORITHMS.build(cfg.model)
        check_method(algorithm)
        check_geometry(algorithm, dataset)
        self.load_report: checkpoints.LoadReport | None = None
        if cfg.pretrained and pretrained:
            self.load_report = algorithm.load_backbone(cfg.pretrained)
        self.lr = scaled_learning_rate(cfg)
        self.amp = resolve(cfg.amp, launch.device)
        self.last_checkpoint: str | None = None
        self.failed_saves = 0  # since the last good one
        super().__init__(
            model=algorithm, work_dir=str(work_dir), train_dataloader=loader,
            train_cfg=dict(), optim_wrapper=dict(), launcher=launch.launcher, cfg=cfg,
            randomness=dict(seed=cfg.seed, deterministic=cfg.deterministic),
            default_scope=None)
        self.logger.setLevel('INFO')  # Runner's own lines of set-up are not for users
        self._train_loop = PretrainLoop(self, loader, cfg.epochs, cfg.global_batch_size,
                                        cfg.accumulate)
        self.facts = self._facts(dataset)
        self.optimizer = build_optimizer(self.algorithm, cfg.optimizer, self.lr)
        self.preprocessor = Preprocessor(
            **cfg.normalize, channels_last=cfg.channels_last,
            recipes=dataset.recipes if self.render == 'device' else (),
            compile=can_compile(self.device))
        self.preprocessor.to(self.device)
        self.step = TrainStep(self.model, self.preprocessor, self.optimizer, self.amp,
                              cfg.clip_grad)
        self.learning_rates = SCHEDULES.build({
            **cfg.schedule, 'base_lr': self.lr, 'epochs': cfg.epochs,
            'steps_per_epoch': self._train_loop.steps_per_epoch})

    @property
    def algorithm(self) -> nn.Module:
        """The algorithm without its distributed wrapper."""
        return self.model.module if hasattr(self.model, 'module') else self.model

    def _facts(self, dataset: TileDataset) -> dict[str, Any]:
        """Return what a checkpoint tells besides the config, see :data:`.resuming.FACTS`."""
        tiles = identity(dataset.source) if distributed.is_main() else {}  # rank 0 compares it
        return dict(world_size=self.world_size, precision=self.amp, tiles=len(dataset), **tiles)

    @property
    def loop(self) -> PretrainLoop:
        """The training loop, whose ``epoch`` and ``iteration`` are the position of the run."""
        return self._train_loop

    def train(self) -> nn.Module:
        """Run the loop to its end; hooks save, log and draw. Returns the model."""
        if distributed.is_main():
            write_run_files(Path(self.work_dir), self.cfg, self.environment,
                            self.loop.total_steps_done)
        self.call_hook('before_run')
        try:
            self.loop.run()
        finally:
            self.call_hook('after_run')
        return self.model

    # ---- what replaces mmengine's own set-up, in the order in which Runner calls it ----

    def setup_env(self, env_cfg: dict) -> None:
        """Take ranks from :mod:`.launch`; no time stamp, so that no folder is named after it."""
        self._timestamp = ''
        self._rank, self._world_size = self.launch.rank, self.launch.world_size

    def set_randomness(self, seed: int, deterministic: bool = False, **_) -> None:
        """Remember the seed; steps are seeded one by one (:mod:`.seeding`)."""
        self._seed, self._deterministic = seed, deterministic
        if deterministic:
            make_deterministic()

    def build_logger(self, **_) -> logging.Logger:
        """Log to the console and to train.log; below warnings only once set-up is over."""
        return build_logger(Path(self.work_dir), 'WARNING')

    def build_visualizer(self, visualizer=None) -> '_NoVisualizer':
        """TensorBoard events are written by a hook; there is no second visualizer."""
        return _NoVisualizer()

    def _log_env(self, env_cfg: dict) -> None:
        self.environment = describe_environment(self.device, self.world_size)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Move the model to the device and wrap it if several ranks train it."""
        cfg = self.cfg
        layout = torch.channels_last if cfg.channels_last else torch.contiguous_format
        model = model.to(self.device, memory_format=layout)
        if cfg.compile:
            for module in model.modules():
                if type(module) in BACKBONES.module_dict.values():
                    module.compile()
        if not distributed.is_distributed():
            return model
        check_sync_bn(model, self.device)
        # Queues are equal on all ranks by construction: broadcasting them each step
        # (DDP's default for buffers) would cost more than the gradients of a ResNet-18.
        known = inspect.signature(DistributedDataParallel).parameters
        buffers = next(name for name in ('forward_sync_buffers', 'broadcast_buffers')
                       if name in known)  # the new name, and the one before torch 2.15
        return DistributedDataParallel(
            model, device_ids=[self.device.index] if self.device.type == 'cuda' else None,
            **{buffers: False})

    def register_hooks(self, default=None, custom=None) -> None:
        """Register our default hooks and those of the config."""
        for hook in default_hooks(self.cfg) + [HOOKS.build(h) for h in self.cfg.hooks]:
            self.register_hook(hook)

    def dump_config(self) -> None:
        """Nothing yet: :meth:`train` writes the config, once it is known that it will be used."""

    def call_hook(self, fn_name: str, **kwargs) -> None:
        """Call all hooks; what one of them raises is raised as it is."""
        for hook in self._hooks:
            getattr(hook, fn_name)(self, **kwargs)

    # ---- checkpoints ----

    def save_checkpoint(self, name: str = LATEST, must: bool = False) -> bool:
        """Write the whole state of the run into the work directory; latest.pth is it, too.

        All ranks call it; rank 0 writes. Position, optimiser and scaler state, queues and
        generators are included: a resumed run equals an uninterrupted one. A full disk in
        the middle of a run is reported and the run goes on: there may be room next time.

        Args:
            name: file in the work directory.
            must: whether it is the run's last chance to save.

        Returns:
            Whether it was written; True on ranks that write nothing.

        Raises:
            UserError: it could not be written, and it was the last chance or the third attempt
                of a run that has no checkpoint at all.
        """
        if not distributed.is_main():
            return True
        if self.claim:
            self.claim.check()
        loop, (epoch, iteration) = self.loop, self.loop.position
        state = dict(
            state_dict=self.algorithm.state_dict(), optimizer=self.optimizer.state_dict(),
            scaler=self.step.scaler.state_dict(),
            meta=dict(version=__version__, epoch=epoch, iteration=iteration,
                      step=loop.total_steps_done,
                      global_batch_size=self.cfg.global_batch_size,
                      lr=resuming.next_rate(self.learning_rates, loop.total_steps_done),
                      **self.facts, config=config_text(self.cfg),
                      backbone=checkpoints.describe_backbone(self.algorithm, self.cfg.to_dict()),
                      time=time.strftime('%Y-%m-%d %H:%M:%S')))
        first = Path(self.work_dir) / name
        try:
            checkpoints.save(state, first)
            if name != LATEST:
                checkpoints.link(first, first.with_name(LATEST))
            self.last_checkpoint, self.failed_saves = str(first), 0
        except NotWritten as error:
            self.failed_saves += 1
            if must or self.last_checkpoint is None and self.failed_saves >= FEW_ATTEMPTS:
                raise UserError(f'{error}; the last good checkpoint is {self.last_checkpoint}',
                                expected='a work directory with room for checkpoints') from error
            self.logger.error('%s (attempt %d); training goes on, the last good checkpoint is %s',
                              error, self.failed_saves, self.last_checkpoint)
            return False
        return True

    def resume(self, path: str | Path) -> None:
        """Go on from a checkpoint of :meth:`save_checkpoint`.

        Raises:
            UserError: not a training checkpoint of ours, or one of another model.
        """
        checkpoint = checkpoints.load(path)
        found = resuming.changes_since(checkpoint, self.cfg, self.facts, str(path))
        resuming.refuse(found, str(path))
        resuming.check_state(checkpoint, self.algorithm, found, str(path))
        meta = checkpoint['meta']
        self.algorithm.load_state_dict(checkpoint['state_dict'])
        resuming.restore_optimizer(self.optimizer, checkpoint['optimizer'], str(path))
        if checkpoint['scaler']:  # empty if fp16 is new
            self.step.scaler.load_state_dict(checkpoint['scaler'])
        # Count tiles, not steps: the global batch may have changed.
        done = meta['iteration'] * meta['global_batch_size'] // self.cfg.global_batch_size
        self.loop.go_to(meta['epoch'], done)
        self.last_checkpoint = str(path)
        self.logger.info('resumed %s at epoch %d, step %d', path, meta['epoch'] + 1, meta['step'])
        resuming.tell(found, self.logger)
        rate = resuming.next_rate(self.learning_rates, self.loop.total_steps_done)
        resuming.tell_jump(meta.get('lr'), rate, self.logger)


class _NoVisualizer:
    """Stands where mmengine expects a visualizer to hand the config to."""

    def add_config(self, config: Config) -> None:
        """The config is written by :func:`~openselfsup.engine.work_dir.write_run_files`."""


def batch_size_per_rank(cfg: Config, world_size: int) -> int:
    """Return global_batch_size / (ranks * accumulate).

    Raises:
        UserError: it does not divide; the numbers of processes that would are listed.
    """
    total, parts = cfg.global_batch_size, world_size * cfg.accumulate
    if total % parts:
        fits = [n for n in range(1, min(total, 128) + 1) if total % (n * cfg.accumulate) == 0]
        near = sorted({max(total // parts, 1) * parts, -(-total // parts) * parts})
        raise UserError(
            f'{total} tiles cannot be shared equally by {world_size} processes'
            + (f' with accumulate={cfg.accumulate}' if cfg.accumulate > 1 else ''),
            where='global_batch_size',
            expected=f"one of {', '.join(map(str, fits))} processes, or a global_batch_size of "
                     + ' or '.join(map(str, near)))
    return total // parts


def scaled_learning_rate(cfg: Config) -> float:
    """Return optimizer.lr, times global_batch_size / base_batch_size where that is given."""
    scale = cfg.global_batch_size / cfg.base_batch_size if cfg.base_batch_size else 1.0
    return cfg.optimizer['lr'] * scale


def check_geometry(algorithm: Method, dataset) -> None:
    """Tell a method what its maps are like; refuse recipes without the maps that it needs."""
    if not algorithm.needs_geometry:
        return
    if dataset.geometry != 'none':
        algorithm.set_geometry(dataset.geometry)
        return
    steps = sorted({f'{name} ({type(recipe.named_steps[name]).__name__})'
                    for recipe in dataset.recipes for name in recipe.breaking_steps})
    raise UserError(
        f"{type(algorithm).__name__} matches cells by their place in the tile, but "
        f"{', '.join(steps)} moves pixels in a way that no affine map describes",
        where='dataset.recipe.steps',
        expected='crops, flips, quarter turns or affine steps only, or a method without geometry')


def check_sync_bn(model: nn.Module, device: torch.device) -> None:
    """Say early that torch synchronises BatchNorm on GPUs only."""
    if device.type == 'cpu' and any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
        raise UserError("norm 'SyncBN' works on GPUs only when several processes train",
                        where='model.backbone.norm_cfg', expected="type 'BN' or 'GN' on CPU")
