"""From a checkpoint and images with masks to dense.json, dense.npz and dense.html."""

import datetime
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ... import __version__
from ...claims import claimed
from ...errors import UserError, nearest
from ..baselines import RANDOM_INIT
from ..candidates import family, load_candidates
from ..evaluate import UNFINISHED
from ..metrics import interval
from ..notes import UNSOLVED, Notes
from ..ownership import digest, settle
from ..settings import DENSE_PROTOCOLS, EvaluationSettings
from .data import DenseData
from .features import LAST_TWO, NO_NORM, Layers, PatchColours, find_layers, patch_colours
from .measure import PATCHES, Measured, measure
from .probes import describe
from .results import FILE, DenseResults, DenseRow, read_dense, write_arrays
from .scores import SCORES, bootstrap, scores_of


@dataclass
class DenseSettings:
    """What to evaluate on the patches of images, and how.

    Attributes:
        out, model_name, model_path, device, imagenet, baselines, resamples, say, resizing,
            normalize, rename_out: as in
            :class:`~openselfsup.evaluation.settings.EvaluationSettings`.
        protocols: some of ``DENSE_PROTOCOLS``.
        layers: choices of feature maps, see :func:`.features.find_layers`.
        scales: of the sides of images, one row for each.
        patches: most training patches.
        seeds: the first draws patches and validation cases; each of the first three initialises
            an untrained network.
        amp: precision of the networks.
        shown: test images in the pictures, evenly spaced.
    """

    out: Path
    model_name: str = 'resnet18'
    model_path: str = ''
    protocols: tuple[str, ...] = DENSE_PROTOCOLS
    layers: tuple[str, ...] = (LAST_TWO,)
    scales: tuple[float, ...] = (1.0,)
    patches: int = PATCHES
    seeds: tuple[int, ...] = (42,)
    device: torch.device = torch.device('cpu')
    amp: str = 'off'
    imagenet: str | None = None
    baselines: bool = True
    resamples: int = 1000
    shown: int = 6
    say: Callable[[str], None] = print
    resizing: str | None = None
    normalize: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    rename_out: bool = False

    def described(self) -> dict[str, Any]:
        """Return all settings that results depend on, as JSON can hold them."""
        left_out = ('out', 'model_path', 'device', 'say', 'rename_out', 'shown')
        return json.loads(json.dumps({k: v for k, v in asdict(self).items() if k not in left_out}))

    def check(self) -> None:
        """Refuse what no evaluation can be run with, all of it at once.

        Raises:
            UserError: a protocol that is none of ours, numbers outside their range.
        """
        wrong = []
        for protocol in self.protocols:
            if protocol not in DENSE_PROTOCOLS:
                close = nearest(protocol, DENSE_PROTOCOLS)
                wrong.append(f"--protocols: no dense protocol is called '{protocol}'; expected "
                             + ', '.join(DENSE_PROTOCOLS)
                             + (f"; did you mean '{close}'?" if close else ''))
        wrong += [f'--dense_scale: {scale:g} is out of range; expected 0.25 to 4'
                  for scale in self.scales if not 0.25 <= scale <= 4]
        if self.patches < 1:
            wrong.append(f'--dense_patches: {self.patches} is out of range; expected at least 1')
        if wrong:
            raise UserError('\n'.join(wrong))


class DenseEvaluation:
    """One dense evaluation: holds what its steps share.

    Args:
        settings: what to evaluate.
        data: training and test images with masks.
    """

    def __init__(self, settings: DenseSettings, data: DenseData):
        self.settings, self.data = settings, data
        self.notes = Notes(data, settings.say)
        self.rows: list[DenseRow] = []
        self.created = datetime.datetime.now().isoformat(timespec='seconds')
        self.cases = data.cases('test')
        count = len(data.test)
        self.shown = np.unique(np.linspace(0, count - 1, min(settings.shown, count)).astype(int))
        self.arrays: dict[str, np.ndarray] = dict(
            test_paths=np.array(data.test.paths), test_masks=np.array(data.test.masks.paths),
            test_cases=self.cases, shown=self.shown)
        self.arrays |= {f'truth_{i}': data.test.read_labels(i) for i in self.shown.tolist()}
        self.digest = digest(data.train, data.test, data.train.masks, data.test.masks)

    def run(self) -> DenseResults:
        """Evaluate everything and write ``dense.json`` and ``dense.npz``, anew after each network.

        Raises:
            UserError: see :meth:`DenseSettings.check`, :func:`.data.find_dense_data`,
                :func:`~openselfsup.evaluation.ownership.settle` and
                :func:`~openselfsup.claims.claimed`.
        """
        settings, data = self.settings, self.data
        settings.check()
        self.candidates = load_candidates(EvaluationSettings(
            settings.out, settings.model_name, settings.model_path, seeds=settings.seeds,
            device=settings.device, imagenet=settings.imagenet, baselines=settings.baselines,
            resizing=settings.resizing, normalize=settings.normalize),
            len(data.classes), self.notes)
        settings.say(f'{len(data.train)} training images, {len(data.test)} test images, '
                     f'{len(data.classes)} classes: {", ".join(data.classes)}')
        for note in data.notes:
            settings.say(note)
        layers = find_layers(self.candidates.backbones[self.candidates.main], settings.layers)
        wanted = settings.out
        settings.out, _ = settle(wanted, self._results(), settings.rename_out, FILE, read_dense)
        if settings.out != wanted:
            self.notes.say(f'{wanted} holds other results: these go to {settings.out}')
        with claimed(settings.out, 'evaluation') as claim:
            _, self.written = settle(settings.out, self._results(), False, FILE, read_dense)
            for name, backbone, own, norm in self._features(layers):
                for scale in settings.scales:
                    for one in measure(backbone, data, own, scale, settings.protocols,
                                       settings.patches, settings.seeds[0], *norm, settings.amp,
                                       isinstance(backbone, PatchColours), self.shown.tolist()):
                        self._add(name, scale, one)
                    claim.check()
                    self._write()
            results = self._results()
            results.write(settings.out)
        return results

    def _features(self, layers: list[Layers]
                  ) -> list[tuple[str, nn.Module, list[Layers], tuple[Any, Any]]]:
        """Return name, extractor, feature maps and normalisation of everything to compare."""
        found: list[tuple[str, nn.Module, list[Layers], tuple[Any, Any]]] = [
            (name, backbone, layers, self.candidates.normalise)
            for name, backbone in self.candidates.backbones.items()]
        if self.settings.baselines:
            colours, own = patch_colours(layers)
            found += [(name, colour, own, NO_NORM) for name, colour in colours.items()]
        return found

    def _add(self, name: str, scale: float, one: Measured) -> None:
        """Score a probe that has been tested, and keep what it found."""
        classes, row = self.data.classes, len(self.rows)
        total = one.confusions.sum(0)
        found = scores_of(total)
        draws = bootstrap(one.confusions, self.cases, self.settings.resamples)
        by_class = {label: {key: _spread(found[key][i], draws[key][:, i])
                            for key in ('dice', 'iou')} for i, label in enumerate(classes)}
        seeds = self.settings.seeds
        seed = seeds[int(name.rpartition(' ')[2])] if family(name) == RANDOM_INIT else seeds[0]
        self.rows.append(DenseRow(
            one.protocol, family(name), one.layers.name, one.layers.stride, scale, seed,
            one.patches, len(self.data.test), describe(one.fitted.settings, self.settings.patches),
            one.fitted.chosen, {key: _spread(found[key], draws[key]) for key in SCORES}, by_class,
            total.tolist(), round(one.seconds, 3)))
        for key, value in [*((f'draws_{key}', draws[key]) for key in SCORES),
                           ('confusions', one.confusions.astype(np.uint32))]:
            self.arrays[key] = np.concatenate([*([self.arrays[key]] if row else []), value[None]])
        self.arrays |= {f'found_{row}_{i}': found for i, found in one.predictions.items()}
        if one.fitted.chosen.get('validated_by') == 'patches':
            self.notes.add(f'{one.protocol}: no whole case could be held out of the training '
                           'images, so patches beside those that are fitted chose its penalty.')
        if one.fitted.chosen.get('gradient_left', 0) > UNSOLVED:
            self.notes.add(f'{one.protocol} on {name}: the solver stopped at a gradient of '
                           f"{one.fitted.chosen['gradient_left']:g}; up to {UNSOLVED:g} moves no "
                           'score.')

    def _write(self) -> None:
        """Write the rows so far; an earlier run of the same inputs may have got further."""
        if len(self.rows) < self.written:
            return
        results = self._results()
        results.notes = [f'{UNFINISHED}: it holds {len(self.rows)} rows.', *self.notes.texts]
        write_arrays(self.settings.out, self.arrays)
        results.write(self.settings.out)

    def _results(self) -> DenseResults:
        """Return what has been found so far."""
        checkpoint, data = self.candidates.checkpoint, self.data
        parts = {name: dict(tiles=len(part), first=part.path(0),
                            patients=None if patients is None else len(np.unique(patients)))
                 for name, part, patients in (('train', data.train, data.train_patients),
                                              ('test', data.test, data.test_patients))}
        return DenseResults(
            created=self.created,
            environment=dict(openselfsup=__version__, python=platform.python_version(),
                             torch=torch.__version__, device=str(self.settings.device)),
            model=dict(name=self.candidates.model_name, path=str(self.settings.model_path),
                       tensors=checkpoint.report if checkpoint else 'random init',
                       sha256=checkpoint.sha256 if checkpoint else '',
                       reading=checkpoint.reading if checkpoint else ''),
            data=dict(classes=data.classes, **parts, shared=dict(data.shared),
                      digest=self.digest),
            notes=list(self.notes.texts), rows=self.rows, request=self.settings.described())


def _spread(value: Any, draws: np.ndarray) -> dict[str, float]:
    low, high = interval(draws)
    return dict(value=float(value), low=low, high=high)
