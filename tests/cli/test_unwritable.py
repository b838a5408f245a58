"""Outputs that cannot be written are told before any work, by the tools as users start them."""

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
TILES = 'data/demo/kather2016'


def test_where_nothing_can_be_written_is_one_sentence(tmp_path):
    (tmp_path / 'file').write_text('mine')  # in the place of a folder: so not even root can
    out = str(tmp_path / 'file' / 'out')
    config = 'configs/demo/plm_r18.py'
    commands = [['tools/train.py', config, '--work-dir', out, '--cfg-options',
                 f'dataset.source.root={TILES}'],
                ['tools/extract.py', config, 'no.pth', '--out', out + '/features.npz'],
                ['tools/browse_views.py', config, '--out', out],
                ['tools/pack_tiles.py', TILES, out],
                ['tools/prepare_data.py', 'folder', TILES, out],
                ['benchmarks/classification/ft_le.py', '--train', TILES, '--holdout', '0.3',
                 '--out', out]]
    processes = [subprocess.Popen([sys.executable, *words], cwd=REPO, text=True,
                                  env={**os.environ, 'OMP_NUM_THREADS': '1'},
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                 for words in commands]
    for words, process in zip(commands, processes):
        _, said = process.communicate(timeout=240)
        assert process.returncode == 2 and 'Traceback' not in said, (words, said)
        message = said.splitlines()[-1]
        assert message.startswith(f'error: {tmp_path / "file"}'), (words, said)
        assert 'is a file' in message or 'a file, not a folder' in message, (words, said)
    assert (tmp_path / 'file').read_text() == 'mine'
