"""Trouble made visible: features that all look alike, outdated queues, teachers of nothing."""

import math
from collections.abc import Iterator
from typing import Any

from ... import distributed
from ...models.heads.dino import PROTOTYPES
from ...values import Count, Fraction, Positive, Whole
from .hook import Hook


class HealthHook(Hook):
    """Warn, once for each cause, when the monitors of the newest records are bad.

    The causes are those of :data:`_MEANS`.

    COLLAPSE: the features of different tiles look alike, or use ever fewer dimensions. DRIFT:
    negatives of a queue are easy because they are old, see
    :func:`openselfsup.models.health.key_drift`. Of methods with a student and a teacher (see
    :func:`openselfsup.models.health.target_entropies`): UNIFORM, the teacher says the same of all
    prototypes and the loss stays at ln K; CONSTANT, it says the same of all tiles; HEADS, the
    backbone joins in though the heads have not learnt anything.

    Args:
        min_feature_std: warn below this ``feature_std`` (1 = spread over the sphere,
            0 = all features equal).
        min_effective_rank: warn below this ``effective_rank`` (dimensions in use), or below a
            quarter of the tiles that it is computed over, where those are few.
        max_dead_dimensions: warn above this ``dead_dimensions`` (share that is constant).
        max_drift: warn above this drift of a queue (0 = old keys repel as new ones do, 1 = not
            at all).
        max_teacher_entropy: warn above this ``teacher_entropy`` (1 = uniform).
        max_cls_cosine: warn above this ``cls_cosine`` of different tiles (1 = all equal).
        max_kl_to_uniform: warn above this ``kl_to_uniform`` (1 = one prototype for all tiles).
        patience: records in a row that must be bad.
        narrow_start: steps, or the warm-up's if those are more, in which features may be as alike
            as an untrained network's: until then they are bad only where they have become twice
            as narrow as in the first record. The class token of a ViT with LayerScale begins
            equal for all tiles. A teacher may be undecided as long, but where heads learn alone.
    """

    def __init__(self, min_feature_std: Positive = 0.1, min_effective_rank: Positive = 5.0,
                 max_dead_dimensions: Fraction = 0.5, max_drift: Fraction = 0.3,
                 max_teacher_entropy: Fraction = 0.98, max_cls_cosine: Fraction = 0.99,
                 max_kl_to_uniform: Fraction = 0.98, patience: Count = 3,
                 narrow_start: Whole = 100):
        self.lowest = dict(feature_std=min_feature_std, effective_rank=min_effective_rank)
        self.max_dead, self.max_drift = max_dead_dimensions, max_drift
        self.teacher = dict(teacher_entropy=('UNIFORM', max_teacher_entropy),
                            cls_cosine=('CONSTANT', max_cls_cosine),
                            kl_to_uniform=('CONSTANT', max_kl_to_uniform))
        self.patience, self.narrow_start = patience, narrow_start
        self.first: dict[str, float] = {}  # what each monitor said first
        self.bad: dict[tuple[str, str], int] = {}  # records in a row, by cause and monitor
        self.told: set[str] = set()
        self.seen = -1

    def after_step(self, runner, outputs) -> None:
        """Look at a record once."""
        record = runner.record
        if not record or record['step'] == self.seen:
            return
        self.seen = record['step']
        self.first = {**record, **self.first}
        found = {(cause, key): said for cause, key, said in self._wrong(record, runner)}
        absent = {sign: count for sign, count in self.bad.items() if sign[1] not in record}
        self.bad = absent | {sign: self.bad.get(sign, 0) + 1 for sign in found}
        for (cause, key), said in found.items():
            if self.bad[cause, key] >= self.patience and cause not in self.told:
                self.told.add(cause)
                warn(runner, cause, f"{said}, for {self.patience} records up to step "
                                    f"{record['step']}")

    def _wrong(self, record: dict, runner: Any) -> Iterator[tuple[str, str, str]]:
        """Yield what is bad in a record: its cause, the monitor, what to say of it."""
        features = runner.algorithm.features  # of the last pass, which may be a short one
        rows = 0 if features is None else len(features)
        for key, limit in self.lowest.items():
            if key == 'effective_rank':
                limit = min(limit, rows / 4)
            if key in record and record[key] < limit and self._narrower(key, record, runner):
                yield 'COLLAPSE', key, (f'{key} is {record[key]:.3g} (healthy: well above '
                                        f'{limit:.3g})')
        key = 'dead_dimensions'
        if rows > 1 and record.get(key, 0) > self.max_dead and self._narrower(key, record, runner):
            yield 'COLLAPSE', key, f'{key} is {record[key]:.2g} (healthy: near 0)'
        for key, value in record.items():
            if key.endswith('_drift') and value > self.max_drift:
                yield 'DRIFT', key, f'{key} is {value:.2f} (healthy: near 0)'
        alone, most = runner.cfg.model.get('heads_only_epochs', 0), loss_of_uniform(runner)
        for key, (cause, limit) in self.teacher.items():
            if record.get(key, 0) <= limit:
                continue
            # To random weights tiles are much alike at first, and so to their teacher.
            if (key == 'cls_cosine' and self._narrower(key, record, runner)
                    or key == 'teacher_entropy' and (alone or self._has_learnt(record, runner))
                    or key == 'kl_to_uniform'):
                yield cause, key, f'{key} is {record[key]:.3f} (healthy: well below {limit:.3g})'
        if (alone and (record['step'] - 1) / runner.steps_per_epoch >= alone  # epochs behind it
                and record.get('loss_dino', 0) > 0.9 * most):
            yield 'HEADS', 'loss_dino', (f"loss_dino is {record['loss_dino']:.2f} after the epochs "
                                         f'of the heads alone (healthy: below {0.9 * most:.2f}, '
                                         '0.9 ln K)')

    def _narrower(self, key: str, record: dict, runner: Any) -> bool:
        """Return whether features are narrower than the run began, or can no longer be as then."""
        began, now = (1 - one[key] if key in ('dead_dimensions', 'cls_cosine') else one[key]
                      for one in (self.first, record))
        return self._has_learnt(record, runner) or now < began / 2

    def _has_learnt(self, record: dict, runner: Any) -> bool:
        """Return whether the warm-up and the first steps are behind."""
        warmup = runner.cfg.schedule.get('warmup_epochs', 0) * runner.steps_per_epoch
        return bool(record['step'] >= max(self.narrow_start, warmup))


def loss_of_uniform(runner: Any) -> float:
    """Return ln K of a head of K prototypes, infinity for methods without."""
    prototypes = _prototypes(runner.cfg.model)
    return math.log(prototypes) if prototypes else math.inf


def _prototypes(model: Any) -> int | None:
    """Return K of a model's config, None for methods without prototypes."""
    head = model.get('head') or {}
    return head.get('prototypes', PROTOTYPES) if head.get('type') == 'DINOHead' else None


def warn(runner: Any, cause: str, said: str) -> None:
    """Log a warning that begins with a cause's name and ends with what to change; rank 0 only.

    Args:
        runner: the run.
        cause: of :data:`_MEANS`.
        said: what was seen.
    """
    if distributed.is_main():  # ranks share the weights: one speaks for all
        runner.logger.warning('%s? %s: %s; try %s', cause, said, _MEANS[cause],
                              ', '.join(_remedies(cause, runner)))


_MEANS = {'BELOW START': 'training costs what the backbone knew before'} | dict(
    COLLAPSE='the features of different tiles look more and more alike',
    DRIFT='old keys lie elsewhere than new ones, so that the loss is won by telling old from new, '
          'not tiles from tiles',
    UNIFORM='the teacher prefers no prototype, so that the loss stays at ln K and nothing is '
            'learnt',
    CONSTANT='all tiles are the same to the teacher, and a student that says so has no loss',
    HEADS='the backbone now follows heads that are still random, and forgets what it knew')


def _remedies(cause: str, runner: Any) -> Iterator[str]:
    """Yield what to change, by the config's own names and values."""
    cfg, model, batch = runner.cfg, runner.cfg.model, runner.cfg.global_batch_size
    rate, warmup = cfg.optimizer.get('lr'), cfg.schedule.get('warmup_epochs', 0)
    if cause == 'HEADS':
        alone = model.heads_only_epochs
        yield (f'more epochs of the heads alone (model.heads_only_epochs {2 * alone:g} instead of '
               f'{alone:g})')
        return
    if rate and cause != 'UNIFORM':  # there a higher one left ln K sooner (docs/tried.md)
        yield f'a lower optimizer.lr ({rate / 3:.1g} instead of {rate:g})'
    if not warmup:
        yield 'a warm-up (schedule.warmup_epochs, now 0)'
    if prototypes := _prototypes(model):
        yield from _remedies_of_teachers(cause, model, prototypes, batch, runner.max_steps)
        return
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


def _remedies_of_teachers(cause: str, model: Any, prototypes: int, batch: int, steps: int
                          ) -> Iterator[str]:
    """Yield what to change of a method with a student and a teacher, in a run of so many steps."""
    if cause == 'UNIFORM':
        temperature = model.get('teacher_temperature', 0.04)
        if temperature > 0.02:
            sharper = 0.04 if temperature > 0.04 else 0.02
            yield (f'a sharper teacher (model.teacher_temperature {sharper:g} instead of '
                   f'{temperature:g})')
        remembers = round(1 / max(1 - model.get('teacher_momentum', 0.996), 1e-6))
        if remembers > steps / 10 and remembers > 10:
            yield (f'a teacher that follows faster (model.teacher_momentum 0.9 and '
                   f'model.final_momentum 0.99: now it remembers {remembers} of {steps} steps)')
        if prototypes > 64 * batch:
            yield (f'fewer prototypes (model.head.prototypes {64 * batch} instead of {prototypes}, '
                   f'for {batch} tiles a batch)')
    if cause in ('UNIFORM', 'CONSTANT', 'COLLAPSE'):
        if model.get('targets', 'centering' if model.type != 'DINOv2' else '') == 'centering':
            yield "targets that use all prototypes (model.targets='sinkhorn')"
        yield f'a larger global_batch_size (now {batch})'
    if cause == 'BELOW START':
        still = model.get('backbone_warmup_epochs', 0.)
        yield (f'a backbone that joins in slower (model.backbone_warmup_epochs '
               f'{max(2 * still, 1):g} instead of {still:g})')
        yield 'a smaller optimizer.layer_decay, which keeps the lower layers'
