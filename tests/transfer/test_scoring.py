"""Several runs: mean and sd, and what may not be averaged."""

import re
import subprocess
import sys

import pytest
from short_config import DETECTION

from openselfsup.errors import UserError
from openselfsup.files import read_json, write_json
from openselfsup.transfer.instance.job import digest_of
from openselfsup.transfer.instance.metrics import PROTOCOL
from openselfsup.transfer.instance.scoring import mean_and_sd, read_outcomes, spread_table
from openselfsup.visualization.overlays import write_overlay_page


def outcome(ap: float, dataset: str = 'GlaS_test', weights: str | None = None) -> dict:
    return dict(dataset=dataset, protocol='p', images={}, scores={'all': {
        'bbox': {'AP': ap, 'APl': None}, 'segm': {'AP': ap / 2}, 'objects': {'f1': 1.0}}},
        run=dict(inputs=dict(weights=weights)) if weights else {})


def test_mean_and_sd_of_runs():
    summary = mean_and_sd([outcome(v) for v in (0.5, 0.6, 0.7)])
    assert summary['scores']['all']['bbox']['AP'] == dict(
        mean=pytest.approx(0.6), sd=pytest.approx(0.1), values=[0.5, 0.6, 0.7])
    assert 'APl' not in summary['scores']['all']['bbox']
    assert summary['left_out'] == [] and 'left out' not in spread_table(summary)
    assert '0.600 ± 0.100' in spread_table(summary) and '0.300 ± 0.050' in spread_table(summary)


def test_what_not_all_runs_have_is_left_out_and_told_in_any_order():
    runs = [outcome(0.5), outcome(0.7)]
    runs[0]['scores']['testA'] = runs[0]['scores']['all']
    runs[0]['scores']['testB'] = {'bbox': {'APm': 0.1}}
    runs[1]['scores']['testB'] = {'bbox': {'APm': 0.3, 'APl': 0.2}}
    runs[1]['scores']['all']['objects']['f1'] = None
    left_out = {'testA', 'all objects f1', 'testB bbox APl'}
    for order in (runs, runs[::-1]):
        summary = mean_and_sd(order)
        assert {*summary['scores']} == {'all', 'testB'} and {*summary['left_out']} == left_out
        assert summary['scores']['testB'] == {'bbox': {'APm': dict(
            mean=pytest.approx(0.2), sd=pytest.approx(0.02 ** 0.5),
            values=[run['scores']['testB']['bbox']['APm'] for run in order])}}
        lines = spread_table(summary).splitlines()
        assert lines[1].split() == ['all', 'testB']
        assert 'box APm                            -     0.200 ± 0.141' in lines
        assert lines[-1] == 'left out, as not all runs have them: ' + ', '.join(
            summary['left_out'])


def test_one_run_has_no_spread_and_different_data_sets_no_mean():
    assert mean_and_sd([outcome(0.5)])['scores']['all']['segm']['AP']['sd'] is None
    with pytest.raises(UserError, match='differ in dataset: CRAG_test, GlaS_test'):
        mean_and_sd([outcome(0.5), outcome(0.5, 'CRAG_test')])


def test_runs_of_other_backbones_have_no_mean(tmp_path):
    (tmp_path / 'a.pth').write_bytes(b'a')
    (tmp_path / 'b.pth').write_bytes(b'b')
    a, b = digest_of(str(tmp_path / 'a.pth')), digest_of(str(tmp_path / 'b.pth'))
    runs = [outcome(0.5, weights=a), outcome(0.7, weights=a), outcome(0.6)]
    assert mean_and_sd(runs, str(tmp_path / 'a.pth'))['runs'] == 3
    with pytest.raises(UserError, match='differ in weights'):
        mean_and_sd(runs, str(tmp_path / 'b.pth'))
    with pytest.raises(UserError, match='differ in weights'):
        mean_and_sd([*runs, outcome(0.5, weights=b)])


@pytest.mark.parametrize('text, told', [
    (None, 'No such file'), ('[', 'not valid JSON'), ('[]', 'no scores of instance'),
    ('{"dataset": 1, "scores": {}}', 'no scores of instance')])
def test_what_holds_no_scores_is_refused_where_it_is_read(tmp_path, text, told):
    if text:
        (tmp_path / 'results.json').write_text(text)
    with pytest.raises(UserError, match=f'{tmp_path}/results.json: .*{told}'):
        read_outcomes([tmp_path])


def test_only_runs_of_the_same_data_set_and_protocol_are_compared(tmp_path):
    runs = dict(same=outcome(0.5), other=outcome(0.5, 'CRAG_test'), later=outcome(0.5))
    runs['same']['protocol'] = runs['other']['protocol'] = PROTOCOL
    for name, run in runs.items():
        write_json(tmp_path / name / 'results.json', run)
    assert len(read_outcomes([tmp_path / name for name in runs])) == 3
    assert read_outcomes([tmp_path / 'same'], ['GlaS_test']) == [runs['same']]
    for name, told in (('other', f'CRAG_test by {PROTOCOL}'), ('later', 'GlaS_test by p')):
        with pytest.raises(UserError, match=f'{name}/results.json: these are scores of {told}, '
                           f'which .* expected some of GlaS_test by {PROTOCOL}'):
            read_outcomes([tmp_path / 'same', tmp_path / name], ['GlaS_test'])


def test_an_undefined_score_is_shown_as_none(tmp_path):
    compared, run = outcome(0.5), outcome(0.6)
    run['scores']['all']['segm']['AP'] = None
    text = write_overlay_page(tmp_path, run, None, [compared]).read_text()
    rows = re.findall('<td class="number">(.*?)</td>', text[text.index('what came out'):])
    assert rows[:2] == ['25.0', '-']


def test_run_ft_repeats_no_finished_run_and_summarises(tmp_path):
    for seed, ap in ((1, 0.5), (2, 0.7)):
        write_json(tmp_path / 'out' / str(seed) / 'results.json', outcome(ap))
    (tmp_path / 'b.pkl').write_bytes(b'')
    def run_ft(backbone: str) -> subprocess.CompletedProcess:
        # From another folder, with relative paths.
        return subprocess.run(['bash', str(DETECTION / 'run_ft.sh'), backbone, 'out'],
                              env=dict(PYTHON=sys.executable, RUNS='2', PATH='/usr/bin:/bin'),
                              cwd=tmp_path, capture_output=True, text=True)
    done = run_ft('b.pkl')
    assert done.returncode == 0, done.stderr
    assert '0.600 ± 0.141' in done.stdout
    assert read_json(tmp_path / 'out' / 'summary.json')['runs'] == 2
    write_json(tmp_path / 'out' / '1' / 'results.json', outcome(0.5, weights='sha256 other'))
    (tmp_path / 'c.pkl').write_bytes(b'c')
    done = run_ft('c.pkl')
    assert done.returncode == 2 and 'differ in weights' in done.stderr


def test_run_sh_takes_relative_paths_from_where_it_is_called(tmp_path):
    """It hands all of them on as they are, and writes nothing itself."""
    (tmp_path / 'python').write_text('#!/bin/sh\necho "$PWD: $@"\n')
    (tmp_path / 'python').chmod(0o755)
    done = subprocess.run(
        ['bash', str(DETECTION / 'run.sh'), 'b.pth', 'out/1', 'CRAG', 'data', '--compare', 'out/0'],
        env=dict(PYTHON='./python', GPUS='0', CONFIG='my.yaml', PATH='/usr/bin:/bin'),
        cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == (
        f'{tmp_path}: {DETECTION}/train_net.py --config-file my.yaml --num-gpus 0 '
        '--datasets-folder data --compare out/0 MODEL.WEIGHTS b.pth OUTPUT_DIR out/1 SEED -1\n')
    assert [p.name for p in tmp_path.iterdir()] == ['python']
