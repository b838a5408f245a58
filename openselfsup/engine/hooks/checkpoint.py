"""Saving: at the end of epochs, every so many steps, and before a signal ends the run."""

import math
import re
import signal
import threading
import time
from pathlib import Path

from mmengine.hooks import Hook

from ... import distributed

PATIENCE = 30.0  # seconds


class CheckpointHook(Hook):
    """Keep latest.pth fresh and epoch_N.pth at intervals; save before leaving on a signal.

    The end of an epoch refreshes latest.pth, unless epochs are so short that the last save
    is less than ``PATIENCE`` seconds old: writing would take longer than training.

    Args:
        interval: epochs between two ``epoch_N.pth``; the last epoch always gets one.
        save_every: optimiser steps between two refreshes of ``latest.pth``, or None.
        keep: how many ``epoch_N.pth`` to keep, or None for all.
    """

    def __init__(self, interval: int = 10, save_every: int | None = None,
                 keep: int | None = None):
        self.interval, self.save_every, self.keep = interval, save_every, keep
        self.previous: dict[int, object] = {}
        self.saved = time.monotonic()

    def before_run(self, runner) -> None:
        """Catch SIGTERM (schedulers) and the first Ctrl-C; a second Ctrl-C ends at once.

        Python hands signals to the main thread only: a run in another one, as in a notebook's
        server, is stopped by its own program.
        """
        def ask_to_stop(number, frame):
            runner.loop.stop_requested = True
            runner.stop_signal = number
            signal.signal(signal.SIGINT, signal.default_int_handler)

        runner.stop_signal = None
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            self.previous[number] = signal.signal(number, ask_to_stop)

    def after_run(self, runner) -> None:
        """Give the signals back."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous.clear()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Refresh latest.pth where that is due within an epoch."""
        if self.save_every and (runner.iter + 1) % self.save_every == 0:
            runner.loop.check_finite()
            runner.save_checkpoint()

    def after_train_epoch(self, runner) -> None:
        """Save the finished epoch."""
        epoch, last = runner.epoch + 1, runner.loop.max_epochs
        if epoch % self.interval == 0 or epoch == last:
            if runner.save_checkpoint(f'epoch_{epoch}.pth', must=epoch == last):
                self._forget_old(Path(runner.work_dir))
                self.saved = time.monotonic()
            else:  # tried again after the next epoch
                self.saved = -math.inf
        elif time.monotonic() - self.saved > PATIENCE and runner.save_checkpoint():
            self.saved = time.monotonic()

    def after_train(self, runner) -> None:
        """Save where a signal stopped the run."""
        if runner.loop.stopped:
            runner.save_checkpoint(must=True)
            runner.logger.warning('stopped by a signal at epoch %d, step %d; saved %s, go on with '
                                  '--resume', runner.epoch + 1, runner.loop.total_steps_done,
                                  runner.last_checkpoint)

    def _forget_old(self, work_dir: Path) -> None:
        if self.keep is None or not distributed.is_main():
            return
        found = {int(m.group(1)): p for p in work_dir.glob('epoch_*.pth')
                 if (m := re.fullmatch(r'epoch_(\d+)\.pth', p.name))}
        for epoch in sorted(found)[:-self.keep]:
            found[epoch].unlink(missing_ok=True)
