"""After training: score a backend on its test sets, write the results and the page."""

import logging
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import distributed
from ...datasets.decode import read_tile
from ...errors import UserError
from ...files import read_json, write_json, write_text
from ...visualization.overlays import draw_overlay, write_overlay_page
from .data_sets import DataSet
from .job import Backend, digest_of, inputs_of
from .metrics import PROTOCOL, evaluate_instances, result_map, truth_map


def evaluate(backend: Backend, compare: Sequence[dict[str, Any]] = ()) -> dict:
    """Predict, score and show every test set of a backend.

    Writes to its output folder ``coco_instances_results.json``, ``results.json``,
    ``index.html`` and ``overlays/``; with several test sets each gets a folder of its name.

    Args:
        backend: a trained one.
        compare: outcomes of other runs; each is shown beside this one's of its data set.

    Returns:
        Outcome by test set; empty on ranks other than 0.
    """
    outcomes = {}
    for name in backend.test_sets:
        results = backend.predict(name)
        if not distributed.is_main():
            continue
        several = len(backend.test_sets) > 1
        folder = backend.output_dir / name if several else backend.output_dir
        run = dict(backend.info(), inputs=inputs_of(backend))
        outcomes[name] = write(folder, backend.data[name], results, run,
                               [other for other in compare if other['dataset'] == name])
    return outcomes


def write(folder: Path, data: DataSet, results: list[dict], run: dict[str, Any],
          compare: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Score the COCO results of one data set; write them, ``results.json`` and the page.

    Args:
        folder: where to write.
        data: the data set.
        results: COCO results of all its images.
        run: what a reader must know of the run; ``detections_per_image`` of it counts for AP,
            ``masks`` says whether the model finds any.
        compare: outcomes of other runs on this data set.

    Returns:
        What ``results.json`` holds.
    """
    truth = data.truth
    outcome = dict(dataset=data.name, run=run, **evaluate_instances(
        truth, results, data.subsets,
        max_detections=run['detections_per_image'], masks=run['masks']))
    write_json(folder / 'coco_instances_results.json', results)
    write_json(folder / 'results.json', outcome)
    by_name = {image['file_name']: image for image in truth['images']}

    def draw(file_name: str):
        image = by_name[file_name]
        return draw_overlay(read_tile(data.folder / file_name), truth_map(truth, image),
                            result_map(results, image))

    write_overlay_page(folder, outcome, draw, compare)
    write_text(folder / 'results.txt', table(outcome))
    logging.getLogger('openselfsup.transfer').info('%s\n%s', data.name, table(outcome))
    return outcome


def read_outcomes(folders: Sequence[str | Path], test_sets: Sequence[str] | None = None
                  ) -> list[dict[str, Any]]:
    """Read ``results.json`` of finished runs.

    Args:
        folders: of the runs.
        test_sets: data sets of a run that they are to be compared with; None for any.

    Raises:
        UserError: a folder has none, one that is not of instance segmentation, or one that
            cannot be compared: of another data set or protocol.
    """
    outcomes = []
    for folder in folders:
        path = Path(folder) / 'results.json'
        outcome = read_json(path)
        parts = [outcome.get(key) if isinstance(outcome, dict) else None
                 for key in ('scores', 'run', 'images')]
        if not all(isinstance(part, dict) for part in parts) or not (
                {'dataset', 'protocol'} <= set(outcome) and 'all' in outcome['scores']):
            raise UserError('holds no scores of instance segmentation', where=str(path),
                            expected='an OUTPUT_DIR of openselfsup segment instance')
        dataset, protocol = outcome['dataset'], outcome['protocol']
        if test_sets is not None and (dataset not in test_sets or protocol != PROTOCOL):
            raise UserError(f'these are scores of {dataset} by {protocol}, which cannot be '
                            'compared with this run', where=str(path),
                            expected=f'some of {" or ".join(test_sets)} by {PROTOCOL}')
        outcomes.append(outcome)
    return outcomes


def table(outcome: dict[str, Any]) -> str:
    """Return the scores as lines of text, a column for each subset."""
    scores = outcome['scores']
    lines = [f'{"":<18}' + ''.join(f'{name:>9}' for name in scores)]
    for kind, word in (('bbox', 'box'), ('segm', 'mask'), ('objects', 'object')):
        for key in next((s[kind] for s in scores.values() if kind in s), ()):
            cells = [s[kind][key] for s in scores.values()]
            digits = 0 if key in ('tp', 'fp', 'fn') else 3
            lines.append(f'{word + " " + key:<18}' + ''.join(
                f'{"-":>9}' if c is None else f'{c:9.{digits}f}' for c in cells))
    return '\n'.join(lines) + '\n'


def mean_and_sd(outcomes: Sequence[dict[str, Any]], weights: str | None = None
                ) -> dict[str, Any]:
    """Summarise independent runs of one kind.

    Args:
        outcomes: contents of their ``results.json``.
        weights: file that all of them must have started from; its content counts, not its name.

    Returns:
        ``dataset``, ``protocol``, ``runs`` and ``scores``: by subset, kind and key a dict of
        ``mean``, ``sd`` (of the sample, n - 1; None for one run) and ``values``. Scores that a
        run lacks are left out, and ``left_out`` names those that another one has.

    Raises:
        UserError: the runs are of different data sets, protocols or inputs.
    """
    inputs = [o['run'].get('inputs', {}) for o in outcomes]  # runs of earlier versions have none
    if weights is not None:
        inputs.append(dict(weights=digest_of(weights)))
    for key in sorted({key for own in inputs for key in own}):
        found = sorted({str(own[key]) for own in inputs if key in own})
        if len(found) > 1:
            raise UserError(f'these runs differ in {key}: ' + ' and '.join(found),
                            expected='another OUT for another input')
    for key in ('dataset', 'protocol'):
        found = sorted({o[key] for o in outcomes})
        if len(found) > 1:
            raise UserError(f'these runs differ in {key}: ' + ', '.join(found))
    scores: dict[str, Any] = {}
    left_out: list[str] = []
    places = dict.fromkeys((subset, kind, key) for o in outcomes
                           for subset, kinds in o['scores'].items()
                           for kind, keys in kinds.items() for key in keys)
    for subset, kind, key in places:
        values = [o['scores'].get(subset, {}).get(kind, {}).get(key) for o in outcomes]
        if None not in values:
            scores.setdefault(subset, {}).setdefault(kind, {})[key] = dict(
                mean=statistics.mean(values), values=values,
                sd=statistics.stdev(values) if len(values) > 1 else None)
        elif any(value is not None for value in values):
            whole = any(subset not in o['scores'] for o in outcomes)
            left_out.append(subset if whole else f'{subset} {kind} {key}')
    return dict(dataset=outcomes[0]['dataset'], protocol=outcomes[0]['protocol'],
                runs=len(outcomes), scores=scores, left_out=[*dict.fromkeys(left_out)])


def spread_table(summary: dict[str, Any]) -> str:
    """Return a summary as lines of text: mean ± sd, a column for each subset; what is left out."""
    scores = summary['scores']
    lines = [f"{summary['dataset']}: mean ± sd of {summary['runs']} runs",
             f'{"":<18}' + ''.join(f'{name:>18}' for name in scores)]
    for kind, word in (('bbox', 'box'), ('segm', 'mask'), ('objects', 'object')):
        for key in dict.fromkeys(key for s in scores.values() for key in s.get(kind, {})):
            cells = [s.get(kind, {}).get(key) for s in scores.values()]
            words = ['-' if c is None else f"{c['mean']:.3f}" + (
                '' if c['sd'] is None else f" ± {c['sd']:.3f}") for c in cells]
            lines.append(f'{word + " " + key:<18}' + ''.join(f'{w:>18}' for w in words))
    if summary['left_out']:
        lines.append('left out, as not all runs have them: ' + ', '.join(summary['left_out']))
    return '\n'.join(lines) + '\n'
