"""Collapse made visible: features that all look alike raise a warning."""

from .hook import Hook


class HealthHook(Hook):
    """Warn when the monitors of the newest record say that the features collapse.

    Args:
        min_feature_std: warn below this ``feature_std`` (1 = spread over the sphere,
            0 = all features equal).
        min_effective_rank: warn below this ``effective_rank`` (dimensions in use).
        patience: records in a row that must be bad, since a run may start narrow.
    """

    def __init__(self, min_feature_std: float = 0.1, min_effective_rank: float = 2.0,
                 patience: int = 3):
        self.limits = dict(feature_std=min_feature_std, effective_rank=min_effective_rank)
        self.patience = patience
        self.bad = dict.fromkeys(self.limits, 0)
        self.seen = -1

    def after_step(self, runner, outputs) -> None:
        """Look at a record once."""
        record = runner.record
        if not record or record['step'] == self.seen:
            return
        self.seen = record['step']
        for key, limit in self.limits.items():
            if key not in record:
                continue
            self.bad[key] = self.bad[key] + 1 if record[key] < limit else 0
            if self.bad[key] == self.patience:
                runner.logger.warning(
                    'COLLAPSE? %s is %.3g (healthy: well above %.3g) for %d records up to step '
                    '%d: the features of different tiles look alike; try a lower learning rate, '
                    'a longer queue, SplitBN on one process', key, record[key], limit,
                    self.patience, record['step'])
