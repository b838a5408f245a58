"""The published lists of tiles: read as they are, and missed in a clear sentence."""

import shutil
from pathlib import Path

import pytest

from openselfsup.cli.main import execute
from openselfsup.datasets.sources import ImageList
from openselfsup.errors import UserError

REPO = Path(__file__).resolve().parents[2]
CLASSES = ['BACK', 'ADI', 'DEB', 'LYM', 'MUC', 'MUS', 'NORM', 'STR', 'TUM']


def test_a_list_is_read_as_it_was_published(tmp_path):
    """ConCL's has line ends of Windows, and neither numbers its classes by the alphabet."""
    for name in CLASSES[:3]:
        (tmp_path / name).mkdir()
        shutil.copy(REPO / 'data/demo/kather2016/TUMOR/image_007.png', tmp_path / name / 'a.png')
    (tmp_path / 'train_labeled.txt').write_bytes(b'ADI/a.png 1\r\nBACK/a.png 0\r\nDEB/a.png 2\r\n')
    source = ImageList(str(tmp_path / 'train_labeled.txt'), str(tmp_path), CLASSES)
    assert [source.classes[label] for label in source.labels] == [
        Path(source.path(i)).parent.name for i in range(3)]


@pytest.mark.parametrize('words', [
    [str(REPO / 'configs/PLM_SSL/r18_bs256_ep200.py'), '--work-dir', 'out', '--cfg-options',
     'dataset.source.list_file=data/NCT/meta/train.txt', "dataset.source.root='.'"],
    ['NCT.py', '--work-dir', 'out', '--launcher', 'none']], ids=['ours', 'published'])
def test_one_that_is_not_there_is_said_before_any_work(there, words, tmp_path, monkeypatch):
    config, = there.rglob('NCT_pretraining/concl/r18_bs256_ep200.py')
    shutil.copy(config, tmp_path / 'NCT.py')
    shutil.copy(there / 'ConCL/configs/base.py', tmp_path / 'base.py')
    (tmp_path / 'data/NCT/data').mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r'data/NCT/meta/train.txt \(from .*no such list of tiles.*'
                                        'openselfsup prepare writes lists, those of PLM_SSL'):
        execute('train', words)
    assert not (tmp_path / 'out').exists()
