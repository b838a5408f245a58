"""Numbers of the run: metrics.jsonl, TensorBoard events, train.log."""

import time

from torch import Tensor, nn

from ... import distributed
from ...models import health
from ...models.memories import Queue
from ...models.method import Method
from ...training.metrics_writer import MetricsWriter
from ...training.progress import Meter, pace
from .hook import Hook


class MetricsHook(Hook):
    """Average what a step returns and write it every ``interval`` optimiser steps.

    Between two writes nothing is fetched from the device: values are summed where they
    are. A line also ends every epoch. The newest line is ``runner.record``.

    Args:
        interval: optimiser steps between two lines.
    """

    def __init__(self, interval: int = 50):
        self.interval, self.meter = interval, Meter()

    def before_train(self, runner) -> None:
        """Open the files; lines of steps that are about to be repeated are dropped."""
        runner.record = {}
        self.started, self.waited, self.meter = time.perf_counter(), 0.0, Meter()
        self.first_step = runner.steps_done
        if not distributed.is_main():
            return
        self.writer = MetricsWriter(runner.work_dir, runner.logger, runner.steps_done)

    def after_step(self, runner, outputs: dict[str, Tensor]) -> None:
        """Add the step's values; write a line where one is due."""
        self.meter.add(outputs)
        ended = runner.position.step == runner.steps_per_epoch
        if ended or runner.steps_done % self.interval == 0:
            runner.record = self._write(runner)

    def after_train(self, runner) -> None:
        """Write what is left and say what the whole run did."""
        if self.meter.steps:
            runner.record = self._write(runner)
        seconds = time.perf_counter() - self.started
        steps = runner.steps_done - self.first_step
        if steps:
            rate = steps * runner.cfg.global_batch_size / seconds
            share = self.waited / seconds
            runner.logger.info(
                '%d steps in %.1f min, %s; %.0f %% of the time waiting for data: %s',
                steps, seconds / 60, pace(rate), 100 * share,
                what_limits(share, runner.finite.flag.waited / seconds, runner.device.type))
        if corrupt := runner.loader.corrupt_count:
            runner.logger.warning('%d tiles could not be read and were replaced; '
                                  'openselfsup verify --full lists them', corrupt)

    def _write(self, runner) -> dict:
        runner.finite.check()
        found = self.meter.take(monitors(runner.algorithm, runner.module))
        wait = runner.loader.take_wait()
        self.waited += wait
        step, tiles = runner.steps_done, found.steps * runner.cfg.global_batch_size
        record = dict(step=step, epoch=runner.position.epoch + 1, iteration=runner.position.step,
                      lr=float(runner.learning_rates[step - 1]), **found.values,
                      tiles_per_s=tiles / found.seconds,
                      data_wait=min(wait / found.seconds, 1.0),
                      corrupt_tiles=runner.loader.corrupt_count)
        if distributed.is_main():
            self.writer.write(record)
        return record


def write_line(runner, step: int, epoch: int, found: dict[str, float]) -> None:
    """Write a further line of metrics.jsonl; rank 0 only, between ``before_train`` and the end.

    Args:
        runner: the run.
        step: optimiser steps behind it.
        epoch: epochs behind it.
        found: finite numbers by their names.
    """
    metrics = next(hook for hook in runner.hooks if isinstance(hook, MetricsHook))
    metrics.writer.write(dict(step=step, epoch=epoch)
                         | {name: round(value, 6) for name, value in found.items()})


def monitors(algorithm: Method, module: nn.Module) -> dict[str, Tensor]:
    """Return what is too dear for every step, of the last features and of all queues.

    Each :class:`Queue` of the method gives its name and ``_drift`` once it holds two batches of
    keys; no others: slots that are still random do not count. The method's ``temperature`` is
    needed for it.

    Args:
        algorithm: the method.
        module: the same object as what holds its tensors.
    """
    features, found = algorithm.features, dict[str, Tensor]()
    if features is not None:
        found = dict(effective_rank=health.effective_rank(features),
                     dead_dimensions=health.dead_dimensions(features))
    temperature = getattr(algorithm, 'temperature', None)
    for name, queue in module.named_modules():
        if isinstance(queue, Queue) and temperature is not None:
            drift = health.key_drift(queue.in_order(), queue.batch, temperature)
            if drift is not None:  # on all ranks alike: they hold the same keys
                found[f'{name}_drift'.replace('.', '_')] = drift
    return found


def what_limits(data: float, device: float, kind: str) -> str:
    """Say what a run waited for most.

    Args:
        data: share of the time in which the training loop waited for batches.
        device: share of the time in which it waited for the device to finish a step.
        kind: 'cpu', where host and device are one, or 'cuda'.
    """
    if data > 0.2:
        return 'data limits this run, try more workers or packed tiles'
    if kind != 'cpu' and device < 0.05:
        return 'the host limits this run, try compile=True or a larger batch'
    return 'the model limits this run'
