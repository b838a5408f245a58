"""Saving: at the end of epochs, every so many steps, and where a signal stops the run."""

import re
import time
from functools import partial
from pathlib import Path

from ... import distributed
from .hook import Hook

PATIENCE = 30.0  # seconds


class CheckpointHook(Hook):
    """Keep latest.pth fresh and epoch_N.pth at intervals; save before a stopped run leaves.

    The end of an epoch refreshes latest.pth, unless epochs are so short that the last save
    is less than ``PATIENCE`` seconds old: writing would take longer than training. A copy is
    written in the background while the run goes on; what the run ends with is waited for.

    Args:
        interval: epochs between two ``epoch_N.pth``; the last epoch always gets one.
        save_every: optimiser steps between two refreshes of ``latest.pth``, or None.
        keep: how many ``epoch_N.pth`` to keep, or None for all.
    """

    def __init__(self, interval: int = 10, save_every: int | None = None,
                 keep: int | None = None):
        self.interval, self.save_every, self.keep = interval, save_every, keep
        self.saved = time.monotonic()

    def after_step(self, runner, outputs) -> None:
        """Refresh latest.pth where that is due within an epoch."""
        runner.saver.settle()
        if self.save_every and runner.steps_done % self.save_every == 0:
            runner.finite.check()
            runner.save_checkpoint(background=True)

    def after_epoch(self, runner) -> None:
        """Save the finished epoch."""
        epoch, last = runner.position.epoch, runner.cfg.epochs
        runner.saver.settle()
        if runner.is_due(self.interval):
            runner.save_checkpoint(f'epoch_{epoch}.pth', epoch == last, background=epoch != last,
                                   written=partial(self._forget_old, runner.work_dir))
            self.saved = time.monotonic()
        elif self._is_due(runner):
            runner.save_checkpoint(background=True)
            self.saved = time.monotonic()

    def after_train(self, runner) -> None:
        """Save where the run was stopped before its end."""
        if runner.interrupted:
            runner.save_checkpoint(must=True)
            runner.logger.warning(
                'stopped %s at epoch %d, step %d; saved %s, go on with --resume',
                'by a signal' if runner.stop_signal else 'as a hook or another rank asked',
                runner.position.epoch + 1, runner.steps_done, runner.last_checkpoint)

    def _is_due(self, runner) -> bool:
        """Return, on all ranks alike, whether the last good save is a while ago."""
        return distributed.broadcast_object(
            runner.failed_saves > 0 or time.monotonic() - self.saved > PATIENCE)

    def _forget_old(self, work_dir: Path) -> None:
        if self.keep is None or not distributed.is_main():
            return
        found = {int(m.group(1)): p for p in work_dir.glob('epoch_*.pth')
                 if (m := re.fullmatch(r'epoch_(\d+)\.pth', p.name))}
        for epoch in sorted(found)[:-self.keep]:
            found[epoch].unlink(missing_ok=True)
