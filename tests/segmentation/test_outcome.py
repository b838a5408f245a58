"""Several runs: mean and sd, and what may not be averaged."""

import subprocess
import sys
from pathlib import Path

import pytest

from openselfsup.datasets.prepare.files import read_json, write_json
from openselfsup.errors import UserError
from openselfsup.transfer.outcome import mean_and_sd, spread_table

DETECTION = Path(__file__).resolve().parents[2] / 'segmentation' / 'detection'


def outcome(ap: float, dataset: str = 'GlaS_test') -> dict:
    return dict(dataset=dataset, protocol='p', scores={'all': {
        'bbox': {'AP': ap, 'APl': None}, 'segm': {'AP': ap / 2}, 'objects': {'f1': 1.0}}})


def test_mean_and_sd_of_runs():
    summary = mean_and_sd([outcome(v) for v in (0.5, 0.6, 0.7)])
    assert summary['scores']['all']['bbox']['AP'] == dict(
        mean=pytest.approx(0.6), sd=pytest.approx(0.1), values=[0.5, 0.6, 0.7])
    assert 'APl' not in summary['scores']['all']['bbox']
    assert '0.600 ± 0.100' in spread_table(summary) and '0.300 ± 0.050' in spread_table(summary)


def test_one_run_has_no_spread_and_different_data_sets_no_mean():
    assert mean_and_sd([outcome(0.5)])['scores']['all']['segm']['AP']['sd'] is None
    with pytest.raises(UserError, match='differ in dataset: CRAG_test, GlaS_test'):
        mean_and_sd([outcome(0.5), outcome(0.5, 'CRAG_test')])


def test_run_ft_repeats_no_finished_run_and_summarises(tmp_path):
    for seed, ap in ((1, 0.5), (2, 0.7)):
        write_json(tmp_path / 'out' / str(seed) / 'results.json', outcome(ap))
    (tmp_path / 'b.pkl').write_bytes(b'')
    done = subprocess.run(
        ['bash', str(DETECTION / 'run_ft.sh'), str(tmp_path / 'b.pkl'), str(tmp_path / 'out')],
        env=dict(PYTHON=sys.executable, RUNS='2', PATH='/usr/bin:/bin'), capture_output=True,
        text=True)
    assert done.returncode == 0, done.stderr
    assert '0.600 ± 0.141' in done.stdout
    assert read_json(tmp_path / 'out' / 'summary.json')['runs'] == 2
