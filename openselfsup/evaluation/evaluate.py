"""From a checkpoint and labelled tiles to results.json, arrays.npz and a report.

The order is what keeps the test out of every choice: labelled tiles are drawn, a protocol
fits on them, and only then is its classifier, finished, applied to the test tiles, once.
"""

import datetime
import platform
import time

import numpy as np
import torch
from torch import Tensor, nn

from .. import __version__
from ..claims import claimed
from ..datasets.labeled import LabeledTileDataset
from ..files import atomic_file
from . import networks
from .baselines import (
    COLOUR_HISTOGRAM,
    COLOUR_STATISTICS,
    IMAGENET_INIT,
    RANDOM_INIT,
    Renormalised,
    imagenet_weights,
)
from .cached_features import Features, extract_all
from .classifier import predict
from .data import EvaluationData, Part
from .finetune import train_as_published, train_honestly
from .fitted import Fitted
from .knn import fit_knn, nearest_tiles
from .linear_probe import TOLERANCE, fit_linear
from .metrics import SCORES, bootstrap, confusion, interval, per_class_recall, score
from .ownership import digest, settle
from .results import Results, Row, Summary
from .sampling import labelled_fraction, too_small_for
from .settings import AUGMENTED, FINETUNE, KNN, LINEAR, EvaluationSettings

CHECKPOINT = 'checkpoint'
COMPAT = 'paper-compat'
RANDOM_INITS = 3
ARRAYS = 'arrays.npz'
UNFINISHED = 'WARNING: this evaluation has not finished, or was interrupted'
UNSOLVED = 10 * TOLERANCE  # what a gradient may be before it moves an accuracy


class Evaluation:
    """One evaluation: holds what its steps share.

    Args:
        settings: what to evaluate.
        data: training and test tiles.
    """

    def __init__(self, settings: EvaluationSettings, data: EvaluationData):
        self.settings, self.data = settings, data
        self.say = settings.say
        self.classes = len(data.classes)
        self.notes = list(data.notes)
        self.rows: list[Row] = []
        self.draws: dict[int, dict[str, np.ndarray]] = {}  # bootstrap values by row
        self.probabilities: dict[int, np.ndarray] = {}
        self.test_labels = torch.from_numpy(np.asarray(data.test.labels))
        self.created = datetime.datetime.now().isoformat(timespec='seconds')
        # Tiles of one patient are redrawn together; of a single one there is nothing to redraw.
        self.digest = digest(data.train, data.test)
        self.units = data.test_patients if _count(data.test_patients) != 1 else None

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
        self._load_networks()
        self._say_data()
        wanted = settings.out
        if settings.rename_out:
            settings.out, _ = settle(wanted, self._results(), renamed=True)
            if settings.out != wanted:
                self.say(f'{wanted} holds other results: these go to {settings.out}')
        with claimed(settings.out, 'evaluation') as self.claim:
            _, self.written = settle(settings.out, self._results(), renamed=False)
            self._write()
            features, labelled = self._rows()
            results = self._results()
            self.claim.check()
            self._write_arrays(features, labelled)
            results.write(settings.out)
        return results

    def _rows(self) -> tuple[Features, dict[tuple[float, int], np.ndarray]]:
        """Fit and test every protocol on every labelled share and seed."""
        settings = self.settings
        protocols = [LINEAR, *(p for p in settings.protocols if p != LINEAR)]
        labelled = {(fraction, seed): labelled_fraction(self.data.train.labels, fraction, seed)
                    for fraction in settings.fractions for seed in settings.seeds}
        self._note_small_fractions()
        features = self._extract(labelled)
        for (fraction, seed), indices in labelled.items():
            for protocol in (p for p in protocols if p in (LINEAR, KNN)):
                self._frozen_rows(protocol, features, fraction, seed, indices)
            for protocol in (p for p in protocols if p in (AUGMENTED, FINETUNE)):
                self._sgd_row(protocol, features, fraction, seed, indices)
                if settings.paper_compat:
                    self._sgd_row(protocol, features, fraction, seed, None)
        return features, labelled

    def _results(self) -> Results:
        """Return what has been found so far."""
        settings = self.settings
        return Results(
            created=self.created,
            environment=dict(openselfsup=__version__, python=platform.python_version(),
                             torch=torch.__version__, device=str(settings.device)),
            model=dict(name=self.model_name, path=str(settings.model_path),
                       tensors=self.checkpoint.report if self.checkpoint else 'random init',
                       sha256=self.checkpoint.sha256 if self.checkpoint else ''),
            data=self._describe_data(), notes=self.notes, rows=self.rows,
            summary=self._summarise(), request=settings.described())

    def _write(self) -> None:
        """Write the rows that are finished, and that more were asked for.

        An earlier run of the same inputs may have got further: its rows stay until then.
        """
        if len(self.rows) < self.written:
            return
        self.claim.check()
        results = self._results()
        results.notes = [f'{UNFINISHED}: it holds {len(self.rows)} rows.', *self.notes]
        results.write(self.settings.out)

    # ---- networks, data, features ----

    def _load_networks(self) -> None:
        settings = self.settings
        self.checkpoint, self.backbones = None, {}
        if settings.model_path:
            self.checkpoint = networks.from_checkpoint(settings.model_name, settings.model_path)
            self.say(self.checkpoint.report)
            self.backbones[CHECKPOINT] = self.checkpoint.backbone
            head = self.checkpoint.head_classes
            if head not in (None, self.classes):
                self._note(f'The head in the checkpoint knows {head} classes and the data has '
                           f'{self.classes}: it is left out, heads are trained anew.')
        else:
            self._note('WARNING: no --model_path is given: only baselines are evaluated.')
        known = self.checkpoint
        config = known.config if known else networks.named(settings.model_name)
        own = config['type'] not in {model['type'] for model in networks.MODELS.values()}
        self.model_name = config['type'] if own else settings.model_name
        self.normalise = (known.mean, known.std) if known else (networks.IMAGENET_MEAN,
                                                                networks.IMAGENET_STD)
        if settings.baselines or not self.checkpoint:
            for i, seed in enumerate(settings.seeds[:RANDOM_INITS]):
                self.backbones[f'{RANDOM_INIT} {i}'] = networks.build(config, seed)
        found = None if own else imagenet_weights(settings.model_name, settings.imagenet)
        if settings.baselines and found is not None:
            network = networks.from_checkpoint(settings.model_name, found)
            self.say(network.report)
            self.backbones[IMAGENET_INIT] = Renormalised(network.backbone, self.normalise,
                                                         (network.mean, network.std))
        for name, backbone in self.backbones.items():
            self.backbones[name] = backbone.to(settings.device, memory_format=torch.channels_last)

    def _extract(self, labelled: dict[tuple[float, int], np.ndarray]) -> Features:
        """Cache the features of every tile that is needed, once."""
        needed = np.unique(np.concatenate(list(labelled.values())))
        settings = self.settings
        start = time.perf_counter()
        features = extract_all(
            self.backbones, self.data.train, needed, self.data.test, settings.train,
            self.normalise, settings.out, colours=settings.baselines)
        tiles = len(needed) + len(self.data.test)
        if features.cached:
            self.say(f'features of {tiles} tiles were cached in {settings.out}')
        else:
            self.say(f'features of {tiles} tiles by {len(self.backbones)} networks in '
                     f'{time.perf_counter() - start:.1f} s')
        self._tell_shared_pixels(features)
        return features

    def _tell_shared_pixels(self, features: Features) -> None:
        """Tell the test tiles that are training tiles in another file format or container."""
        test, train = features.shared()
        data = self.data
        if len(test) <= data.shared['tiles']:  # told already, file by file
            return
        data.shared['tiles'] = len(test)
        pair = data.test.path(int(test[0])), data.train.path(int(train[0]))
        self._note(data.tell_overlap(
            f'{len(test)} of {len(data.test)} test tiles have the same pixels as labelled '
            f'training tiles, such as {pair[0]} and {pair[1]}'))

    # ---- rows ----

    def _frozen_rows(self, protocol: str, features: Features, fraction: float, seed: int,
                     indices: np.ndarray) -> None:
        labels = torch.from_numpy(self.data.train.labels[indices])
        patients = self.data.train_patients
        patients = None if patients is None else patients[indices]
        for name in features.names_for(self.settings.seeds.index(seed)):
            start = time.perf_counter()
            own = features.train(name, indices)
            if protocol == LINEAR:
                fitted = fit_linear(own, labels, self.classes, seed, patients,
                                    features.copies(indices))
            else:
                fitted = fit_knn(own, labels, self.classes, self.settings.knn_k,
                                 self.settings.knn_temperature,
                                 standardise=name in (COLOUR_STATISTICS, COLOUR_HISTOGRAM))
            self._note_choice(protocol, fraction, seed, fitted.chosen, patients is not None)
            self._test(protocol, name, fraction, seed, fitted.probabilities(features.test[name]),
                       fitted, len(indices), start)

    def _sgd_row(self, protocol: str, features: Features, fraction: float, seed: int,
                 indices: np.ndarray | None) -> None:
        """Train on tiles: honestly on the labelled ones, or as published if there are none."""
        start = time.perf_counter()
        name = CHECKPOINT if self.checkpoint else f'{RANDOM_INIT} 0'
        frozen, settings, data = protocol == AUGMENTED, self.settings.train, self.data
        common = dict(classes=self.classes, settings=settings, seed=seed, frozen=frozen,
                      normalise=self.normalise)
        backbone = self.backbones[name]
        width = self._width(backbone)
        honest = indices is not None
        if honest:
            patients = None if data.train_patients is None else data.train_patients[indices]
            trained = train_honestly(backbone, width, Part(data.train, indices),
                                     patients=patients, copies=features.copies(indices),
                                     **common)
            self._note_choice(protocol, fraction, seed, trained.chosen, patients is not None)
        else:
            trained = train_as_published(backbone, width, data.train, data.test, fraction,
                                         **common)
        probabilities, diverged = None, trained.diverged
        if diverged is None:
            test = LabeledTileDataset(data.test, settings.image_size, check=False)
            probabilities = predict(trained.model, test, settings, self.normalise)
            if not probabilities.isfinite().all():
                probabilities, diverged = None, trained.chosen['epoch']
        label = protocol if honest else f'{COMPAT} ({protocol.removesuffix("-v1")})'
        fitted = Fitted(None, trained.settings, trained.chosen)
        if diverged:
            self._note(f'WARNING: {label} on {_family(name)}, {100 * fraction:g} % labelled, seed '
                       f'{seed}: diverged at epoch {diverged} (learning rate {settings.lr:g}); it '
                       'has no score.')
        self._test(label, name, fraction, seed, probabilities, fitted, trained.train_tiles,
                   start, honest, trained.validation_tiles, trained.history, diverged)

    def _test(self, protocol: str, name: str, fraction: float, seed: int,
              probabilities: Tensor | None, fitted: Fitted, train_tiles: int, start: float,
              honest: bool = True, validation_tiles: int | None = None,
              history: list[dict] | None = None, diverged: int | None = None) -> None:
        """Score a finished classifier on the test tiles, if there is one, and write its row."""
        labels = self.test_labels.numpy()
        scores: dict = {key: dict(value=None, low=None, high=None) for key in SCORES}
        recall: list = [None] * self.classes
        counts = np.zeros((self.classes, self.classes), int)
        if probabilities is not None:
            found = probabilities.numpy()
            draws = bootstrap(labels, found, self.units, self.settings.resamples)
            scores = {key: dict(zip(('value', 'low', 'high'), (float(value[0]),
                                                               *interval(draws[key]))))
                      for key, value in score(labels, found).items()}
            recall = per_class_recall(labels, found)
            counts = confusion(labels, found)[0].astype(int)
            self.draws[len(self.rows)] = draws
            self.probabilities[len(self.rows)] = found
        if validation_tiles is None:
            validation_tiles = round(fitted.settings.get('validation_share', 0)
                                     * fitted.settings.get('search_tiles', 0))
        self.rows.append(Row(
            protocol, _family(name), fraction, seed, honest, train_tiles, validation_tiles,
            len(labels), fitted.settings, fitted.chosen, scores, recall, counts.tolist(),
            history or [], round(time.perf_counter() - start, 3), diverged))
        self._write()

    # ---- what stands around the rows ----

    def _summarise(self) -> list[Summary]:
        groups: dict[tuple, list[int]] = {}
        for i, row in enumerate(self.rows):
            groups.setdefault((row.protocol, row.features, row.fraction, row.honest), []).append(i)
        lines = []
        for key, members in groups.items():
            scores = {name: dict(mean=None, low=None, high=None, sd=None) for name in SCORES}
            diverged = [self.rows[i].seed for i in members if self.rows[i].diverged]
            for name in () if diverged else SCORES:
                values = [self.rows[i].scores[name]['value'] for i in members]
                # All rows share the resamples: draw by draw, the mean over seeds is resampled.
                low, high = interval(np.mean([self.draws[i][name] for i in members], 0))
                scores[name] = dict(mean=float(np.mean(values)), low=low, high=high,
                                    sd=float(np.std(values, ddof=1)) if len(values) > 1 else None)
            lines.append(Summary(*key, [self.rows[i].seed for i in members], scores, diverged))
        return lines

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

    def _write_arrays(self, features: Features, labelled: dict) -> None:
        """Write what the report draws from: predictions, test features, nearest tiles."""
        main = self._main_row()
        name = CHECKPOINT if self.checkpoint else f'{RANDOM_INIT} 0'
        row = self.rows[main]
        indices = labelled[row.fraction, row.seed]
        k = min(5, len(indices))
        _, near = nearest_tiles(features.train(name, indices), features.test[name], k)
        train, test = self.data.train, self.data.test
        used, position = np.unique(indices[near.numpy()], return_inverse=True)
        arrays = dict(
            created=self.created, main_row=main,
            test_paths=np.array([test.path(i) for i in range(len(test))]),
            labels=self.test_labels.numpy(), probabilities=self.probabilities[main],
            features=features.test[name].half().numpy(),
            neighbours=position.reshape(near.shape),
            neighbour_paths=np.array([train.path(int(i)) for i in used]),
            neighbour_labels=train.labels[used])
        with atomic_file(self.settings.out / ARRAYS) as file:
            np.savez_compressed(file, **arrays)

    def _main_row(self) -> int:
        """Return the row that the pictures show: linear-v1 on the most labels, first seed."""
        wanted = (LINEAR, CHECKPOINT if self.checkpoint else RANDOM_INIT,
                  max(self.settings.fractions), self.settings.seeds[0])
        return next(i for i, row in enumerate(self.rows)
                    if (row.protocol, row.features, row.fraction, row.seed) == wanted)

    def _width(self, backbone: nn.Module) -> int:
        return backbone.out_channels[-1]

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            self.say(text)

    def _note_choice(self, protocol: str, fraction: float, seed: int, chosen: dict,
                     by_patient: bool) -> None:
        """Say where a setting was not chosen as it should be, or a fit did not end."""
        what = f'{protocol}, {100 * fraction:g} % labelled, seed {seed}'
        if by_patient and chosen.get('validated_by', 'patients') != 'patients':
            self._note(f'{what}: no whole patients could be held out of the labelled tiles, so '
                       f"{chosen['validated_by']} chose its settings.")
        if chosen.get('gradient_left', 0) > UNSOLVED:
            self._note(f"{what}: the solver stopped at a gradient of {chosen['gradient_left']:g}; "
                       f'up to {UNSOLVED:g} moves no accuracy.')

    def _say_data(self) -> None:
        data = self.data
        self.say(f'{len(data.train)} training tiles, {len(data.test)} test tiles, '
                 f'{self.classes} classes: {", ".join(data.classes)}')
        for note in data.notes:
            self.say(note)

    def _note_small_fractions(self) -> None:
        for fraction in self.settings.fractions:
            few = too_small_for(self.data.train.labels, fraction)
            if few:
                names = ', '.join(self.data.classes[i] for i in few)
                self._note(f'{fraction:g} of the training tiles is less than one tile of {names}: '
                           'one is taken of each.')


def _family(name: str) -> str:
    """'random init 2' is one of several 'random init'."""
    return RANDOM_INIT if name.startswith(RANDOM_INIT) else name


def _count(patients: np.ndarray | None) -> int | None:
    return None if patients is None else len(np.unique(patients))
