"""Learning-rate schedules as flat arrays: one value for every optimiser step of the run.

A schedule is a pure function of the step, so a resumed run needs no schedule state.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from ..errors import UserError
from ..registry import SCHEDULES
from ..values import NotNegative, Positive

By = Literal['iteration', 'epoch']
Warmup = Literal['before', 'within', 'inclusive']


def half_cosine(time: np.ndarray) -> np.ndarray:
    """Fall from 1 to 0 like half a cosine while ``time`` goes from 0 to 1."""
    return 0.5 * (1 + np.cos(math.pi * time))


def cosine_with_restarts(base_lr: float, steps: int, period: int, min_lr: float = 0.0
                         ) -> np.ndarray:
    """Half a cosine from ``base_lr`` towards ``min_lr``, begun anew every ``period`` steps.

    SGDR of Loshchilov & Hutter 2017 (arXiv:1608.03983) with periods of one length; shape (steps,).
    """
    time = np.arange(steps) % period / period
    return min_lr + (base_lr - min_lr) * half_cosine(time)


def cosine(start: float, end: float, steps: int) -> np.ndarray:
    """Go from ``start`` towards ``end`` like half a cosine, shape (steps,); ``end`` comes after."""
    return end + (start - end) * half_cosine(np.arange(steps) / max(steps, 1))


def _warm_up(rates: np.ndarray, base_lr: float | np.ndarray, warmup_steps: int,
             start: float) -> np.ndarray:
    """Replace the first ``warmup_steps`` rates by a line from start * base_lr upwards.

    ``base_lr`` may be an array of the rates that they would have.
    """
    if warmup_steps > 0:
        n = min(warmup_steps, len(rates))
        ramp = start + (1 - start) * np.arange(n) / warmup_steps
        rates[:n] = base_lr * ramp
    return rates


def endless_warm_up(rates: np.ndarray, base_lr: float, epochs: int, warmup_epochs: float
                    ) -> str | None:
    """Say that a warm-up is as long as the run or longer, which then never has its full rate.

    Args:
        rates: of every step of the run, shape (steps,).
        base_lr: the full rate.
        epochs: epochs of the run.
        warmup_epochs: length of the warm-up.

    Returns:
        The sentence; None where the warm-up ends in time or the full rate is reached.
    """
    if round(warmup_epochs * len(rates) / epochs) < len(rates) or rates.max() >= base_lr:
        return None
    return (f'the warm-up of {warmup_epochs:g} epochs does not end in this run of {epochs}: the '
            f'learning rate is {rates.max():.3g} at most and never {base_lr:g}; expected '
            f'schedule.warmup_epochs below {epochs}, such as {epochs / 10:g}, or more epochs')


def _positions(by: str, epochs: int, steps_per_epoch: int) -> np.ndarray:
    """Return the time of each step in steps, held for a whole epoch if ``by`` is 'epoch'."""
    if by not in ('iteration', 'epoch'):
        raise UserError(f"a schedule goes by 'iteration' or 'epoch', not {by!r}",
                        where='schedule.by')
    steps = np.arange(epochs * steps_per_epoch)
    return steps if by == 'iteration' else steps // steps_per_epoch * steps_per_epoch


@SCHEDULES.register_module()
def Cosine(base_lr: float, epochs: int, steps_per_epoch: int, min_lr: NotNegative = 0.0,
           warmup_epochs: NotNegative = 0.0, warmup_start: NotNegative = 0.001,
           by: By = 'iteration', warmup: Warmup = 'before') -> np.ndarray:
    """Half a cosine from ``base_lr`` to ``min_lr`` (Loshchilov & Hutter 2017), and a warm-up.

    Args:
        base_lr: learning rate at the top.
        epochs: epochs of the run.
        steps_per_epoch: optimiser steps of an epoch.
        min_lr: rate that the curve approaches at the end.
        warmup_epochs: length of the linear warm-up, fractions allowed.
        warmup_start: first rate as a fraction of ``base_lr``.
        by: 'iteration', or 'epoch' for a rate that is constant within an epoch.
        warmup: 'before' lets the cosine begin when the warm-up ends; 'within' lets it begin at
            once and the warm-up multiply its first rates, as OpenSelfSup does; 'inclusive' is
            'before', but the last step of the warm-up has the full rate already, as in DINO;
            a warm-up of a single step has its first rate, as there.

    Returns:
        Array of shape (epochs * steps_per_epoch,).
    """
    if warmup not in get_args(Warmup):
        raise UserError(f'there is no warm-up called {warmup!r}', where='schedule.warmup',
                        expected='one of ' + ', '.join(get_args(Warmup)))
    warmup_steps = round(warmup_epochs * steps_per_epoch)
    if warmup == 'within':
        rates = Cosine(base_lr, epochs, steps_per_epoch, min_lr, by=by)
        return _warm_up(rates, rates[:warmup_steps], warmup_steps, warmup_start)
    total = max(epochs * steps_per_epoch - warmup_steps, 1)
    time = np.clip(_positions(by, epochs, steps_per_epoch) - warmup_steps, 0, total) / total
    rates = min_lr + (base_lr - min_lr) * half_cosine(time)
    if warmup == 'inclusive':
        shown = min(warmup_steps, len(rates))
        rates[:shown] = np.linspace(warmup_start * base_lr, base_lr, warmup_steps)[:shown]
        return rates
    return _warm_up(rates, base_lr, warmup_steps, warmup_start)


@SCHEDULES.register_module()
def Step(base_lr: float, epochs: int, steps_per_epoch: int,
         milestones: Sequence[Positive] = (0.6, 0.8), gamma: Positive = 0.1,
         warmup_epochs: NotNegative = 0.0, warmup_start: NotNegative = 0.001,
         by: By = 'epoch') -> np.ndarray:
    """Multiply the rate by ``gamma`` at each milestone (MoCo v1: at 60 % and 80 %).

    Args:
        base_lr: learning rate at the start.
        epochs: epochs of the run.
        steps_per_epoch: optimiser steps of an epoch.
        milestones: epochs (1 or more), or fractions of the run (below 1).
        gamma: factor at each milestone.
        warmup_epochs: length of the linear warm-up.
        warmup_start: first rate as a fraction of ``base_lr``.
        by: 'epoch' for drops between epochs, 'iteration' for drops at the very step.

    Returns:
        Array of shape (epochs * steps_per_epoch,).
    """
    time = _positions(by, epochs, steps_per_epoch) / steps_per_epoch
    drops = sum((time >= (m * epochs if m < 1 else m) - 1e-9).astype(int) for m in milestones)
    rates = base_lr * gamma ** np.asarray(drops, dtype=float) * np.ones(len(time))
    return _warm_up(rates, base_lr, round(warmup_epochs * steps_per_epoch), warmup_start)


@SCHEDULES.register_module()
def QuarterCosine(base_lr: float, epochs: int, steps_per_epoch: int,
                  by: By = 'iteration') -> np.ndarray:
    """A quarter of a cosine from ``base_lr`` to 0, which falls late: CA2CL's ``cos: 2``.

    ``by`` is 'iteration', or 'epoch' for a rate that is constant within an epoch; shape
    (epochs * steps_per_epoch,).
    """
    time = _positions(by, epochs, steps_per_epoch) / max(epochs * steps_per_epoch, 1)
    return base_lr * np.cos(0.5 * math.pi * time)


@SCHEDULES.register_module()
def Constant(base_lr: float, epochs: int, steps_per_epoch: int, warmup_epochs: NotNegative = 0.0,
             warmup_start: NotNegative = 0.001) -> np.ndarray:
    """The same rate throughout, after warm-up; shape (epochs * steps_per_epoch,)."""
    rates = np.full(epochs * steps_per_epoch, float(base_lr))
    return _warm_up(rates, base_lr, round(warmup_epochs * steps_per_epoch), warmup_start)
