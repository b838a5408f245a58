"""OpenSelfSup's extraction: its flags, its files, several processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch.nn.functional import adaptive_avg_pool2d

from openselfsup.cli.main import execute, parse
from openselfsup.datasets.labeled import LabeledTileDataset
from openselfsup.errors import UserError
from openselfsup.evaluation.data import open_source
from openselfsup.lineage.extraction import read_dataset_config

REPO = Path(__file__).resolve().parents[2]
TILES = REPO / 'data/demo/kather2016'
CONFIG = str(REPO / 'configs/demo/plm_r18.py')


@pytest.fixture
def voc(tmp_path) -> Path:
    """A published dataset config: eleven tiles in two parts."""
    names = sorted(str(path.relative_to(TILES)) for path in TILES.rglob('*.png'))[::5]
    (tmp_path / 'list.txt').write_text(''.join(f'{name}\n' for name in names))
    text = f'''
data_source_cfg = dict(type='ImageList', memcached=False, mclient_path=None)
split_at = [7]
split_name = ['voc07_trainval', 'voc07_test']
data = dict(
    imgs_per_gpu=32, workers_per_gpu=2,
    extract=dict(
        type='ExtractDataset',
        data_source=dict(list_file={str(tmp_path / 'list.txt')!r}, root={str(TILES)!r},
                         **data_source_cfg),
        pipeline=[dict(type='Resize', size=72), dict(type='Resize', size=(64, 64)),
                  dict(type='ToTensor')]))
'''
    (tmp_path / 'voc07.py').write_text(text)
    return tmp_path / 'voc07.py'


def expected(weights: Path) -> dict[str, np.ndarray]:
    """Features of torchvision's own ResNet, pooled as published."""
    model = torchvision.models.resnet18(num_classes=8)
    model.load_state_dict(torch.load(weights, weights_only=True))
    labelled = LabeledTileDataset(open_source(str(TILES)), 64)
    tiles = [labelled[i][0] for i in range(0, 51, 5)]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = torch.stack([(tile / 255 - mean) / std for tile in tiles])
    model.eval()
    with torch.no_grad():
        maps = [model.relu(model.bn1(model.conv1(x)))]
        x = model.maxpool(maps[0])
        for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
            x = layer(x)
            maps.append(x)
    return {f'feat{i + 1}': adaptive_avg_pool2d(one, side).flatten(1).numpy()
            for i, (one, side) in enumerate(zip(maps, (12, 6, 4, 3, 2)))}


def found_in(folder: Path) -> dict[str, np.ndarray]:
    return {f'feat{i}': np.concatenate([np.load(folder / f'features/voc07_{part}_feat{i}.npy')
                                        for part in ('trainval', 'test')]) for i in range(1, 6)}


def test_two_processes_write_the_published_files(weights, voc, tmp_path, free_port):
    words = [CONFIG, '--dataset-config', str(voc), '--checkpoint', str(weights)]
    done = subprocess.run(
        [REPO / 'tools/dist_extract.sh', CONFIG, '2', 'two', *words[1:]], cwd=tmp_path, text=True,
        capture_output=True, timeout=240,
        env={**os.environ, 'PYTHON': sys.executable, 'PORT': free_port, 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stdout + done.stderr
    assert '11 tiles x 9216, 2304, 2048, 2304, 2048 features: two/features' in done.stdout
    assert np.load(tmp_path / 'two/features/voc07_trainval_feat5.npy').shape == (7, 2048)
    assert not list((tmp_path / 'two/features').glob('.*'))
    found, wanted = found_in(tmp_path / 'two'), expected(weights)
    for name, values in wanted.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4)
    # One process writes the same; another folder's features are not replaced by other ones.
    one = ['--layer-ind', '0,1,2,3,4', '--work_dir', str(tmp_path / 'one'), '--device', 'cpu']
    execute('extract', [*words, *one])
    assert all(np.allclose(values, found[name], atol=1e-5)
               for name, values in found_in(tmp_path / 'one').items())
    execute('extract', [*words, *one])
    with pytest.raises(UserError, match='this folder holds other features'):
        execute('extract', [CONFIG, '--dataset-config', str(voc), '--pretrained', 'random', *one])


def test_a_file_of_two_stages(weights, tmp_path, capsys):
    out = tmp_path / 'features.npz'
    execute('extract', [CONFIG, str(weights), '--out', str(out), '--layer-ind', '2,4', '--size',
                        '32', '--data', str(TILES), '--device', 'cpu'])
    with np.load(out) as found:
        assert {*found} == {'feat3', 'feat5', 'paths', 'labels', 'classes', 'inputs'}
        assert found['feat3'].shape == (51, 2048) and found['feat5'].shape == (51, 2048)
    assert '51 tiles x 2048, 2048 features' in capsys.readouterr().out


def test_weights_are_named_once():
    for words in (['a.pth'], ['--checkpoint', 'a.pth'], ['--pretrained', 'a.pth']):
        args = parse('extract', ['c.py', *words, '--out', 'a.npz'])
        assert 'a.pth' in (args.checkpoint, args.weights, args.pretrained)
    for words in ([], ['a.pth', '--checkpoint', 'b.pth']):
        with pytest.raises(SystemExit):
            parse('extract', ['c.py', *words, '--out', 'a.npz'])


@pytest.mark.parametrize('words, told', [
    ([], '--out, --work_dir: nothing says where features go'),
    (['--out', 'a.npz', '--work_dir', 'b'], 'two places are named'),
    (['--work_dir', 'b', '--dataset-config', 'no.py'], 'no.py .*no such file'),
    (['--work_dir', 'b', '--layer-ind', '5', '--size', '32', '--data', str(TILES)],
     'no stage 5; expected numbers from 0 to 4')])
def test_mistakes_are_told(weights, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=told):
        execute('extract', [CONFIG, str(weights), '--device', 'cpu', *words])


@pytest.mark.parametrize('change, told', [
    (('split_at = [7]', 'split_at = [7, 9]'), '2 cuts make no 2 parts'),
    (('split_at = [7]', 'split_at = [70]'), 'rising numbers up to 11'),
    (("split_name = ", "names = "), "'split_name' is missing"),
    (("type='ImageList', mem", "type='ImageLst', mem"),
     "voc07.py:.*no source of tiles here is called 'ImageLst'; did you mean 'ImageList'"),
    (('split_at = [', 'split_at = (['), 'voc07.py:3: not valid Python')])
def test_a_dataset_config_that_says_something_else(voc, change, told):
    voc.write_text(voc.read_text().replace(*change))
    with pytest.raises(UserError, match=told):
        read_dataset_config(voc)
