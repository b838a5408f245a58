"""From answers to estimates: every score, and every difference that the study is about."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from openselfsup.evaluation.comparison import (
    Estimate,
    estimate,
    scored,
    stratified_resamples,
)
from openselfsup.evaluation.dense.scores import scores_of
from openselfsup.transfer.instance.resampled import resampled_ap

from .classification import answers_file
from .glands import masks_of
from .tissue import Tiles

RESAMPLES = 2000


def by_name(folder: Path, keep: list[str], seeds: int) -> dict[str, list[dict[str, np.ndarray]]]:
    """Return what was answered, by name: the runs of the first ``seeds`` seeds that are there."""
    found = {}
    for name in keep:
        paths = [answers_file(folder, name, seed) for seed in range(seeds)]
        if runs := [dict(np.load(path)) for path in paths if path.exists()]:
            found[name] = runs
    return found


def classification(tiles: Tiles, answers: Mapping[str, list[dict[str, np.ndarray]]],
                   score: str = 'balanced_accuracy') -> dict[str, dict[str, np.ndarray]]:
    """Return a score of every run under every resample of the cases.

    Args:
        tiles: that were tested.
        answers: of :func:`by_name`.
        score: one of :data:`~openselfsup.evaluation.metrics.SCORES`.

    Returns:
        By question and name, arrays (runs, 1 + R); column 0 is the tiles as they are.
    """
    main = next(iter(tiles.labels.values()))
    weights = stratified_resamples(main, tiles.cases, RESAMPLES)
    found: dict[str, dict[str, np.ndarray]] = {}
    for question in next(iter(answers.values()))[0]:
        labels = tiles.labels[question.split(',')[0]]
        found[question] = {name: scored(labels, [run[question] for run in runs], weights, score)
                           for name, runs in answers.items()}
    return found


def dense(cases: np.ndarray, confusions: Mapping[str, list[dict[str, np.ndarray]]],
          probes: Sequence[str], score: str = 'mdice') -> dict[str, dict[str, np.ndarray]]:
    """Return a pixel score of every run under every resample of the cases, as above.

    A name stands under those of the probes that its network was asked: others have other strides.
    """
    weights = stratified_resamples(np.zeros(len(cases), int), cases, RESAMPLES)
    found: dict[str, dict[str, np.ndarray]] = {}
    for probe in probes:
        asked = {name: [run[probe] for run in runs if probe in run]
                 for name, runs in confusions.items()}
        found[probe] = {name: np.stack([
            scores_of(np.einsum('rm,mij->rij', weights, matrices))[score] for matrices in runs])
            for name, runs in asked.items() if runs}
    return found


def glands(answers: Mapping[str, list[dict[str, np.ndarray]]]
           ) -> dict[str, dict[str, np.ndarray]]:
    """Return AP of masks, and object Dice and PQ, of every run under every resample of images.

    Dice and PQ are means over the images.
    """
    images = len(next(iter(answers.values()))[0]['objects'])
    weights = stratified_resamples(np.zeros(images, int), np.arange(images), RESAMPLES)
    found = {'mask AP': {name: np.stack([resampled_ap([masks_of(run)], weights) for run in runs])
                         for name, runs in answers.items()}}
    for score, key in (('object Dice', 'dice'), ('object PQ', 'pq')):
        found[score] = {name: np.stack([weights @ run[key] / images for run in runs])
                        for name, runs in answers.items()}
    return found


def estimates(values: Mapping[str, np.ndarray], against: list[str]
              ) -> dict[str, dict[str, Estimate]]:
    """Return the score of each name ('') and its difference from each of some others."""
    return {name: {'': estimate(found), **{other: estimate(found, values[other])
                                           for other in against
                                           if other in values and other != name}}
            for name, found in values.items()}
