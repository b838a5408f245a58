"""results.json of every version, and of versions that are still to come."""

import json
import logging
import re
from pathlib import Path

import pytest

from openselfsup.errors import UserError
from openselfsup.evaluation import results, results_form
from openselfsup.evaluation.metrics import SCORES
from openselfsup.evaluation.results import Results, read_results
from openselfsup.evaluation.table import results_table
from openselfsup.visualization.comparison import write_comparison
from openselfsup.visualization.report import write_report

REPO = Path(__file__).parents[2]
#: Written by the first version of the library that wrote results, on the bundled tiles.
FIRST = REPO / 'tests/data/results/schema_1.json'


@pytest.fixture(autouse=True)
def nothing_is_told_yet():
    results._tell_newer.cache_clear()


@pytest.fixture
def current() -> dict:
    """Results of the present version: those of the first with what was added since."""
    found = json.loads(FIRST.read_text())
    found.update(schema=results_form.VERSION, request=dict(protocols=['linear-v1', 'knn-v1']))
    for row in found['rows']:
        row['diverged'] = None
        row['scores']['mean_average_precision'] = dict(value=None, low=None, high=None)
    for line in found['summary']:
        line['diverged'] = []
        line['scores']['mean_average_precision'] = dict(mean=None, low=None, high=None, sd=None)
    return found


def newer(found: dict) -> dict:
    """Return results as a later version might write them, with more of everything."""
    found = json.loads(json.dumps(found)) | dict(schema=results_form.VERSION + 1, slides=['a'])
    found['environment']['cuda'] = None
    found['data']['test'].update(slides=3)
    for row in found['rows']:
        row.update(threshold='Youden', scores=row['scores'] | dict(kappa='0.7 of 1'))
        row['scores']['accuracy'].update(method='BCa')
        row['history'] = [dict(epoch=1, loss=0.5, accuracy=0.5, cross_entropy=0.7, lr=[0.1])]
    for line in found['summary']:
        line.update(hosts=dict(a=1), scores=line['scores'] | dict(kappa=dict(mean='0.7')))
    return found


def written(folder: Path, found: dict) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / 'results.json').write_text(json.dumps(found))
    return folder


def told(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_the_first_version_is_read(tmp_path, caplog):
    folder = written(tmp_path / 'first', json.loads(FIRST.read_text()))
    found = read_results(folder)
    assert found.schema == 1 and found.request == {} and len(found.rows) == 6
    assert {row.diverged for row in found.rows} == {None}
    assert [line.diverged for line in found.summary] == [[]] * 6
    assert not told(caplog)
    assert 'colour histogram' in results_table(found, ['accuracy'])
    assert 'Results</h2>' in write_report(folder).read_text()


def test_what_is_written_is_read_again(tmp_path, current):
    first = read_results(written(tmp_path, current))
    path = Results(**vars(first)).write(tmp_path)
    assert json.loads(path.read_text()) == current
    assert read_results(path) == first
    assert Results('', {}, {}, {}).schema == results_form.VERSION  # what is new is of this one


def test_a_newer_version_is_read_with_one_warning(tmp_path, current, caplog):
    plain, later = written(tmp_path / 'now', current), written(tmp_path / 'later', newer(current))
    with caplog.at_level(logging.WARNING):
        found = read_results(later)
        for folder in (plain, later):
            read_results(folder)
            write_report(folder)
        write_comparison(dict(now=plain, later=later), tmp_path / 'all.html')
    assert told(caplog) == [
        f'{later / "results.json"} is of schema {results_form.VERSION + 1}, newer than the '
        f'{results_form.VERSION} that this version of the library knows: what it holds beyond '
        'that is ignored']
    expected = read_results(plain)
    for row, other in zip(found.rows, expected.rows, strict=True):
        assert (row.protocol, row.confusion) == (other.protocol, other.confusion)
        for name in SCORES:
            assert row.scores[name]['value'] == other.scores[name]['value']
    columns = ['accuracy', 'auroc']
    assert results_table(found, columns) == results_table(expected, columns)


def test_a_metric_of_the_users_own_is_null_in_files_without_it(tmp_path, current, monkeypatch):
    monkeypatch.setitem(SCORES, 'kappa', lambda tiles: None)
    found = read_results(written(tmp_path, current))
    assert set(found.rows[0].scores['kappa'].values()) == {None}
    assert 'Kappa' in results_table(found, ['accuracy', 'kappa'])
    current['rows'][0]['scores']['kappa'] = dict(value=-0.2, low=-0.3, high=None)
    assert read_results(written(tmp_path, current)).rows[0].scores['kappa']['value'] == -0.2
    current['rows'][0]['scores']['kappa'] = dict(value='high', low=None, high=None)
    with pytest.raises(UserError, match="kappa.value is 'high'"):
        read_results(written(tmp_path, current))


def test_unknown_fields_need_no_newer_version(tmp_path, current, caplog):
    found = newer(current) | dict(schema=results_form.VERSION)
    assert len(read_results(written(tmp_path, found)).rows) == 6
    assert not told(caplog)


@pytest.mark.parametrize('spoil, words', [
    (lambda r: r['rows'][1].pop('confusion'), r'rows\[1\] lacks confusion'),
    (lambda r: r['summary'][0]['scores'].pop('auroc'), r'summary\[0\].scores lacks auroc'),
    (lambda r: r.update(rows='in rows.parquet'), 'rows or summary is no list'),
    (lambda r: r.pop('request'), 'results lacks request'),
])
def test_a_newer_version_without_what_is_needed_is_refused(tmp_path, current, spoil, words):
    found = newer(current)
    spoil(found)
    with pytest.raises(UserError, match=f'{words}.*of schema {found["schema"]}.*newer'):
        read_results(written(tmp_path, found))


@pytest.mark.parametrize('schema', [None, 0, '2', True, 1.0, [2]])
def test_a_file_without_a_version_is_none_of_ours(tmp_path, current, schema):
    with pytest.raises(UserError, match='the schema is .*expected a version of the form, 1 to'):
        read_results(written(tmp_path, current | dict(schema=schema)))


def test_fields_are_needed_from_the_version_that_added_them(tmp_path, current):
    del current['rows'][2]['diverged']
    with pytest.raises(UserError, match=r'rows\[2\] lacks diverged; expected what schema 3'):
        read_results(written(tmp_path, current))
    assert read_results(written(tmp_path, current | dict(schema=1))).rows[2].diverged is None


@pytest.mark.parametrize('spoil, words', [
    (lambda r: r['rows'][0]['scores']['accuracy'].update(value=1.5), 'accuracy has the number 1.5'),
    (lambda r: r['rows'][0]['scores']['accuracy'].update(low='a'), "accuracy.low is 'a'"),
    (lambda r: r['rows'][0]['scores']['accuracy'].pop('low'), 'accuracy.low is missing'),
    (lambda r: r['rows'][0]['scores'].pop('auroc'), 'scores lacks auroc'),
    (lambda r: r['rows'][0]['confusion'].pop(), 'confusion is no table of 8 x 8 counts'),
    (lambda r: r['rows'][0].update(seed='1'), r"rows\[0\].seed is '1'"),
    (lambda r: r['rows'].append(3), r'rows\[6\] is no object'),
    (lambda r: r['summary'][0].update(scores=[]), r'summary\[0\].scores is \[\]'),
    (lambda r: r['data'].pop('classes'), 'data.classes is missing'),
    (lambda r: r['data']['test'].update(tiles=None), 'data.test.tiles is None'),
    (lambda r: r.update(rows={}), 'rows or summary is no list'),
    (lambda r: r['model'].update(path=3), 'model.path is 3'),
])
def test_another_form_is_refused_by_place(tmp_path, current, spoil, words):
    spoil(current)
    with pytest.raises(UserError, match=words):
        read_results(written(tmp_path, current))


@pytest.mark.parametrize('number', ['NaN', 'Infinity', '-Infinity', '1e999'])
def test_results_hold_json_and_nothing_else(tmp_path, current, number):
    text = json.dumps(current).replace('"seconds": ', f'"seconds": {number}, "x": ', 1)
    (tmp_path / 'results.json').write_text(text)
    with pytest.raises(UserError, match='no JSON'):
        read_results(tmp_path)


def test_every_version_stands_in_the_tables():
    listed = re.findall(r'^(\d+) {2,}\S', results_form.__doc__, re.M)
    assert list(map(int, listed)) == list(range(1, results_form.VERSION + 1))
    section = (REPO / 'docs/evaluation.md').read_text().split('## results.json')[1]
    documented = re.findall(r'^\| (\d+) \|', section.split('\n## ')[0], re.M)
    assert documented == listed
    assert set(results_form.SINCE.values()) <= set(range(2, results_form.VERSION + 1))
