"""CA2CL's pretrain.py: every key of its config.yaml as a flag and in the file."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from openselfsup.cli.main import parse
from openselfsup.cli.published import launcher
from openselfsup.engine.config import load_config
from openselfsup.errors import UserError
from openselfsup.lineage.ca2cl_pretraining import FIELDS, KEYS, translate
from openselfsup.registry import SCHEDULES

REPO = Path(__file__).resolve().parents[2]


def value_at(cfg, field: str):
    for key in field.split('.'):
        cfg = cfg[key]
    return cfg


def config_of(*words: str):
    """Return the config that a command line leads to, checked."""
    command = translate(['--pretrained', 'none', *words])
    assert command.name == 'train'
    args = parse('train', command.words)
    return load_config(args.config, args.cfg_options)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_without_flags_it_is_our_config_as_it_stands(tmp_path):
    (tmp_path / 'save').mkdir()
    (tmp_path / 'save/resnet18-f37072fd.pth').write_bytes(b'')
    command = translate([])
    assert command.words == [
        'CA2CL/r18_bs1792_ep100', '--work-dir', 'save/NCT/pretrain/resnet18', '--seed', '42',
        '--pretrained', 'save/resnet18-f37072fd.pth'] and command.notes == []
    for depth in (18, 34, 50):  # which is right only while our configs have their defaults
        cfg = load_config(f'CA2CL/r{depth}_bs1792_ep100')
        assert cfg.model.backbone.depth == depth and cfg.schedule == dict(
            type='Cosine', min_lr=0.0, by='epoch')
        found = {field: value_at(cfg, field) for fields in FIELDS.values() for field in fields}
        found.pop('dataset.source.root')
        assert found == {field: KEYS[name] for name, fields in FIELDS.items()
                         for field in fields if name != 'dataset_path'}


OTHERS = {
    'seed': 3, 'workers': 2, 'dataparallel': 0, 'dataset_path': 'tiles', 'batch_size': 96,
    'image_size': 96, 'start_epoch': 0, 'epochs': 7, 'dataset': 'PCam', 'epsilon': 0.5,
    'resnet': 'ResNet34', 'feature_dim': 64, 'model_path': 'out', 'reload': True, 'do_adv': False,
    'learning_rate': 0.001, 'weight_decay': 0.01, 'instance_temperature': 0.5, 'ca-t': 0.7,
    'Lambda': 0.3, 'clusters': 5, 'k-eigen': 50, 'num-iters': 3, 'use-kmeans': False,
    'do_ca': False, 'do_entro': True, 'cos': 0}


@pytest.mark.parametrize('name', KEYS)
def test_a_key_says_the_same_as_a_flag_and_in_the_file(tmp_path, name):
    plain, value = translate(['--pretrained', 'none']), OTHERS[name]
    flag = translate(['--pretrained', 'none', f'--{name}', str(value)])
    (tmp_path / 'config').mkdir()
    (tmp_path / 'config/config.yaml').write_text(f'{name}: {json.dumps(value)}\n')
    file = translate(['--pretrained', 'none'])
    assert file.notes == ['config/config.yaml is read', *flag.notes]
    assert file.words == flag.words and file.one_process_per_gpu == flag.one_process_per_gpu
    assert (flag != plain) == (value != KEYS[name])  # nothing goes unnoticed
    if name in FIELDS:
        cfg = config_of(f'--{name}', str(value))
        assert all(value_at(cfg, field) == value for field in FIELDS[name])
    # A flag comes after the file.
    assert translate(['--pretrained', 'none', f'--{name}', str(KEYS[name])]).words == (
        translate(['--pretrained', 'none', '--workers', '4']) if name == 'workers'
        else plain).words


@pytest.mark.parametrize('clusters', ['True', 'False'])
@pytest.mark.parametrize('attacked', ['True', 'False'])
def test_switches_are_read_as_they_are_meant(clusters, attacked):
    cfg = config_of('--do_ca', clusters, '--do_adv', attacked, '--epsilon', '2', '--clusters', '4')
    assert cfg.model.type == ('CA2CL' if clusters == 'True' else 'SimCLR')
    assert (cfg.model.get('adversary') or {}).get('epsilon') == (2 if attacked == 'True' else None)
    assert [hook['type'] for hook in cfg.hooks] == [
        name for name, drawn in (('ClusterPictures', clusters), ('AdversaryPictures', attacked))
        if drawn == 'True']


def test_the_other_rates_and_the_widths_of_resnet_50():
    cfg = config_of('--cos', '2', '--epochs', '4')
    assert SCHEDULES.build({**cfg.schedule, 'base_lr': 6e-4, 'epochs': cfg.epochs,
                            'steps_per_epoch': 2}) == pytest.approx(
        [6e-4 * math.cos(math.pi * epoch / 8) for epoch in (0, 0, 1, 1, 2, 2, 3, 3)])
    cfg = config_of('--cos', '0', '--resnet', 'ResNet50', '--do_ca', 'False')
    assert cfg.schedule == dict(type='Constant')
    assert (cfg.model.backbone.depth, cfg.model.neck.hid_channels) == (50, 2048)


@pytest.mark.parametrize('words, told', [
    (['--do_adv', 'maybe'], "do_adv is 'maybe'; expected True or False"),
    (['--epochs', '1.5'], "--epochs: epochs is '1.5'; expected a whole number"),
    (['--resnet', 'resnet18'], "did you mean 'ResNet18'"),
    (['--cos', '3'], '--cos: cos is 3; expected 1 or 2 or 0'),
    (['--start_epoch', '5'], 'no checkpoint is read'),
    (['--default_device', 'cuda:1'], 'expected cuda or cpu')])
def test_what_has_no_counterpart_is_refused(words, told):
    with pytest.raises(UserError, match=told):
        translate(['--pretrained', 'none', *words])


def test_mistakes_in_the_file_and_missing_weights(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(UserError, match='save/resnet18-f37072fd.pth .*not there.*pytorch.org'):
        translate([])
    (tmp_path / 'config').mkdir()
    (tmp_path / 'config/config.yaml').write_text('cluster: 3\n')
    with pytest.raises(UserError, match="config.yaml: 'cluster' is no key.*mean 'clusters'"):
        translate(['--pretrained', 'none'])


def test_every_gpu_gets_a_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    command = translate(['--pretrained', 'none'])
    assert launcher(command) == [
        sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
        str(REPO / 'tools/train.py'), *command.words]
    assert launcher(translate(['--pretrained', 'none', '--dataparallel', '0'])) == []
    monkeypatch.setenv('LOCAL_RANK', '0')
    assert launcher(command) == []


def test_the_published_command_pretrains(tmp_path):
    (tmp_path / 'config').mkdir()
    (tmp_path / 'config/config.yaml').write_text(
        f'seed: 42\nworkers: 0\ndataset_path: "{REPO}/data/demo/kather2016"\nbatch_size: 24\n'
        'image_size: 32\nepochs: 2\nca-t: 0.3\nk-eigen: 50\n')
    (tmp_path / 'pretrain.py').symlink_to(REPO / 'pretrain.py')
    done = subprocess.run(
        [sys.executable, 'pretrain.py', '--pretrained', 'none', '--epochs', '1', '--cfg-options',
         'log_interval=1'], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'k-eigen: left out' in done.stdout and 'this is: openselfsup train' in done.stdout
    out = tmp_path / 'save/NCT/pretrain/resnet18'
    rows = [json.loads(line) for line in (out / 'metrics.jsonl').read_text().splitlines()]
    assert len(rows) == 2 and {'loss_instance', 'loss_cluster', 'loss_adversarial'} <= {*rows[0]}
    assert (out / 'epoch_1.pth').is_file()
