"""The run: what it is made of, its loop, its checkpoints.

:class:`~.hooks.hook.Hook` draws the loop.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from .. import checkpoints, distributed
from ..claims import Claim
from ..datasets import ViewLoader
from ..datasets.identity import identity
from ..models.method import Method, Progress, check_method
from ..registry import ALGORITHMS, DATASETS, SCHEDULES
from ..training.environment import describe_environment
from ..training.finite import FiniteCheck, refuse_spoilt_weights
from ..training.launch import Launch
from ..training.logs import build_logger
from ..training.optimizers import build_optimizer
from ..training.precision import resolve
from ..training.preprocessor import Preprocessor, can_compile, choose_render
from ..training.presence import Presence
from ..training.seeding import make_deterministic, seed_everything, seed_step
from ..training.sharding import is_sharded, whole
from ..training.step import TrainStep
from . import building, state
from .hooks import build_hooks
from .position import Position
from .saving import Saver
from .signals import caught
from .work_dir import LATEST, on_main, write_run_files


class Runner:
    """Pretrains the algorithm of a config.

    Args:
        cfg: a config of :func:`openselfsup.engine.config.load_config`.
        launch: ranks and device.
        work_dir: where everything is written.
        pretrained: whether the backbone starts from ``cfg.pretrained``; False for a run that goes
            on, whose weights are those of its checkpoint.

    Attributes:
        position: the epochs and steps that lie behind the run.
        loader: the batches of this rank.
        algorithm: the method that is trained.
        module: the same object as what holds its tensors.
        model: what is called in a step: the algorithm, or its wrapper for several ranks.
        step: takes one optimiser step.
        learning_rates: one for each step of the run, float64 (steps,).
        decays: factors on the weight decay, one for each step of the run, float64 (steps,).
        hooks: in the order in which they act.
        saver: writes the checkpoints.
        record: the newest line of metrics.jsonl, by :class:`~.hooks.MetricsHook`.
        presence: tells the other ranks what this one does, if given.
        claim: what holds the work directory; looked at before every checkpoint, if given.
        stop_requested: set it to let all ranks stop after their step.
        finite: learns a step late whether losses were finite and whether a rank wants to stop.
        stop_signal: the signal that asked for it, or None.

    Raises:
        UserError: the global batch does not divide, no tiles, wrong weights and the like.
    """

    def __init__(self, cfg: Config, launch: Launch, work_dir: str | Path,
                 pretrained: bool = True):
        self.cfg, self.work_dir, self.device = cfg, Path(work_dir).absolute(), launch.device
        self.rank, self.world_size = launch.rank, launch.world_size

        self.batch_size = building.batch_size_per_rank(cfg, self.world_size)
        self.dataset = DATASETS.build(cfg.dataset)
        self.render = choose_render(cfg.render, self.dataset, self.device)
        self.loader = ViewLoader(self.dataset, self.batch_size, seed=cfg.seed, rank=self.rank,
                                 world_size=self.world_size, workers=cfg.workers,
                                 drop_last=cfg.drop_last, fewest=2,
                                 render='device' if self.render == 'device' else 'cpu')

        self.hooks = build_hooks(cfg)
        if pretrained:
            building.check_start(cfg)

        seed_everything(cfg.seed)
        building.tell_feature(cfg)
        built = ALGORITHMS.build(cfg.model)
        check_method(built)
        building.check_hooks(built, self.hooks)
        self.algorithm: Method = built
        self.module: nn.Module = built
        self.backbone_record = checkpoints.describe_backbone(built, cfg.to_dict())
        building.tell_data(self.algorithm, self.dataset)
        self.load_report: checkpoints.LoadReport | None = None
        if cfg.pretrained and pretrained:
            self.load_report = self.algorithm.load_backbone(cfg.pretrained)

        if cfg.deterministic:
            make_deterministic()
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self.logger = build_logger(self.work_dir / 'train.log')
        self.amp = resolve(cfg.amp, self.device)
        self.environment = describe_environment(self.device, self.world_size)

        self.cells = building.cells_of(built, self.dataset)
        self._to_look_at = building.copy_to_look_at(built, cfg, self.hooks, self.device)
        self.model = building.place(self.module, cfg, self.device, self.amp)
        self.lr = building.scaled_learning_rate(cfg)
        self.optimizer = build_optimizer(self.module, cfg.optimizer, self.lr)
        self.learning_rates = SCHEDULES.build({
            **cfg.schedule, 'base_lr': self.lr, 'epochs': cfg.epochs,
            'steps_per_epoch': self.steps_per_epoch})
        self.decays = building.weight_decays(cfg, self.max_steps)
        self.preprocessor = Preprocessor(
            **cfg.normalize, channels_last=cfg.channels_last,
            recipes=self.dataset.recipes if self.render == 'device' else (),
            compile=can_compile(self.device)).to(self.device)
        self.step = TrainStep(self.model, self.preprocessor, self.optimizer, self.amp,
                              cfg.clip_grad, cfg.clip_grad_by)

        self.record: dict[str, Any] = {}
        self.facts = self._facts()
        self.claim: Claim | None = None
        self.presence: Presence | None = None
        self.saver = Saver(self.work_dir, self.logger)

        self.position = Position()
        self.stop_requested = False
        self.stop_signal: int | None = None
        self.finite = FiniteCheck(self._advice)

    def _facts(self) -> dict[str, Any]:
        """Return what a checkpoint tells besides the config, see :data:`.resuming.FACTS`."""
        tiles = identity(self.dataset.source) if self.rank == 0 else {}  # rank 0 compares it
        return dict(world_size=self.world_size, precision=self.amp, tiles=len(self.dataset),
                    **tiles)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch; the last one may hold fewer batches."""
        return -(-len(self.loader) // self.cfg.accumulate)

    @property
    def max_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.cfg.epochs * self.steps_per_epoch

    @property
    def steps_done(self) -> int:
        """Optimiser steps behind the run."""
        return self.position.epoch * self.steps_per_epoch + self.position.step

    @property
    def backbone(self) -> nn.Module:
        """The backbone for those who look at it; see :meth:`gather_backbone`."""
        return self.algorithm.backbone if self._to_look_at is None else self._to_look_at

    def gather_backbone(self) -> None:
        """Bring :attr:`backbone` up to date; all ranks call it, rank 0 has it then."""
        if is_sharded(self.module):
            weights = whole(self.algorithm.backbone.state_dict(), distributed.is_main())
            if self._to_look_at is not None:
                self._to_look_at.load_state_dict(weights)

    # ---- the loop ----

    def train(self) -> None:
        """Train to the last epoch, or until somebody asks to stop."""
        if distributed.is_main():
            write_run_files(self.work_dir, self.cfg, self.environment, self.steps_done)
        with caught(self._ask_to_stop):
            try:
                self.call_hooks('before_train')
                while self.position.epoch < self.cfg.epochs and not self.stopped:
                    self.train_epoch()
                self.finite.check()
                self.call_hooks('after_train')
            finally:
                self.call_hooks('close')
                self.saver.settle(wait=True)  # nobody else may write here before

    def train_epoch(self) -> None:
        """Train the rest of the epoch that the run is in."""
        self.model.train()
        self.loader.set_position(self.position.epoch, self.position.step * self.cfg.accumulate)
        self.call_hooks('before_epoch')
        batches = self._batches()
        try:
            while self.position.step < self.steps_per_epoch and not self.stopped:
                self.train_step(batches)
        finally:
            batches.close()
        if not self.stopped:
            self.finite.check()
            self.position = self.position.after_epoch()
            self.call_hooks('after_epoch')

    def train_step(self, batches: Iterator[dict]) -> None:
        """Take one optimiser step with the next batches."""
        self.call_hooks('before_step')
        number = self.steps_done
        seed_step(self.cfg.seed, self.rank, number)
        left = len(self.loader) - self.position.step * self.cfg.accumulate
        count, first = min(self.cfg.accumulate, left), len(self.loader) - left
        outputs = self.step(batches, count, self.learning_rates[number],
                            Progress(self.position.epoch, number, self.steps_per_epoch,
                                     self.max_steps), self.decays[number],
                            self.loader.rows(range(first, first + count)))
        self.position = self.position.after_step()
        self.finite.watch({key: value for key, value in outputs.items() if key.startswith('loss')},
                          f'epoch {self.position.epoch + 1}, step {self.steps_done}',
                          self.stop_requested)
        self.call_hooks('after_step', outputs)

    def call_hooks(self, method: str, *arguments: Any) -> None:
        """Call a method of all hooks; what one of them raises is raised as it is."""
        self._does(f'was in {method} of its hooks')
        for hook in self.hooks:
            getattr(hook, method)(self, *arguments)

    def _batches(self) -> Generator[dict, None, None]:
        """Yield the batches of the rest of an epoch, and tell the other ranks of it."""
        with contextlib.closing(iter(self.loader)) as batches:
            while True:
                self._does(f'waited for the tiles of step {self.steps_done + 1}', watched=True)
                batch = next(batches, None)
                if batch is None:
                    return
                self._does(f'computed step {self.steps_done + 1}', watched=True)
                yield batch

    def _does(self, what: str, watched: bool = False) -> None:
        if self.presence is not None:
            self.presence.does(what, watched)

    def _ask_to_stop(self, number: int) -> None:
        self.stop_requested, self.stop_signal = True, number

    @property
    def stopped(self) -> bool:
        """Whether the ranks have agreed to stop."""
        return self.finite.stopped

    @property
    def interrupted(self) -> bool:
        """Whether it was stopped before its end."""
        return self.stopped and self.position.epoch < self.cfg.epochs

    def is_due(self, interval: int) -> bool:
        """Return, after an epoch, whether it is one of every ``interval``, or the last."""
        epoch = self.position.epoch
        return epoch % interval == 0 or epoch == self.cfg.epochs

    def _advice(self) -> str:
        return (f'finite losses; the last good checkpoint is {self.last_checkpoint}, try a lower '
                'optimizer.lr, clip_grad=1.0 or amp=off')

    # ---- checkpoints ----

    def save_checkpoint(self, name: str = LATEST, must: bool = False, background: bool = False,
                        written: Callable[[], None] = lambda: None, latest: bool = True) -> bool:
        """Write the whole state of the run into the work directory.

        All ranks call it; rank 0 writes, or each rank its part where they share the method out:
        then the name is a link to a folder (:mod:`openselfsup.checkpoints.parts`). Position,
        optimiser and scaler state and queues are included, and random numbers follow from the
        position: a resumed run equals an uninterrupted one. A full disk in the middle of a run is
        reported and the run goes on: there may be room next time.

        Args:
            name: file in the work directory.
            must: whether it is the run's last chance to save.
            background: write a copy while the run goes on, see :meth:`.saving.Saver.save`; parts
                are waited for.
            written: called on rank 0 once the file is there.
            latest: whether latest.pth is to be it, too, from which a run goes on.

        Returns:
            Whether it was written or is under way; True on ranks that write nothing.

        Raises:
            NotFinite: the weights hold NaN or infinity; nothing is written.
            UserError: it could not be written, and it was the last chance or the third attempt
                of a run that has no checkpoint at all.
        """
        refuse_spoilt_weights(self.module, f'step {self.steps_done}', self._advice)
        if parts := is_sharded(self.module):
            on_main(self._check_claim)
        elif distributed.is_main():
            self._check_claim()
        else:
            return True
        return self.saver.save(state.collect(self), name, must, background, written, parts, latest)

    def _check_claim(self) -> None:
        if self.claim:
            self.claim.check()

    @property
    def last_checkpoint(self) -> str | None:
        """Path of the last good checkpoint, None if there is none."""
        return self.saver.last

    @property
    def failed_saves(self) -> int:
        """Attempts to save that have failed since the last good checkpoint."""
        return self.saver.failed

    def resume(self, path: str | Path) -> None:
        """Go on from a checkpoint of :meth:`save_checkpoint`, or start from a published one.

        Raises:
            UserError: no training checkpoint, or one of another model.
        """
        state.restore(self, path)
