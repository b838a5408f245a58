"""From a checkpoint and labelled tiles to results.json, arrays.npz and a report.

The order is what keeps the test out of every choice: labelled tiles are drawn, a protocol
fits on them, and only then is its classifier, finished, applied to the test tiles, once.
"""

import datetime
import platform
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..claims import claimed
from ..datasets.labeled import LabeledTileDataset
from .arrays import write_arrays
from .cached_features import Features, extract_all
from .candidates import family, load_candidates
from .classifier import predict
from .data import EvaluationData, Part
from .finetune import Trained, train_as_published, train_heads, train_honestly
from .fitted import Fitted
from .frozen import FROZEN, Labelled, fits
from .metrics import (
    RANKING,
    SCORES,
    bootstrap,
    confusion,
    per_class_recall,
    score,
    with_intervals,
)
from .notes import Notes
from .ownership import digest, settle
from .patients import redrawn
from .results import Results, Row
from .sampling import labelled_fraction
from .settings import AUGMENTED, LINEAR, LOW_SHOT, SEMI, STAGES, EvaluationSettings
from .stages import STAGES_OF, Stages
from .summary import summarise

COMPAT = 'paper-compat'
UNFINISHED = 'WARNING: this evaluation has not finished, or was interrupted'


class Evaluation:
    """One evaluation: holds what its steps share.

    Args:
        settings: what to evaluate.
        data: training and test tiles.
    """

    def __init__(self, settings: EvaluationSettings, data: EvaluationData):
        self.settings, self.data = settings, data
        self.classes = len(data.classes)
        self.notes = Notes(data, settings.say)
        self.rows: list[Row] = []
        self.draws: dict[int, dict[str, np.ndarray]] = {}  # bootstrap values by row
        self.probabilities: dict[int, np.ndarray] = {}
        self.test_labels = torch.from_numpy(np.asarray(data.test.labels))
        self.created = datetime.datetime.now().isoformat(timespec='seconds')
        self.digest = digest(data.train, data.test)
        self.units = redrawn(data.test_patients)

    def run(self) -> Results:
        """Evaluate everything, write results.json and arrays.npz, return the results.

        ``results.json`` is written anew after every row, so that whatever ends the run leaves
        the rows that were finished.

        Raises:
            UserError: see :meth:`EvaluationSettings.check`, :func:`find_data`,
                :func:`~openselfsup.evaluation.ownership.settle` and
                :func:`~openselfsup.claims.claimed`.
        """
        settings = self.settings
        settings.check()
        self.candidates = load_candidates(settings, self.classes, self.notes)
        self.notes.say_data()
        wanted = settings.out
        if settings.rename_out:
            settings.out, _ = settle(wanted, self._results(), renamed=True)
            if settings.out != wanted:
                self.notes.say(f'{wanted} holds other results: these go to {settings.out}')
        with claimed(settings.out, 'evaluation') as self.claim:
            _, self.written = settle(settings.out, self._results(), renamed=False)
            self._write()
            features, labelled = self._rows()
            results = self._results()
            self.claim.check()
            main, name = self._main_row(), self.candidates.main
            indices = labelled[self.rows[main].fraction, self.rows[main].seed]
            write_arrays(settings.out, self.created, main, self.probabilities[main],
                         (self.data.train, indices, features.train(name, indices)),
                         (self.data.test, features.test[name]))
            results.write(settings.out)
        return results

    def _rows(self) -> tuple[Features, dict[tuple[float, int], np.ndarray]]:
        """Fit and test every protocol on every labelled share and seed."""
        settings, train_labels = self.settings, self.data.train.require_labels()
        protocols = [LINEAR, *(p for p in settings.protocols if p != LINEAR)]
        labelled = {(fraction, seed): labelled_fraction(train_labels, fraction, seed)
                    for fraction in settings.fractions for seed in settings.seeds}
        self.notes.small_fractions(settings.fractions)
        features = self._extract(labelled)
        for (fraction, seed), indices in labelled.items():
            for protocol in (p for p in protocols if p in FROZEN):
                self._frozen_rows(protocol, features, fraction, seed, indices)
            for protocol in (p for p in protocols if p not in FROZEN):
                self._sgd_row(protocol, features, fraction, seed, indices)
                if settings.paper_compat and protocol != SEMI:
                    self._sgd_row(protocol, features, fraction, seed, None)
        return features, labelled

    def _results(self) -> Results:
        """Return what has been found so far."""
        settings, checkpoint = self.settings, self.candidates.checkpoint
        return Results(
            created=self.created,
            environment=dict(openselfsup=__version__, python=platform.python_version(),
                             torch=torch.__version__, device=str(settings.device)),
            model=dict(name=self.candidates.model_name, path=str(settings.model_path),
                       tensors=checkpoint.report if checkpoint else 'random init',
                       sha256=checkpoint.sha256 if checkpoint else '',
                       reading=checkpoint.reading if checkpoint else ''),
            data=self._describe_data(), notes=self.notes.texts, rows=self.rows,
            summary=summarise(self.rows, self.draws), request=settings.described())

    def _write(self) -> None:
        """Write the rows that are finished, and that more were asked for.

        An earlier run of the same inputs may have got further: its rows stay until then.
        """
        if len(self.rows) < self.written:
            return
        self.claim.check()
        results = self._results()
        results.notes = [f'{UNFINISHED}: it holds {len(self.rows)} rows.', *self.notes.texts]
        results.write(self.settings.out)

    def _extract(self, labelled: dict[tuple[float, int], np.ndarray]) -> Features:
        """Cache the features of every tile that is needed, once."""
        needed = np.unique(np.concatenate(list(labelled.values())))
        settings, candidates = self.settings, self.candidates
        start = time.perf_counter()
        backbones = dict(candidates.backbones)
        if STAGES in settings.protocols:
            backbones |= {name + STAGES_OF: Stages(backbone)
                          for name, backbone in candidates.backbones.items()}
        features = extract_all(
            backbones, self.data.train, needed, self.data.test, settings.train,
            candidates.normalise, settings.out, colours=settings.baselines)
        tiles = len(needed) + len(self.data.test)
        if features.cached:
            self.notes.say(f'features of {tiles} tiles were cached in {settings.out}')
        else:
            self.notes.say(f'features of {tiles} tiles by {len(candidates.backbones)} networks in '
                           f'{time.perf_counter() - start:.1f} s')
        self.notes.shared_pixels(features)
        return features

    def _frozen_rows(self, protocol: str, features: Features, fraction: float, seed: int,
                     indices: np.ndarray) -> None:
        patients = self.data.train_patients
        labelled = Labelled(indices, self.data.train.require_labels()[indices], self.classes, seed,
                            None if patients is None else patients[indices])
        if protocol == LOW_SHOT:
            self.notes.few_shots(labelled.labels, fraction, seed)
        for name in features.names_for(self.settings.seeds.index(seed)):
            start = time.perf_counter()
            for fit in fits(protocol, name, features, labelled, self.settings):
                self.notes.choice(fit.label, fraction, seed, fit.fitted.chosen,
                                  patients is not None)
                self._test(fit.label, name, fraction, seed, fit.fitted.probabilities(fit.test),
                           fit.fitted, fit.tiles, start)
                start = time.perf_counter()

    def _sgd_row(self, protocol: str, features: Features, fraction: float, seed: int,
                 indices: np.ndarray | None) -> None:
        """Train on tiles: honestly on the labelled ones, or as published if there are none."""
        start = time.perf_counter()
        name = self.candidates.main
        frozen, settings, data = protocol == AUGMENTED, self.settings.train, self.data
        common: dict[str, Any] = dict(classes=self.classes, settings=settings, seed=seed,
                                      normalise=self.candidates.normalise)
        backbone = self.candidates.backbones[name]
        width = features.test[name].shape[1]
        if indices is not None:
            patients = None if data.train_patients is None else data.train_patients[indices]
            common |= dict(patients=patients, copies=features.copies(indices))
            tiles = Part(data.train, indices)
            trained = (train_heads(backbone, width, tiles, head_lr=self.settings.head_lr, **common)
                       if protocol == SEMI else
                       train_honestly(backbone, width, tiles, frozen=frozen, **common))
            self.notes.choice(protocol, fraction, seed, trained.chosen, patients is not None)
        else:
            trained = train_as_published(backbone, width, data.train, data.test, fraction,
                                         frozen=frozen, **common)
        probabilities, diverged = None, trained.diverged
        if diverged is None:
            test = LabeledTileDataset(data.test, settings.image_size, check=False)
            probabilities = predict(trained.model, test, settings, self.candidates.normalise)
            if not probabilities.isfinite().all():
                probabilities, diverged = None, trained.chosen['epoch']
        honest = indices is not None
        label = protocol if honest else f'{COMPAT} ({protocol.removesuffix("-v1")})'
        if diverged:
            self.notes.add(f'WARNING: {label} on {family(name)}, {100 * fraction:g} % labelled, '
                           f'seed {seed}: diverged at epoch {diverged} (learning rate '
                           f'{settings.lr:g}); it has no score.')
        self._test(label, name, fraction, seed, probabilities, trained, trained.train_tiles,
                   start, honest, trained.history, diverged)

    def _test(self, protocol: str, name: str, fraction: float, seed: int,
              probabilities: Tensor | None, fitted: Fitted | Trained, train_tiles: int,
              start: float, honest: bool = True, history: list[dict] | None = None,
              diverged: int | None = None) -> None:
        """Score a finished classifier on the test tiles, if there is one, and write its row."""
        labels = self.test_labels.numpy()
        scores: dict = {key: dict(value=None, low=None, high=None) for key in SCORES}
        recall: list = [None] * self.classes
        counts = np.zeros((self.classes, self.classes), int)
        if probabilities is not None:
            found = probabilities.numpy()
            draws = bootstrap(labels, found, self.units, self.settings.resamples)
            scores = with_intervals(score(labels, found), draws)
            if isinstance(fitted, Trained) or fitted.probable:
                recall = per_class_recall(labels, found)
                counts = confusion(labels, found)[0].astype(int)
            else:  # its answers rank the tiles of a class; those of two classes do not compare
                for name_of in {*scores} - RANKING:
                    scores[name_of] = dict(value=None, low=None, high=None)
                    draws[name_of] = np.full_like(draws[name_of], np.nan)
            self.draws[len(self.rows)] = draws
            self.probabilities[len(self.rows)] = found
        self.rows.append(Row(
            protocol, family(name), fraction, seed, honest, train_tiles, fitted.validation_tiles,
            len(labels), fitted.settings, fitted.chosen, scores, recall, counts.tolist(),
            history or [], round(time.perf_counter() - start, 3), diverged))
        self._write()

    def _describe_data(self) -> dict:
        parts = {}
        for name in ('train', 'test'):
            source = getattr(self.data, name)
            counts = np.bincount(source.labels, minlength=self.classes)
            parts[name] = dict(tiles=len(source), first=source.path(0),
                               by_class=dict(zip(self.data.classes, counts.tolist())),
                               patients=_count(getattr(self.data, f'{name}_patients')))
        return dict(classes=self.data.classes, **parts, shared=dict(self.data.shared),
                    digest=self.digest)

    def _main_row(self) -> int:
        """Return the row that the pictures show: linear-v1 on the most labels, first seed."""
        wanted = (LINEAR, family(self.candidates.main),
                  max(self.settings.fractions), self.settings.seeds[0])
        return next(i for i, row in enumerate(self.rows)
                    if (row.protocol, row.features, row.fraction, row.seed) == wanted)


def _count(patients: np.ndarray | None) -> int | None:
    return None if patients is None else len(np.unique(patients))
