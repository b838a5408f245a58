"""Where a run is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Position:
    """What lies behind a run, and so the step that it takes next.

    Attributes:
        epoch: epochs that are finished, their hooks and checkpoint included.
        step: optimiser steps taken in the epoch after those. At the end of an epoch it is the
            number of the epoch's steps until the epoch counts as finished.
    """

    epoch: int = 0
    step: int = 0

    def after_step(self) -> 'Position':
        """Return the position one step further."""
        return Position(self.epoch, self.step + 1)

    def after_epoch(self) -> 'Position':
        """Return the position at the start of the next epoch."""
        return Position(self.epoch + 1)
