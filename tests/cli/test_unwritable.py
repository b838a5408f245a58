"""Outputs that cannot be written are told before any work."""

import pytest

CONFIG = 'configs/demo/plm_r18.py'
TILES = 'data/demo/kather2016'


@pytest.mark.parametrize('words', [
    ['tools/train.py', CONFIG, '--work-dir', 'OUT', '--cfg-options',
     f'dataset.source.root={TILES}'],
    ['tools/extract.py', CONFIG, 'no.pth', '--out', 'OUT/features.npz'],
    ['tools/browse_views.py', CONFIG, '--out', 'OUT'],
    ['tools/pack_tiles.py', TILES, 'OUT'],
    ['tools/prepare_data.py', 'folder', TILES, 'OUT'],
    ['benchmarks/classification/ft_le.py', '--train', TILES, '--holdout', '0.3', '--out', 'OUT']],
    ids=lambda words: words[0])
def test_where_nothing_can_be_written_is_one_sentence(tmp_path, tool, words):
    file = tmp_path / 'file'  # in the place of a folder: so not even root can
    file.write_text('mine')
    done = tool(*(word.replace('OUT', f'{file}/out') for word in words))
    assert done.returncode == 2
    message = done.stderr.splitlines()[-1]
    assert message.startswith(f'error: {file}')
    assert 'is a file' in message or 'a file, not a folder' in message
    assert file.read_text() == 'mine'
