"""The base class of hooks, and the loop that they hook into."""

from typing import ClassVar, Literal

from torch import Tensor

ORDER = ('first', 'early', 'normal', 'late')


class Hook:
    """Something that happens around the steps of a run. Override what you need.

    The loop of :meth:`openselfsup.engine.runner.Runner.train`::

        before_train                   files are opened, the first batch is drawn
        for each epoch:
            before_epoch               the untrained backbone is probed; a progress line opens
            for each step:
                before_step
                    views, forward, backward, update; runner.position moves on by a step
                after_step             metrics are written, collapse is looked for, latest.pth
                                       is refreshed where that is due
            runner.position moves on to the next epoch
            after_epoch                probes, pictures, then epoch_N.pth
        after_train                    the end is reached or a stop was asked for: what is left
                                       is written and saved
        close                          always, also after an error: give back what is held

    All hooks get one method's call before any gets the next. ``runner.position`` says what lies
    behind the run: in ``after_epoch``, ``runner.position.epoch`` epochs are finished. A run that
    goes on starts with ``before_train`` and ``before_epoch`` at the position where it stopped.

    Attributes:
        order: who acts first where several hooks have the same method: 'first' ones (which change
            what is trained, such as clusters), then 'early' ones (probes, whose scores belong into
            the epoch's checkpoint), then 'normal' ones (those that every run has before those of
            the config), then 'late' ones.
    """

    order: ClassVar[Literal['first', 'early', 'normal', 'late']] = 'normal'

    def before_train(self, runner) -> None:
        """Act once before the first step of this process; refuse here what cannot work."""

    def before_epoch(self, runner) -> None:
        """Act before the first step of an epoch, or of the rest of one."""

    def before_step(self, runner) -> None:
        """Act before a step."""

    def after_step(self, runner, outputs: dict[str, Tensor]) -> None:
        """Act after a step.

        Args:
            runner: the run.
            outputs: the step's losses and monitors, scalars on the device. Reading one makes the
                host wait for the device.
        """

    def after_epoch(self, runner) -> None:
        """Act after a whole epoch; one that was stopped within does not count."""

    def after_train(self, runner) -> None:
        """Act after the last step, unless an error ended the run."""

    def close(self, runner) -> None:
        """Give back what is held; an error may be on its way."""
