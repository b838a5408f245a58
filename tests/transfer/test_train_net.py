"""The command line of fine-tuning: its words, its folder, and the data sets it refuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from short_config import DETECTION, SHORT, TINY

from openselfsup.claims import claimed
from openselfsup.cli.main import execute
from openselfsup.errors import UserError
from openselfsup.models.backbones.resnet import ResNet
from openselfsup.training import precision
from openselfsup.transfer.instance.data_sets import Wanted, open_data_sets


def test_the_command_line_in_two_processes(datasets, tmp_path):
    done = subprocess.run(
        [sys.executable, 'train_net.py', '--config-file',
         'configs/GlaS/GlaS_R_18_FPN_short.yaml', '--num-gpus', '0', '--cpu-processes', '2',
         '--datasets-folder', str(datasets), '--backend', 'torchvision', *TINY,
         'SOLVER.MAX_ITER', '2', 'OUTPUT_DIR', str(tmp_path / 'o')],
        cwd=DETECTION, capture_output=True, text=True, env={'OMP_NUM_THREADS': '1', 'PATH': ''})
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / 'o' / 'results.json').read_text())
    assert results['run']['processes'] == 2 and len(results['images']) == 3
    assert 'iteration 2/2 ' in (tmp_path / 'o' / 'log.txt').read_text()
    again = subprocess.run(done.args, cwd=DETECTION, capture_output=True, text=True,
                           env={'OMP_NUM_THREADS': '1', 'PATH': ''})
    assert again.returncode == 2 and 'Traceback' not in again.stderr
    assert again.stderr.count('an earlier run left results.json and last_checkpoint') == 1


@pytest.fixture
def run_train_net():
    """Runs the command behind train_net.py with a config and further words."""
    def run(config: Path, *words: str) -> None:
        execute('segment instance', ['--config-file', str(config), *words])
    return run


def test_mistakes_on_the_command_line(run_train_net, monkeypatch, tmp_path):
    config = SHORT.with_name('GlaS_R_18_C4_1x.yaml')
    with pytest.raises(UserError, match='C4 model'):
        run_train_net(config, '--num-gpus', '0', '--backend', 'torchvision', 'OUTPUT_DIR',
                      str(tmp_path))
    with pytest.raises(UserError, match='--resume stands behind KEY VALUE'):
        run_train_net(config, '--num-gpus', '0', 'SEED', '1', '--resume')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(UserError, match='4 GPUs are asked for, this machine has 2.*0 runs on'):
        run_train_net(config, '--num-gpus', '4')


@pytest.mark.parametrize('made, words', [
    ('results.json', []), ('last_checkpoint', []), ('results.json', ['--eval-only'])])
def test_what_an_earlier_run_computed_is_not_overwritten(run_train_net, datasets, tmp_path, made,
                                                         words):
    (tmp_path / made).write_text('earlier')
    with pytest.raises(UserError, match=f'{tmp_path}: an earlier run left {made} here.*--resume'):
        run_train_net(SHORT, '--num-gpus', '0', '--backend', 'torchvision', *words,
                      '--datasets-folder', str(datasets), *TINY, 'OUTPUT_DIR', str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == [made]


def test_compare_swallows_no_key(run_train_net, datasets, tmp_path, monkeypatch):
    """The scores of a run beside this one; what follows is KEY VALUE and counts."""
    words = ['--num-gpus', '0', '--backend', 'torchvision', '--datasets-folder', str(datasets)]
    steps = [*TINY, 'SOLVER.MAX_ITER', '1']
    first, second = str(tmp_path / 'first'), str(tmp_path / 'second')
    run_train_net(SHORT, *words, *steps, 'OUTPUT_DIR', first)
    monkeypatch.setattr(precision, 'computes_in_bf16', lambda device: False)
    run_train_net(SHORT, *words, '--amp', 'bf16', '--compare', first, *steps, 'OUTPUT_DIR', second)
    log = (tmp_path / 'second' / 'log.txt').read_text()
    assert 'iteration 1/1 ' in log and log.count('has no bf16 instructions') == 1
    assert (tmp_path / 'second' / 'index.html').read_text().count('from random weights, 1') == 2
    third = [*words, '--compare', first, second, *steps, 'OUTPUT_DIR', str(tmp_path / 'third')]
    with pytest.raises(UserError, match='is a folder where KEY VALUE is expected'):
        run_train_net(SHORT, *third)
    with pytest.raises(UserError, match='first/none/results.json: No such file'):
        run_train_net(SHORT, *words, '--compare', f'{first}/none', *steps, 'OUTPUT_DIR',
                      str(tmp_path / 'third'))
    assert not (tmp_path / 'third').exists()


def test_a_run_goes_on_with_its_own_inputs_only(run_train_net, datasets, tmp_path):
    words = ['--num-gpus', '0', '--backend', 'torchvision', '--datasets-folder', str(datasets),
             '--resume', *TINY, 'SOLVER.MAX_ITER', '1', 'OUTPUT_DIR', str(tmp_path / 'o')]
    torch.save(dict(state_dict=ResNet(18).state_dict()), tmp_path / 'b.pth')
    run_train_net(SHORT, *words)
    kept = (tmp_path / 'o' / 'model_final.pth').read_bytes()
    with pytest.raises(UserError, match='weights was none, is now sha256'):
        run_train_net(SHORT, *words, 'MODEL.WEIGHTS', str(tmp_path / 'b.pth'))
    with pytest.raises(UserError, match='MODEL.FPN.OUT_CHANNELS was 32, is now 64'):
        run_train_net(SHORT, *words, 'MODEL.FPN.OUT_CHANNELS', '64')
    assert (tmp_path / 'o' / 'model_final.pth').read_bytes() == kept


def test_a_folder_that_is_written_into_is_left_alone(run_train_net, datasets, tmp_path):
    words = ['--num-gpus', '0', '--backend', 'torchvision', '--datasets-folder', str(datasets),
             '--resume', *TINY, 'OUTPUT_DIR', str(tmp_path)]
    with claimed(tmp_path, 'something else'):
        with pytest.raises(UserError, match=f'{tmp_path}: this process writes into this folder'):
            run_train_net(SHORT, *words)
        assert [p.name for p in tmp_path.iterdir()] == ['.in_use']


SPOILT = {
    'images of half the size': (lambda c: [i.update(height=192, width=192) for i in c['images']],
                                'masks would be displaced'),
    'an orphan': (lambda c: c['annotations'][0].update(image_id=99), 'is of no image'),
    'an empty mask': (lambda c: c['annotations'][0].update(
        segmentation=dict(size=[96, 96], counts=[96 * 96])), 'its mask is empty'),
    'no segmentation': (lambda c: c['annotations'][0].pop('segmentation'), 'has no segmentation'),
    'two categories': (lambda c: c['categories'].append(dict(id=2, name='x')),
                       'has 2 classes, the config 1'),
    'another category': (lambda c: (c['categories'][0].update(id=7), [
        a.update(category_id=7) for a in c['annotations']]), 'has other categories'),
    'crowds only': (lambda c: [a.update(iscrowd=1) for a in c['annotations']],
                    'not one object to train on'),
}


@pytest.mark.parametrize('case', SPOILT)
@pytest.mark.parametrize('split', ['train', 'test'])
def test_a_spoilt_data_set_is_refused_before_anything_is_written(run_train_net, datasets, tmp_path,
                                                                 case, split):
    shutil.copytree(datasets, tmp_path / 'data')
    path = tmp_path / 'data' / 'GlaS' / 'annotations' / f'{split}.json'
    content = json.loads(path.read_text())
    spoil, told = SPOILT[case]
    spoil(content)
    path.write_text(json.dumps(content))
    words = ['--num-gpus', '0', '--backend', 'torchvision', '--datasets-folder',
             str(tmp_path / 'data'), *TINY, 'SOLVER.MAX_ITER', '1', 'OUTPUT_DIR',
             str(tmp_path / 'o')]
    if (case, split) == ('crowds only', 'test'):  # fewer objects, but scored
        data, _ = open_data_sets(tmp_path / 'data', Wanted((), ('GlaS_test',), 1, True, 100))
        assert all(a['iscrowd'] for a in data['GlaS_test'].truth['annotations'])
        return
    with pytest.raises(UserError, match=told) as error:
        run_train_net(SHORT, *words)
    assert str(path) in str(error.value) and not (tmp_path / 'o').exists()


def test_what_is_odd_in_data_sets_is_told(datasets, tmp_path):
    shutil.copytree(datasets, tmp_path / 'data')
    folder = tmp_path / 'data' / 'GlaS'
    shutil.copy(folder / 'train' / 'train_1.bmp', folder / 'test' / 'testA_1.bmp')
    wanted = Wanted(('GlaS_train',), ('GlaS_test',), 1, True, 1)
    _, notes = open_data_sets(tmp_path / 'data', wanted)
    told = '\n'.join(notes)
    assert '1 of its images are in GlaS_test too, such as train_1.bmp' in told
    assert 'more objects than the 1 of TEST.DETECTIONS_PER_IMAGE' in told
    part = folder / 'annotations' / 'testA.json'
    other = folder / 'annotations' / 'test2.json'  # a data set of its own
    other.write_text(part.read_text().replace('testA_', 'hospital_'))
    data, notes = open_data_sets(tmp_path / 'data', Wanted((), ('GlaS_test',), 1, True, 100))
    assert set(data['GlaS_test'].subsets) == {'testA', 'testB'}
    assert any('test2.json: has no image of test.json' in note for note in notes)
    part.write_text(part.read_text().replace('testA_2.bmp', 'testA_9.bmp'))
    with pytest.raises(UserError, match="testA.json: is to be a part of test.json, and that has no "
                                        "image 2 .'testA_9.bmp'"):
        open_data_sets(tmp_path / 'data', Wanted((), ('GlaS_test',), 1, True, 100))
