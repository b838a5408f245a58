"""Trouble made visible: features that all look alike, queues whose keys are outdated."""

from collections.abc import Iterator
from typing import Any

from ...values import Count, Fraction, Positive
from .hook import Hook


class HealthHook(Hook):
    """Warn, once for each cause, when the monitors of the newest records are bad.

    COLLAPSE: the features of different tiles look alike, or use ever fewer dimensions. DRIFT:
    negatives of a queue are easy because they are old, see
    :func:`openselfsup.models.health.key_drift`.

    Args:
        min_feature_std: warn below this ``feature_std`` (1 = spread over the sphere,
            0 = all features equal).
        min_effective_rank: warn below this ``effective_rank`` (dimensions in use), or below a
            quarter of the tiles that it is computed over, where those are few.
        max_dead_dimensions: warn above this ``dead_dimensions`` (share that is constant).
        max_drift: warn above this drift of a queue (0 = old keys repel as new ones do, 1 = not
            at all).
        patience: records in a row that must be bad, since a run may start narrow.
    """

    def __init__(self, min_feature_std: Positive = 0.1, min_effective_rank: Positive = 5.0,
                 max_dead_dimensions: Fraction = 0.5, max_drift: Fraction = 0.3,
                 patience: Count = 3):
        self.lowest = dict(feature_std=min_feature_std, effective_rank=min_effective_rank)
        self.max_dead, self.max_drift = max_dead_dimensions, max_drift
        self.patience = patience
        self.bad: dict[tuple[str, str], int] = {}  # records in a row, by cause and monitor
        self.told: set[str] = set()
        self.seen = -1

    def after_step(self, runner, outputs) -> None:
        """Look at a record once."""
        record = runner.record
        if not record or record['step'] == self.seen:
            return
        self.seen = record['step']
        found = {(cause, key): said for cause, key, said in self._wrong(record, runner)}
        absent = {sign: count for sign, count in self.bad.items() if sign[1] not in record}
        self.bad = absent | {sign: self.bad.get(sign, 0) + 1 for sign in found}
        for (cause, key), said in found.items():
            if self.bad[cause, key] >= self.patience and cause not in self.told:
                self.told.add(cause)
                runner.logger.warning('%s? %s, for %d records up to step %d: %s; try %s', cause,
                                      said, self.patience, record['step'], _MEANS[cause],
                                      ', '.join(_remedies(cause, runner)))

    def _wrong(self, record: dict, runner: Any) -> Iterator[tuple[str, str, str]]:
        """Yield what is bad in a record: its cause, the monitor, what to say of it."""
        for key, limit in self.lowest.items():
            limit = min(limit, runner.batch_size / 4) if key == 'effective_rank' else limit
            if record.get(key, limit) < limit:
                yield 'COLLAPSE', key, (f'{key} is {record[key]:.3g} (healthy: well above '
                                        f'{limit:.3g})')
        if record.get('dead_dimensions', 0) > self.max_dead:
            yield 'COLLAPSE', 'dead_dimensions', (
                f"dead_dimensions is {record['dead_dimensions']:.2g} (healthy: near 0)")
        for key, value in record.items():
            if key.endswith('_drift') and value > self.max_drift:
                yield 'DRIFT', key, f'{key} is {value:.2f} (healthy: near 0)'


_MEANS = dict(
    COLLAPSE='the features of different tiles look more and more alike',
    DRIFT='old keys lie elsewhere than new ones, so that the loss is won by telling old from new, '
          'not tiles from tiles')


def _remedies(cause: str, runner: Any) -> Iterator[str]:
    """Yield what to change, by the config's own names and values."""
    cfg, model, batch = runner.cfg, runner.cfg.model, runner.cfg.global_batch_size
    rate, warmup = cfg.optimizer.get('lr'), cfg.schedule.get('warmup_epochs', 0)
    if rate:
        yield f'a lower optimizer.lr ({rate / 3:.1g} instead of {rate:g})'
    if not warmup:
        yield 'a warm-up (schedule.warmup_epochs, now 0)'
    momentum, length = model.get('momentum'), model.get('queue_len')
    if cause == 'DRIFT':
        if momentum is not None and momentum < 0.999:
            yield (f'a key encoder that moves slower (model.momentum '
                   f'{1 - (1 - momentum) / 10:.4g} instead of {momentum:g})')
        if length and length > 4 * batch:
            yield (f'a shorter queue (model.queue_len {length // 4} instead of {length}, which '
                   f'holds the keys of {length // batch} steps)')
        return
    if not length:
        yield f'a larger global_batch_size (now {batch})'
    norm = (model.get('backbone') or {}).get('norm_cfg') or dict(type='BN')
    if momentum is not None and runner.world_size == 1 and norm['type'] == 'BN':
        yield ("model.backbone.norm_cfg.type='SplitBN' (statistics of a whole batch tell which "
               'query and key belong together)')
