"""Which score without labels ranks the checkpoints of runs as masks do?

    python -m benchmarks.learning.ranking RUN... --data DIR --out OUT

RUN is a folder, or NAME=FOLDER, in which a CorrespondenceHook wrote its scores and which holds
epoch_N.pth of the same epochs (checkpoint_interval). DIR holds train/CLASS and masks/train/CLASS,
whose file names tell the case as in EBHI-SEG, or as --patient_pattern REGEX says; a third of its
cases is held out and their cells probed (dense-linear-v2, dense-knn-v1). OUT gets ranking.json and
ranking.md: Spearman's rank correlation of each score with mDice, its 95 % interval over redrawn
checkpoints, and its mean within runs, where one chooses the checkpoint of a run. Checkpoints of one
run resemble each other: intervals are rather too narrow. Probes are kept.
"""

import argparse
import hashlib
import json
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from openselfsup.cli.arguments import name_runs
from openselfsup.errors import UserError
from openselfsup.evaluation.dense.data import DenseData
from openselfsup.evaluation.dense.scores import scores_of
from openselfsup.evaluation.metrics import interval
from openselfsup.files import write_json, write_text

from . import dense
from .classification import answers_file
from .networks import Network, network_of
from .table import table_of
from .tissue import CASE

#: Scores of CorrespondenceHook, and what is larger for better features.
SCORES = ('probe_correspondence', 'probe_rankme', 'probe_alpha_req')
FEWEST, RESAMPLES = 3, 2000


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a run and what its hook said of it.

    Attributes:
        run: name of the run.
        epoch: after which it was saved.
        path: the file.
        scores: without labels, by name; of α-ReQ minus its distance from 1, so that more is better.
    """

    run: str
    epoch: int
    path: Path
    scores: dict[str, float]


@dataclass(frozen=True)
class Correlation:
    """How well a score ranks checkpoints.

    Attributes:
        value: Spearman's rank correlation, NaN where all are equal.
        low, high: 95 % percentile interval over redrawn checkpoints.
        checkpoints: how many have the score.
        within: mean over the runs of the correlation within a run; NaN without one that has
            three checkpoints.
        runs: how many have.
    """

    value: float
    low: float
    high: float
    checkpoints: int
    within: float
    runs: int


def find_checkpoints(name: str, run: Path) -> list[Checkpoint]:
    """Return the checkpoints of a run that were scored without labels, by epoch.

    Raises:
        UserError: there is none.
    """
    by_epoch: dict[int, dict[str, float]] = defaultdict(dict)
    metrics = run / 'metrics.jsonl'
    for line in metrics.read_text(encoding='utf-8').splitlines() if metrics.is_file() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # a killed run left it half written
            continue
        for key, value in record.items():
            if key.startswith(SCORES):  # what was scored again after a resume replaces the earlier
                by_epoch[record['epoch']][key.removeprefix('probe_')] = (
                    -abs(value - 1) if key.startswith('probe_alpha_req') else value)
    found = [Checkpoint(name, epoch, path, scores) for epoch, scores in sorted(by_epoch.items())
             if (path := run / f'epoch_{epoch}.pth').is_file()]
    if not found:
        raise UserError('no checkpoint of this run has scores without labels', where=str(run),
                        expected="epoch_N.pth (checkpoint_interval) and metrics.jsonl of a run "
                                 "with hooks = [dict(type='CorrespondenceHook', interval=...)]")
    return found


def probe(checkpoint: Checkpoint, network: Network, data: DenseData, about: str, out: Path
          ) -> dict[str, float]:
    """Return mDice of every dense probe of a checkpoint; what was probed before is kept.

    Args:
        checkpoint: whose cells are probed.
        network: kind of its backbone.
        data: images with masks.
        about: tells these images from others.
        out: folder of what was probed.
    """
    which = hashlib.sha256(f'{checkpoint.path.resolve()} {about}'.encode()).hexdigest()[:12]
    name = f'{checkpoint.run}-epoch-{checkpoint.epoch}-{which}'
    path = answers_file(out, name, 0)
    if path.exists() and path.stat().st_mtime < checkpoint.path.stat().st_mtime:
        path.unlink()  # of an earlier checkpoint of this name
    found = dense.evaluate(name, network, checkpoint.path, 0, data, [network.cells(dense.LAYERS)],
                           out)
    return {question: float(scores_of(confusions.sum(0))['mdice'])
            for question, confusions in found.items()}


def correlation(scores: Sequence[float], values: Sequence[float], runs: Sequence[str]
                ) -> Correlation:
    """Return how well scores rank what has these values; both of N checkpoints of some runs."""
    score, value, run = np.array(scores), np.array(values), np.array(runs)
    drawn = np.random.default_rng(0).integers(len(score), size=(RESAMPLES, len(score)))
    inside = [spearman(score[run == one], value[run == one]) for one in dict.fromkeys(runs)
              if (run == one).sum() >= FEWEST]
    inside = [found for found in inside if math.isfinite(found)]
    return Correlation(float(spearman(score, value)),
                       *interval(spearman(score[drawn], value[drawn])), len(score),
                       float(np.mean(inside)) if inside else math.nan, len(inside))


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the rank correlation along the last axis, NaN where one is constant."""
    a, b = (rankdata(values, axis=-1) for values in (first, second))
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    with np.errstate(invalid='ignore', divide='ignore'):
        return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))


def rank(checkpoints: Sequence[Checkpoint], probed: Sequence[dict[str, float]]
         ) -> dict[str, dict[str, Correlation]]:
    """Return every correlation, by score and probe; those of too few checkpoints are left out.

    Networks of other strides are asked other probes, so they are not ranked with each other.
    """
    found: dict[str, dict[str, Correlation]] = {}
    for score in dict.fromkeys(key for one in checkpoints for key in one.scores):
        for question in dict.fromkeys(key for values in probed for key in values):
            having = [(one.scores[score], values[question], one.run)
                      for one, values in zip(checkpoints, probed)
                      if score in one.scores and question in values]
            if len(having) >= FEWEST:
                found.setdefault(score, {})[question] = correlation(*zip(*having))
    return found


def write(out: Path, checkpoints: Sequence[Checkpoint], probed: Sequence[dict[str, float]],
          images: int) -> None:
    """Write ranking.json and ranking.md."""
    found = rank(checkpoints, probed)
    write_json(out / 'ranking.json', dict(
        images=images, correlations={score: {question: _finite(asdict(one))
                                             for question, one in row.items()}
                                     for score, row in found.items()},
        checkpoints=[dict(run=one.run, epoch=one.epoch, scores=one.scores, mdice=values)
                     for one, values in zip(checkpoints, probed)]), indent=1)
    heading = ['probe', 'score', 'checkpoints', 'correlation', 'within runs (how many)']
    rows = sorted(([question, score, str(one.checkpoints),
                    f'{one.value:+.2f} ({one.low:+.2f} to {one.high:+.2f})'
                    if math.isfinite(one.value) else 'all are equal',
                    f'{one.within:+.2f} ({one.runs})' if one.runs else '']
                   for score, row in found.items() for question, one in row.items()),
                  key=lambda row: row[0])
    runs = len({one.run for one in checkpoints})
    write_text(out / 'ranking.md', '\n'.join([
        '# Do scores without labels rank checkpoints?', '',
        f"Spearman's rank correlation with mDice of frozen cells on {images} held-out images, of "
        f'{len(checkpoints)} checkpoints of {runs} run(s); in brackets the 95 % interval over '
        'redrawn checkpoints, which is rather too narrow where checkpoints are of one run, '
        'and says little of fewer than ten. α-ReQ ranks by how close it is to 1.',
        '', *table_of(heading, rows), '']))


def _finite(fields: dict[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in fields.items()}


def main() -> None:
    """Probe every checkpoint and write the correlations."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.learning.ranking',
                                     description=__doc__)
    parser.add_argument('runs', nargs='+', metavar='[NAME=]RUN')
    parser.add_argument('--data', type=Path, required=True, metavar='DIR')
    parser.add_argument('--patient_pattern', default=CASE, metavar='REGEX')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/learning/ranking'))
    args = parser.parse_args()
    runs = name_runs(args.runs)
    if len({run.resolve() for run in runs.values()}) < len(runs):
        raise UserError('a run is given twice', where=', '.join(args.runs),
                        expected='each run once: its checkpoints would count double')
    by_run = {name: find_checkpoints(name, run) for name, run in runs.items()}
    checkpoints = [one for found in by_run.values() for one in found]
    if len(checkpoints) < FEWEST:
        raise UserError(f'{len(checkpoints)} checkpoints have no ranks worth comparing',
                        where=', '.join(args.runs), expected=f'at least {FEWEST}')
    data = dense.find_masks(args.data, False, args.patient_pattern)
    about = str(args.data.resolve())
    if args.patient_pattern != CASE:
        about += f' {args.patient_pattern}'
    args.out.mkdir(parents=True, exist_ok=True)
    networks = {name: network_of(found[0].path) for name, found in by_run.items()}
    probed = []
    for one in checkpoints:
        print(f'{one.run}, epoch {one.epoch}', flush=True)
        probed.append(probe(one, networks[one.run], data, about, args.out))
    write(args.out, checkpoints, probed, len(data.test))
    print((args.out / 'ranking.md').read_text())


if __name__ == '__main__':
    try:
        main()
    except UserError as error:
        sys.exit(f'error: {error}')
