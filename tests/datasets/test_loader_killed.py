"""A loader that is killed leaves nothing behind: its processes end, its memory has no name."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
SCRIPT = '''
from openselfsup.datasets import TileDataset, ViewLoader
recipe = dict(type='ViewRecipe', size=64, steps=[dict(type='RandomResizedCrop')])
source = dict(type='ImageFolder', root='data/demo/cmu1')
loader = ViewLoader(TileDataset(source, recipe), 4, workers=2, render=RENDER)
while True:
    for batch in loader:
        print('batch', flush=True)
'''


@pytest.mark.skipif(not Path('/proc/self/maps').exists(), reason='needs Linux')
@pytest.mark.parametrize('render', ['cpu', 'device'])
def test_nothing_is_left_after_kill_9(render, children):
    code = f'RENDER = {render!r}\n{SCRIPT}'
    process = subprocess.Popen([sys.executable, '-c', code], cwd=REPO, text=True,
                               stdout=subprocess.PIPE, start_new_session=True)
    try:
        for _ in range(3):
            assert process.stdout.readline() == 'batch\n'
        own = Path(f'/proc/{process.pid}')
        assert len(list((own / 'task').iterdir())) > 1  # its threads are at work
        assert len(children(process.pid)) == (2 if render == 'cpu' else 0)
        mapped = (own / 'maps').read_text()
        assert '/dev/shm' not in mapped and 'memfd:' not in mapped  # memory without a name
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 20
    with pytest.raises(ProcessLookupError):  # nobody of its group is left
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
