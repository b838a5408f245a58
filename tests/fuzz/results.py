"""results.json of an evaluation, and the pages that are drawn from it."""

import json
import math
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

from openselfsup.evaluation.metrics import SCORES
from openselfsup.evaluation.results import Results, Row, Summary, read_results
from openselfsup.evaluation.table import results_table
from openselfsup.visualization.comparison import write_comparison
from openselfsup.visualization.report import write_report

SUFFIX = '.json'


@cache
def seeds() -> list[bytes]:
    def row(diverged=None):
        scores = {name: dict(value=None if diverged else 0.5, low=0.25, high=0.75)
                  for name in SCORES}
        return Row('finetune-v1', 'checkpoint', 0.1, 1, True, 4, 1, 4, dict(lr=0.1),
                   dict(epoch=1), scores, [0.5, None], [[2, 2], [0, 0]],
                   [dict(epoch=e, loss=0.5, accuracy=0.5, cross_entropy=0.7) for e in (1, 2)],
                   1.5, diverged)
    part = dict(tiles=4, first='a/b.png', by_class=dict(a=2, b=2), patients=None)
    results = Results('2026-01-01T00:00:00', dict(torch='2', device='cpu'),
                      dict(name='resnet18', path='a.pth', tensors='1/1', sha256='0'),
                      dict(classes=['a', 'b'], train=part, test=part), ['WARNING: a note', 'b'],
                      [row(), row(2)],
                      [Summary('finetune-v1', 'checkpoint', 0.1, True, [1], {
                          name: dict(mean=mean, low=mean, high=mean, sd=None)
                          for name in SCORES}, seeds) for mean, seeds in ((0.5, []), (None, [2]))])
    text = json.dumps(asdict(results))
    first = json.dumps(asdict(replace(results, schema=1))).replace(', "diverged": null', '')
    return [text.encode(), first.encode()]


def check(path: Path, original: bytes) -> None:
    folder = path.parent / 'run'
    folder.mkdir(exist_ok=True)
    data = path.read_bytes()
    (folder / 'results.json').write_bytes(data)
    results = read_results(folder)
    expected = json.loads(data)
    assert len(results.rows) == len(expected['rows'])
    for row, other in zip(results.rows, expected['rows']):
        assert row.scores == other['scores']
        for name in SCORES:
            values = [row.scores[name][key] for key in ('value', 'low', 'high')]
            assert all(v is None or math.isfinite(v) and 0 <= v <= 1 for v in values)
    results_table(results, ['accuracy', 'auroc'])
    write_comparison({'a': folder, 'b': folder}, path.parent / 'all.html')
    if not any(len(row.history) > 1 for row in results.rows) or data in seeds():
        write_report(folder)  # with curves it takes too long for every file
