"""One live line an epoch on a terminal; elsewhere the log lines say the same."""

import logging

from torch import Tensor

from ...training.progress import ProgressLine
from .hook import Hook


class ProgressHook(Hook):
    """Show losses, learning rate, tiles/s, data wait and the time left while an epoch runs."""

    def __init__(self):
        self.line = ProgressLine(logging.getLogger(__name__), 0)
        self.told = -1  # step of the newest record that was told

    def before_train(self, runner) -> None:
        """Remember where the clock of the time left starts."""
        self.line = ProgressLine(runner.logger, runner.max_steps, runner.steps_done)

    def before_epoch(self, runner) -> None:
        """Open the epoch's line."""
        self.line.open(f'epoch {runner.position.epoch + 1}/{runner.cfg.epochs}',
                       runner.steps_per_epoch, runner.position.step)

    def after_step(self, runner, outputs: dict[str, Tensor]) -> None:
        """Move the line; numbers change when a new record was written."""
        self.line.advance()
        self._tell(runner)

    def after_epoch(self, runner) -> None:
        """Leave the finished line standing."""
        self.line.close()

    def after_train(self, runner) -> None:
        """Tell what was written last, where a run was stopped within an epoch."""
        self._tell(runner)

    def close(self, runner) -> None:
        """Give the terminal back, also when a run ends early."""
        self.line.close()

    def _tell(self, runner) -> None:
        record = runner.record
        if not record or record['step'] == self.told:
            return
        self.told = record['step']
        self.line.record(
            f"epoch {record['epoch']}/{runner.cfg.epochs} "
            f"[{record['iteration']}/{runner.steps_per_epoch}]",
            {key: value for key, value in record.items() if key.startswith('loss')}
            | {key: record[key] for key in ('lr', 'tiles_per_s', 'data_wait')})
