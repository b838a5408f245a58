"""The training loop: epochs of optimiser steps that can stop and go on anywhere."""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from mmengine.runner import BaseLoop
from torch import Tensor

from .. import distributed
from ..errors import UserError
from ..training.finite import LateFlag
from ..training.seeding import seed_step


class PretrainLoop(BaseLoop):
    """Runs hooks and optimiser steps.

    The order in one epoch, ``epoch`` and ``iteration`` counting as mmengine's hooks expect
    (they name what is running until its last hook has returned)::

        before_train_epoch
            before_train_iter -> views, forward, backward, update -> after_train_iter   (...)
        after_train_epoch

    ``position`` is the (epoch, iteration) of the next step to take: what a checkpoint holds;
    ``flag`` is what is read late of each step.

    Args:
        runner: the :class:`~openselfsup.engine.runner.PretrainRunner`.
        loader: a :class:`~openselfsup.datasets.ViewLoader`.
        epochs: epochs of the run.
        tiles_per_step: the global batch.
        accumulate: batches of the loader that make one optimiser step.
    """

    def __init__(self, runner, loader, epochs: int, tiles_per_step: int, accumulate: int = 1):
        super().__init__(runner, loader)
        self.max_epochs, self.tiles_per_step, self.accumulate = epochs, tiles_per_step, accumulate
        self.epoch, self.iteration = 0, 0
        self.position = (0, 0)
        self.stop_requested = False
        self.stopped = False
        self.flag, self._flagged_step, self._last_outputs = LateFlag(), 0, {}

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch; the last one may hold fewer batches."""
        return -(-len(self.dataloader) // self.accumulate)

    @property
    def iter(self) -> int:
        """Optimiser steps taken since the start of the run."""
        return self.epoch * self.steps_per_epoch + self.iteration

    @property
    def total_steps_done(self) -> int:
        """Optimiser steps behind ``position``."""
        return self.position[0] * self.steps_per_epoch + self.position[1]

    @property
    def max_iters(self) -> int:
        """Optimiser steps of the whole run."""
        return self.max_epochs * self.steps_per_epoch

    def go_to(self, epoch: int, iteration: int) -> None:
        """Start the run at this position instead of (0, 0)."""
        self.epoch, self.iteration = self.position = epoch, min(iteration, self.steps_per_epoch)

    def run(self) -> torch.nn.Module:
        """Train to the last epoch, or until somebody asks to stop."""
        self.runner.call_hook('before_train')
        while self.epoch < self.max_epochs and not self.stopped:
            self._run_epoch()
        self.check_finite()
        self.runner.call_hook('after_train')
        return self.runner.model

    def _run_epoch(self) -> None:
        self.runner.model.train()
        self.dataloader.set_position(self.epoch, self.iteration * self.accumulate)
        self.runner.call_hook('before_train_epoch')
        batches = iter(self.dataloader)
        try:
            while self.iteration < self.steps_per_epoch and not self.stopped:
                self._run_step(batches)
        finally:
            batches.close()
        if not self.stopped:
            self.check_finite()
            self.position = (self.epoch + 1, 0)
            self.runner.call_hook('after_train_epoch')
            self.epoch, self.iteration = self.position

    def _run_step(self, batches: Iterator[dict]) -> None:
        runner = self.runner
        index = self.iteration
        runner.call_hook('before_train_iter', batch_idx=index, data_batch=None)
        seed_step(runner.seed, distributed.rank(), self.iter)
        left = len(self.dataloader) - index * self.accumulate
        outputs = runner.step(batches, min(self.accumulate, left), runner.learning_rates[self.iter])
        self._exchange_flags(outputs)
        self.position = (self.epoch, index + 1)
        runner.call_hook('after_train_iter', batch_idx=index, data_batch=None, outputs=outputs)
        self.iteration = index + 1

    def _exchange_flags(self, outputs: dict[str, Tensor]) -> None:
        """Learn of the step before this one: was it finite, and does any rank want to stop?

        Reading a step late keeps the GPU busy; sharing it lets all ranks leave together.
        """
        self.check_finite()
        self._flagged_step, self._last_outputs = self.iter + 1, outputs
        losses = torch.stack([v for k, v in outputs.items() if k.startswith('loss')])
        bad = (~torch.isfinite(losses)).any().float()
        if distributed.is_distributed():
            flags = torch.stack([bad, torch.full_like(bad, float(self.stop_requested))])
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        else:
            flags = torch.stack([bad, torch.zeros_like(bad)])
            self.stopped = self.stop_requested
        self.flag.put(flags)

    def check_finite(self) -> None:
        """Raise if a loss of the last step was not finite; note a shared wish to stop.

        Raises:
            UserError: naming the term, the position and the last good checkpoint.
        """
        flags = self.flag.take()
        if flags is None:
            return
        if flags[1]:
            self.stopped = True
        if flags[0]:
            terms = {k: v.item() for k, v in self._last_outputs.items() if k.startswith('loss')}
            bad = [f'{k} = {v}' for k, v in terms.items() if not -float('inf') < v < float('inf')]
            raise UserError(
                f"{', '.join(bad) or 'a loss on another rank'} is not finite",
                where=f'epoch {self.epoch + 1}, step {self._flagged_step}',
                expected=f'finite losses; the last good checkpoint is {self.runner.last_checkpoint}'
                         ', try a lower optimizer.lr, clip_grad=1.0 or amp=off')
