"""PLM's main_segmentation.py: its flags, its folders, its codes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openselfsup.datasets.prepare.bcss import CODES
from openselfsup.errors import UserError
from openselfsup.files import read_json
from openselfsup.lineage.semantic_segmentation import CONFIG, _one_gpu, translate
from openselfsup.shipped import find_config
from openselfsup.transfer.instance.yaml_config import read_yaml

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def tiles(tmp_path) -> Path:
    """Tiles of two regions in the published layout, as BCSS's codes; a file of each name twice."""
    rng = np.random.default_rng(0)
    for part, regions in (('train', ('TCGA-A', 'TCGA-B')), ('val', ('TCGA-C',))):
        for region in regions:
            for kind in ('img', 'mask'):
                (tmp_path / 'data' / part / kind / region).mkdir(parents=True)
            for i in range(3):
                mask = np.repeat(np.repeat(rng.choice([0, 1, 2], (2, 2), p=(.2, .4, .4)), 32, 0),
                                 32, 1).astype(np.uint8)
                image = np.stack([80 + 80 * mask, 200 - 60 * mask, 90 + 50 * mask], 2)
                for kind, array in (('img', image.astype(np.uint8)), ('mask', mask)):
                    Image.fromarray(array).save(tmp_path / 'data' / part / kind / region
                                                / f'{i}.png')
    return tmp_path / 'data'


def test_flags_become_settings(tiles, weights, monkeypatch):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    command = translate(['--data_path', str(tiles), '--pretrained_weights', str(weights),
                         '--batch_size', '2', '--accumulate_grad_batches', '2', '--epochs', '5',
                         '--use_fp16', 'True', '--output_dir', 'out', '--tag', 'a',
                         '--num_classes', '2', '--optimizer', 'lars', '--gpu_id', '1', '--resume'])
    assert command.name == 'segment semantic' and command.words[:2] == [CONFIG, '--resume']
    found = dict(zip(command.words[2::2], command.words[3::2]))
    assert found == dict(
        train_images=f'{tiles}/train/img', train_masks=f'{tiles}/train/mask',
        test_images=f'{tiles}/val/img', test_masks=f'{tiles}/val/mask', iterations='10',
        batch_size='4', crop='256', lr='0.0005', weight_decay='0.02', amp='fp16',
        backbone=str(weights), out='out/a', classes="['code 1', 'code 2']",
        codes="{0: 'ignore', 1: 0, 2: 1}")
    assert command.environment == {'CUDA_VISIBLE_DEVICES': '1'}
    assert _one_gpu('0') == {}
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '3,5')  # the second of those that are seen
    assert _one_gpu('1') == {'CUDA_VISIBLE_DEVICES': '5'}
    assert command.notes[0].startswith('optimizer: left out, AdamW') and len(command.notes) == 2


def test_the_config_names_the_codes_of_bcss():
    values = read_yaml(find_config(CONFIG, 'segmentation/semantic/configs', '.yaml'), nested=False)
    classes, codes = values['classes'][0], values['codes'][0]
    assert {code: 'outside_roi' if label == 'ignore' else classes[label]
            for code, label in codes.items()} == dict(enumerate(CODES))


@pytest.mark.parametrize('words, told', [
    (['--arch', 'vit_small'], 'expected unet_r18'), (['--low_scale_size', '256'], 'two scales'),
    (['--data_path', ''], '{train,val}/{img,mask}'), (['--gpu_id', '0,1'], 'one GPU'),
    (['--epochs', '0'], 'at least 1'), (['--lr', 'fast'], "lr is 'fast'; expected a number"),
    (['--pretrained_weights', ''], 'no weights of the frozen encoder'),
    (['--pretrained_weights', 'no.pth'], 'no such file')])
def test_what_cannot_be_trained_is_refused(tiles, words, told):
    with pytest.raises(UserError, match=told):
        translate(['--data_path', str(tiles), '--pretrained_weights', 'none', *words])


def test_the_published_command_trains_and_scores(tiles, weights, tmp_path):
    done = subprocess.run(
        [sys.executable, REPO / 'semantic_seg/main_segmentation.py', '--data_path', tiles,
         '--pretrained_weights', weights, '--resize_image_size', '64', '--batch_size', '3',
         '--epochs', '2', '--output_dir', 'out', 'width', '8'],
        cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'this is: openselfsup segment semantic' in done.stdout
    results = read_json(tmp_path / 'out/test_seg/results.json')
    assert results['tiles'] == 3 and results['run']['settings']['freeze']
    assert results['run']['settings']['iterations'] == 4
    assert results['scores']['classes']['tumor']['dice'] is not None  # published: left out
