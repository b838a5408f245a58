"""One live line an epoch on a terminal; elsewhere the log lines say the same."""

import datetime
import time

from rich.progress import BarColumn, Progress, TextColumn

from ... import distributed
from ..work_dir import CONSOLE
from .hook import Hook


class ProgressHook(Hook):
    """Show losses, learning rate, tiles/s, data wait and the time left while an epoch runs."""

    def __init__(self):
        self.progress: Progress | None = None

    def before_train(self, runner) -> None:
        """Remember where the clock of the time left starts."""
        self.began, self.first = time.perf_counter(), runner.steps_done

    def before_epoch(self, runner) -> None:
        """Open the epoch's line."""
        if not (CONSOLE.is_terminal and distributed.is_main()):
            return
        self.progress = Progress(
            TextColumn('epoch {task.fields[epoch]}'), BarColumn(bar_width=16),
            TextColumn('{task.completed}/{task.total}'), TextColumn('{task.fields[numbers]}'),
            console=CONSOLE, refresh_per_second=2)
        self.task = self.progress.add_task(
            '', total=runner.steps_per_epoch, completed=runner.position.step,
            epoch=f'{runner.position.epoch + 1}/{runner.cfg.epochs}', numbers='')
        self.progress.start()

    def after_step(self, runner, outputs) -> None:
        """Move the bar; numbers change when a new record was written."""
        if self.progress is not None:
            self.progress.update(self.task, completed=runner.position.step,
                                 numbers=self._numbers(runner))

    def after_epoch(self, runner) -> None:
        """Leave the finished line standing."""
        self._close()

    def close(self, runner) -> None:
        """Give the terminal back, also when a run ends early."""
        self._close()

    def _close(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def _numbers(self, runner) -> str:
        record = runner.record
        done, left = runner.steps_done - self.first, runner.max_steps - runner.steps_done
        seconds = (time.perf_counter() - self.began) / done * left
        left = f'ETA {datetime.timedelta(seconds=round(seconds))}'
        if not record:
            return left
        losses = ' '.join(f"{k.removeprefix('loss_') } {v:.3f}" for k, v in record.items()
                          if k.startswith('loss'))
        return (f"{losses} lr {record['lr']:.2g} {record['tiles_per_s']:.0f} tiles/s "
                f"wait {100 * record['data_wait']:.0f} % {left}")
