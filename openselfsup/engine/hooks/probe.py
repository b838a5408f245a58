"""Probes: what the features are worth while they are being learnt.

A probe looks at the backbone in eval mode, without gradients, with random numbers of its own,
and leaves everything as it found it: a run with probes ends in the same weights, bit for bit,
as the run without.
"""

import json
import math
import re
import time
from abc import ABC, abstractmethod
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ... import distributed
from ...datasets.labeled import LabeledTileDataset
from ...errors import UserError
from ...evaluation.data import paths_of
from ...evaluation.knn import leave_one_out_accuracy
from ...evaluation.linear_probe import fit_linear
from ...evaluation.patients import all_or_none, check_pattern, patients_of, redrawn
from ...evaluation.sampling import hold_out
from ...registry import HOOKS
from ...training.features import extract_features
from ...training.metrics_writer import METRICS
from ...values import Count, Positive, Seed, Share
from .health import warn
from .hook import Hook
from .metrics import write_line

NOISE = 0.01  # of a score: less is no loss; nor are two standard errors of a share


class ProbeHook(Hook, ABC):
    """What all probes share: when they look, what they write, the best checkpoint.

    After every ``interval`` epochs, the last one, and before the first step, a line with
    ``step``, ``epoch`` and the probe's scores is added to metrics.jsonl and the scores to
    TensorBoard. Rank 0 probes, the other ranks wait for it. A probe of your own says what it
    measures in :meth:`measure`. A backbone that gets worse than it was before the first step is
    told once, as BELOW START; until it is better than that, no best checkpoint is written.

    Args:
        interval: epochs between two probes.
        at_start: also probe the untrained backbone, as what to compare with.
        save_best: keep the best checkpoint so far under :attr:`best_file`.
        name: of this probe where there are several of its kind, letters, digits and underscores:
            ``probe_knn`` becomes ``probe_knn_NAME`` and ``best_knn.pth`` ``best_knn_NAME.pth``.

    Attributes:
        key: the score that chooses the best checkpoint, as :meth:`measure` calls it.
        best: how good that one is, see :meth:`goodness`.
        start: the scores before the first step; None if they are not known.
        counted: how many tiles or cells the score is a share of; None for other scores.

    Raises:
        UserError: the name is none.
    """

    order = 'early'  # before the checkpoint of the epoch is written
    best_file = ''
    key = ''
    start: dict[str, float] | None = None
    counted: int | None = None
    told = False

    def __init__(self, interval: Count = 10, at_start: bool = True, save_best: bool = True,
                 name: str = ''):
        if not re.fullmatch(r'\w*', name):
            raise UserError(f"'{name}' is no name of a probe",
                            where=f'hooks.{type(self).__name__}.name',
                            expected='letters, digits and underscores')
        self.interval, self.at_start, self.save_best = interval, at_start, save_best
        self.best, self.suffix = -math.inf, f'_{name}' if name else ''
        self.best_file = self.best_file.replace('.pth', f'{self.suffix}.pth')

    @abstractmethod
    def measure(self, runner) -> dict[str, float]:
        """Return the scores of the backbone as it is now, under names for metrics.jsonl."""

    def goodness(self, found: dict[str, float]) -> float:
        """Return what is larger for a better checkpoint, by default its score ``key``."""
        return found[self.key]

    def scale(self, found: dict[str, float]) -> float:
        """Return what a hundredth is too little to tell of, by default the score ``key``."""
        return abs(found[self.key])

    def before_train(self, runner) -> None:
        """Take the best score so far from metrics.jsonl."""
        path = runner.work_dir / METRICS
        lines = path.read_text(encoding='utf-8').splitlines() if path.exists() else []
        read = [_read(line, runner.steps_done) for line in lines]
        own = [(line['step'], {name.removesuffix(self.suffix): value
                               for name, value in line.items() if name.endswith(self.suffix)})
               for line in read if self.key + self.suffix in line]
        kept = not self.save_best or (runner.work_dir / self.best_file).exists()
        self.best = max((self.goodness(found) for step, found in own if kept or step == 0),
                        default=-math.inf)
        self.start = next((found for step, found in own if step == 0), None)

    def before_epoch(self, runner) -> None:
        """Probe the untrained backbone once."""
        if runner.steps_done == 0 and self.at_start:
            self._probe(runner, step=0, epoch=0)

    def after_epoch(self, runner) -> None:
        """Probe where that is due."""
        if runner.is_due(self.interval):
            self._probe(runner, runner.steps_done, runner.position.epoch)

    def _probe(self, runner, step: int, epoch: int) -> None:
        runner.gather_backbone()
        score = self._look(runner, step, epoch) if distributed.is_main() else -math.inf
        runner.saver.settle(wait=True)
        better = distributed.broadcast_object(score > self.best)
        if self.save_best and step and better:
            # The best is what there is a file of: a full disk leaves the next one a chance.
            runner.save_checkpoint(self.best_file, background=True, latest=False,
                                   written=partial(self._keep, score))
        elif better:
            self._keep(score)

    def _keep(self, score: float) -> None:
        self.best = score

    def _look(self, runner, step: int, epoch: int) -> float:
        """Measure and write the scores; return how good they are."""
        start = time.perf_counter()
        found = {name: value for name, value in self.measure(runner).items()
                 if math.isfinite(value)}  # JSON has no other numbers
        named = {name + self.suffix: value for name, value in found.items()}
        write_line(runner, step, epoch, named)
        said = '  '.join(f'{name} {value:.3f}' for name, value in named.items())
        runner.logger.info('probe after epoch %d: %s (%.1f s)', epoch, said,
                           time.perf_counter() - start)
        if self.key not in found:
            return -math.inf
        self._compare_with_start(runner, step, found)
        return self.goodness(found)

    def _compare_with_start(self, runner, step: int, found: dict[str, float]) -> None:
        if step == 0:
            self.start = found
        if self.start is None or self.told:
            return
        began = self.goodness(self.start)
        if self.goodness(found) < began - self._noise(self.start):
            self.told = True
            kept = (runner.work_dir / self.best_file if self.best > began
                    else 'what the run started from')
            warn(runner, 'BELOW START', f'{self.key}{self.suffix} is {found[self.key]:.3f} after '
                 f'step {step}, and was {self.start[self.key]:.3f} before the first (the best so '
                 f'far is {kept})')

    def _noise(self, start: dict[str, float]) -> float:
        share = min(max(start[self.key], 0.), 1.)
        error = math.sqrt(share * (1 - share) / self.counted) if self.counted else 0.
        return max(NOISE * self.scale(start), 2 * error)


class LabelledProbeHook(ProbeHook):
    """A probe that scores pooled features of labelled tiles.

    Where all paths tell the patient, nothing is judged by other tiles of the same patient. Windows
    of one image are taken for those of one patient.

    Args:
        source: labelled tiles (``type`` in SOURCES), e.g. class folders.
        interval, at_start, save_best, name: see :class:`ProbeHook`.
        size: side of the input in pixels, by default that of the views.
        batch_size: tiles of one forward pass.
        patient_pattern: regular expression whose first group is the patient in a tile's path;
            TCGA barcodes if None.

    Attributes:
        patients: number of each tile's patient, int64 (N,); None where they are unknown, or one.

    Raises:
        UserError: all tiles are of one class, or the pattern does not tell patients apart.
    """

    def __init__(self, source: dict, interval: Count = 10, size: Count | None = None,
                 batch_size: Count = 64, at_start: bool = True, save_best: bool = True,
                 patient_pattern: str | None = None, name: str = ''):
        super().__init__(interval, at_start, save_best, name)
        self.size, self.batch_size = size, batch_size
        # Smaller tiles than views are enlarged by the dataset, so any size will do for now.
        self.tiles = LabeledTileDataset(source, size or 224)
        self.counted = len(self.tiles)
        if len(self.tiles.labels.unique()) < 2:
            raise UserError(f'all {len(self.tiles)} labelled tiles are of one class: every '
                            'backbone would be right', where=f'hooks.{type(self).__name__}.source',
                            expected='tiles of two classes or more')
        self.patients = self._patients(patient_pattern)

    def _patients(self, pattern: str | None) -> Tensor | None:
        paths = paths_of(self.tiles.source)
        try:
            told = patients_of(paths, pattern)
            check_pattern(pattern, told, paths)
        except UserError as error:
            raise UserError(error.what, where=f'hooks.{type(self).__name__}.patient_pattern',
                            expected=error.expected) from None
        patients = redrawn(all_or_none(told))
        return (None if patients is None
                else torch.from_numpy(np.unique(patients, return_inverse=True)[1]))

    @abstractmethod
    def scores(self, features: Tensor) -> dict[str, float]:
        """Return the scores of features (N, C), under names for metrics.jsonl."""

    def before_train(self, runner) -> None:
        """Take the size from the views, and the best score so far from metrics.jsonl."""
        super().before_train(runner)
        if self.size is None:
            self.tiles.size = self.tiles.resize = min(runner.dataset.recipes[0].size)
        if self.patients is None and distributed.is_main():
            runner.logger.info('%s%s: no patients are told (patient_pattern): tiles of one may '
                               'judge each other', self.key, self.suffix)

    def measure(self, runner) -> dict[str, float]:
        """Return the scores of the backbone's features."""
        normalize = runner.cfg.normalize
        return self.scores(extract_features(
            runner.backbone, self.tiles, self.batch_size, normalize['mean'],
            normalize['std'], runner.amp))


@HOOKS.register_module()
class KNNProbeHook(LabelledProbeHook):
    """Leave-one-out accuracy of the k nearest neighbours, as ``probe_knn``.

    The best checkpoint is ``best_knn.pth``.

    Args:
        source, interval, size, batch_size, at_start, save_best, patient_pattern, name: see
            :class:`LabelledProbeHook`.
        k: number of neighbours, fewer where there are fewer tiles of other patients.
        temperature: a neighbour of similarity s weighs exp(s / T); None counts votes.
    """

    best_file, key = 'best_knn.pth', 'probe_knn'

    def __init__(self, source: dict, interval: Count = 10, size: Count | None = None,
                 batch_size: Count = 64, at_start: bool = True, save_best: bool = True,
                 k: Count = 20, temperature: Positive | None = 0.07,
                 patient_pattern: str | None = None, name: str = ''):
        super().__init__(source, interval, size, batch_size, at_start, save_best,
                         patient_pattern, name)
        own = 1 if self.patients is None else int(self.patients.bincount().max())
        self.k, self.temperature = min(k, len(self.tiles) - own), temperature

    def scores(self, features: Tensor) -> dict[str, float]:
        return {self.key: leave_one_out_accuracy(features, self.tiles.labels, self.k,
                                                 self.temperature, self.patients)}


@HOOKS.register_module()
class LinearProbeHook(LabelledProbeHook):
    """Accuracy of linear-v1 on tiles held out of the labelled ones, as ``probe_linear``.

    The best checkpoint is ``best_linear.pth``. Mind that it was chosen by these held-out
    tiles: test it on others.

    Args:
        source, interval, size, batch_size, at_start, save_best, patient_pattern, name: see
            :class:`LabelledProbeHook`.
        holdout: share of each class that is held out, whole patients where they are known.
        seed: draws the held-out tiles, the same ones at every probe.

    Raises:
        UserError: no tile, or no patient, can be held out.
    """

    best_file, key = 'best_linear.pth', 'probe_linear'

    def __init__(self, source: dict, interval: Count = 10, size: Count | None = None,
                 batch_size: Count = 64, at_start: bool = True, save_best: bool = True,
                 holdout: Share = 0.3, seed: Seed = 0, patient_pattern: str | None = None,
                 name: str = ''):
        super().__init__(source, interval, size, batch_size, at_start, save_best,
                         patient_pattern, name)
        self.seed = seed
        kept, held = hold_out(self.tiles.labels.numpy(), holdout, seed,
                              None if self.patients is None else self.patients.numpy())
        if not len(held):
            raise UserError('no labelled tile can be held out: each class has one tile only'
                            if self.patients is None else 'no patient can be held out: each is '
                            'all that there is of some class',
                            where='hooks.LinearProbeHook.source',
                            expected='at least two tiles of a class' if self.patients is None
                            else 'two patients or more of each class')
        self.kept, self.held = torch.from_numpy(kept), torch.from_numpy(held)
        self.counted = len(held)

    def scores(self, features: Tensor) -> dict[str, float]:
        labels = self.tiles.labels
        patients = None if self.patients is None else self.patients[self.kept].numpy()
        fitted = fit_linear(features[self.kept], labels[self.kept], int(labels.max()) + 1,
                            self.seed, patients)
        said = fitted.probabilities(features[self.held]).argmax(1)
        return {self.key: float((said == labels[self.held]).double().mean())}


def _read(line: str, last_step: int) -> dict[str, float]:
    """Return what a line holds if it is of a step that was taken, else nothing."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError:  # a killed process left it half written
        return {}
    return record if record.get('step', last_step + 1) <= last_step else {}
