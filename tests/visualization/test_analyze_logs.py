import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runs(tmp_path):
    for name in ('first', 'second'):
        folder = tmp_path / name
        folder.mkdir()
        lines = [json.dumps(dict(step=i, loss=6 - i / 10, lr=0.1)) for i in range(1, 41)]
        (folder / 'metrics.jsonl').write_text('\n'.join(lines) + '\n{"step": 41, "lo')
    return tmp_path


def test_two_runs_are_plotted_and_summed_up(runs):
    done = subprocess.run([sys.executable, ROOT / 'tools/analyze_logs.py', 'first',
                           'again=second/metrics.jsonl', '--out', 'out/c.png', '--keys', 'loss'],
                          cwd=runs, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 'first: 40 steps  loss 5.9 -> 2' in done.stdout
    assert 'again: 40 steps' in done.stdout
    assert cv2.imread(str(runs / 'out' / 'c.png')).shape[1] < 600  # one panel


def test_two_runs_of_one_name_are_told_how_to_differ(runs, tool):
    (runs / 'more' / 'first').mkdir(parents=True)
    done = tool('tools/analyze_logs.py', 'first', 'more/first', cwd=runs)
    assert done.returncode == 2
    assert "error: more/first: two runs are called 'first'; expected a name for each" in done.stderr
    assert 'first=first second=more/first' in done.stderr and 'Traceback' not in done.stderr
    assert not (runs / 'curves.png').exists()
