"""A loader that is killed leaves nothing behind: it has nothing outside its own process."""

import os
import signal
import subprocess
import sys
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
def test_nothing_is_left_after_kill_9(render):
    code = f'RENDER = {render!r}\n{SCRIPT}'
    process = subprocess.Popen([sys.executable, '-c', code], cwd=REPO, text=True,
                               stdout=subprocess.PIPE, start_new_session=True)
    try:
        for _ in range(3):
            assert process.stdout.readline() == 'batch\n'
        own = Path(f'/proc/{process.pid}')
        assert len(list((own / 'task').iterdir())) > 1  # its threads are at work
        children = [child for task in (own / 'task').iterdir()
                    for child in (task / 'children').read_text().split()]
        assert children == []
        mapped = (own / 'maps').read_text()
        assert '/dev/shm' not in mapped and 'memfd:' not in mapped
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):  # nobody of its group is left
        os.killpg(process.pid, 0)
