"""Published checkpoints of every method: read, extracted, converted, under our names."""

import argparse
import re
import runpy
import sys
import types
from pathlib import Path

import pytest
import torch
import torchvision
from zoo_files import VIT, ZOO, tensors

from openselfsup import load_backbone
from openselfsup.checkpoints import (
    backbone_state_dict,
    detect,
    load,
    published_method,
    training_state_from_published,
)
from openselfsup.checkpoints.counts import tensors_of_checkpoint
from openselfsup.checkpoints.extracting import extract_backbone
from openselfsup.errors import UserError
from openselfsup.registry import ALGORITHMS
from openselfsup.transfer.instance.weights import read_pickle

REPO = Path(__file__).parents[2]
CONFIGS = REPO / 'configs/_base_/models'
OURS_ALONE = {'loss_weight', 'labels'}  # of clusters, in no published checkpoint
KINDS = {'PLM': 'published PLM', 'PLM+ConCL (ConCLLoc)': 'published PLM', 'CA2CL': 'CA2CL',
         'VICRegL (under model)': 'VICRegL'}
RECIPES = {'PLM+ConCL (ConCLLoc)': 'PLMConCL', 'MOCO': 'MoCo', 'VICRegL (under model)': 'VICRegL',
           # Their names are the same.
           'RotationPred': None, 'Classification': None}


def exclude_bias_and_norm(p):
    """What a published optimiser's state holds a reference to."""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a published checkpoint of a method as its code writes it."""
    def write(name):
        state, path = tensors(ZOO[name]), tmp_path / f'{name[:4]}.pth'
        if name == 'CA2CL':
            content = dict(net=state, optimizer={}, epoch=100)
        elif name.startswith('VICRegL'):
            monkeypatch.setattr(exclude_bias_and_norm, '__module__', 'optimizers')
            module = types.ModuleType('optimizers')
            module.exclude_bias_and_norm = exclude_bias_and_norm
            group = dict(lr=0.3, weight_decay_filter=exclude_bias_and_norm, params=[0])
            content = dict(epoch=100, model=state, optimizer=dict(state={}, param_groups=[group]))
            monkeypatch.setitem(sys.modules, 'optimizers', module)
            torch.save(content, path)
            monkeypatch.delitem(sys.modules, 'optimizers')
            return path, state
        else:
            content = dict(meta=dict(epoch=200), state_dict=state, optimizer={})
        torch.save(content, path)
        return path, state
    return write


@pytest.mark.parametrize('name', ZOO)
def test_the_backbone_of_every_method_is_extracted_and_nothing_else(written, tmp_path, name):
    path, state = written(name)
    said = extract_backbone(path, tmp_path / 'out.pth')
    kind = KINDS.get(name, 'OpenSelfSup')
    assert detect(load(path)) == kind and f'{kind} checkpoint, ResNet-18' in said
    found = load(tmp_path / 'out.pth')['state_dict']
    backbone = load_backbone(tmp_path / 'out.pth').state_dict()
    if name == 'DeepCluster':  # its Sobel layer is part of it
        assert all(key.startswith(('sobel_layer.', 'backbone.')) for key in found)
        assert found.keys() == backbone.keys()
        return
    network = torchvision.models.resnet18()
    del network.fc
    network.load_state_dict(found, strict=True)
    assert found.keys() == backbone.keys()
    prefix = next(p for p in ('encoder_q.0.', 'online_net.0.', 'module.resnet.',
                              'module.backbone.', 'backbone.')
                  if any(key.startswith(p) for key in state))
    for key, value in found.items():
        assert torch.equal(value, state[prefix + key]) and torch.equal(value, backbone[key])


@pytest.mark.parametrize('name, script', [
    ('VICRegL (under model)', ''), ('BYOL', '_pcl'), ('CA2CL', '_ca2cl')])
def test_it_is_converted_for_detectron2(written, tmp_path, name, script, monkeypatch, capsys):
    path, _ = written(name)
    script = REPO / f'benchmarks/detection/convert-pretrain-to-detectron2{script}.py'
    monkeypatch.setattr(sys, 'argv', [str(script), str(path), str(tmp_path / 'out.pkl')])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(script), run_name='__main__')
    assert not left.value.code
    assert '100 tensors' in capsys.readouterr().out
    assert all(key.startswith(('stem.', 'res')) for key in read_pickle(tmp_path / 'out.pkl'))


def test_the_page_says_where_backbones_are():
    page = (REPO / 'docs/lineage.md').read_text().partition('## Published checkpoints')[2]
    said = {name: where for names, where in re.findall(r'^\| ([\w, ]+) \| `(\S+)\*`', page, re.M)
            for name in names.split(', ')}
    for name, keys in ZOO.items():
        short = re.split('[ +]', name)[0].replace('MOCO', 'MoCo of OpenSelfSup')
        assert any(key.startswith(said[short]) for key in keys), name
    assert len(said) == len({re.split('[ +]', name)[0] for name in ZOO} | {'DenseCL', 'DINO'})


def meta(shapes):
    return {key: torch.empty(shape, device='meta') for key, shape in shapes.items()}


MODELS = {'BYOL': 'byol', 'SimCLR': 'simclr', 'MOCO': 'moco_v2', 'NPID': 'npid', 'ODC': 'odc',
          'DeepCluster': 'deepcluster', 'RotationPred': 'rotation', 'RelativeLoc': 'relative_loc',
          'Classification': 'classification', 'ConCL': 'concl', 'PLM+ConCL (ConCLLoc)': 'plm_concl',
          'VICRegL (under model)': 'vicregl', 'PLM': 'plm', 'CA2CL': 'ca2cl'}
# Where the checkpoints are not of our default model.
OTHERWISE = {'SimCLR': dict(neck=dict(type='NonLinearNeckSimCLR', in_channels=512,
                                      hid_channels=512, out_channels=128)),
             'DeepCluster': dict(backbone=dict(type='SobelBackbone', backbone=dict(
                 type='ResNet', depth=18, in_channels=2))),
             'VICRegL (under model)': dict(num_classes=1000)}


@pytest.mark.parametrize('name', ZOO)
def test_all_of_a_method_has_a_place_in_ours(name):
    state = tensors({key.removeprefix('module.'): shape for key, shape in ZOO[name].items()})
    found = {key: value.shape for key, value in training_state_from_published(state).items()}
    config = runpy.run_path(str(CONFIGS / f'{MODELS[name]}_r18.py'))['model']
    with torch.device('meta'):
        method = ALGORITHMS.build(config | OTHERWISE.get(name, {}))
        own = {key: value.shape for key, value in method.state_dict().items()}
    memory = {key for key in own if key.startswith('memory_bank.') or key in OURS_ALONE}
    assert found.keys() == own.keys() - memory
    assert all(own[key] == shape for key, shape in found.items())


@pytest.mark.parametrize('name', ZOO)
def test_a_method_is_told_from_its_names(name):
    state = {key.removeprefix('module.'): value for key, value in meta(ZOO[name]).items()}
    assert published_method(state) == RECIPES.get(name, name)


def test_parameters_of_a_second_copy_count_once():
    state = tensors(ZOO['BYOL'])
    counted = sum(entry.size for entry in tensors_of_checkpoint(dict(state_dict=state))
                  if entry.trainable)
    buffers = ('running_mean', 'running_var', 'num_batches_tracked')
    assert counted == sum(value.numel() for key, value in state.items()
                          if key.startswith(('online_net.', 'head.')) and not key.endswith(buffers))


def test_dino_s_teacher_is_its_backbone(tmp_path):
    body = {key: value for key, value in tensors(ZOO['SimCLR']).items()
            if key.startswith('backbone.')}
    teacher = {f'module.{key}': value for key, value in body.items()}
    teacher['module.head.mlp.0.weight'] = torch.ones(2, 2)
    student = {key: value + 1 for key, value in teacher.items()}
    torch.save(dict(student=student, teacher=teacher, optimizer={}, epoch=100,
                    args=argparse.Namespace(arch='resnet18', lr=0.3)), tmp_path / 'dino.pth')
    assert 'DINO checkpoint, ResNet-18' in extract_backbone(tmp_path / 'dino.pth',
                                                            tmp_path / 'out.pth')
    found = load(tmp_path / 'out.pth')['state_dict']
    assert found.keys() == {key.removeprefix('backbone.') for key in body}
    assert all(value.equal(body[f'backbone.{key}']) for key, value in found.items())


@pytest.mark.parametrize('new_format', [True, False])
def test_the_optimiser_s_module_is_not_imported(tmp_path, monkeypatch, new_format):
    folder = tmp_path / 'theirs'
    folder.mkdir()
    (folder / 'optimizers.py').write_text('def exclude_bias_and_norm(p):\n    return True\n')
    monkeypatch.syspath_prepend(str(folder))
    import optimizers  # what wrote the file
    torch.save(dict(model={'w': torch.ones(2)}, rule=optimizers.exclude_bias_and_norm),
               tmp_path / 'a.pth', _use_new_zipfile_serialization=new_format)
    monkeypatch.delitem(sys.modules, 'optimizers')
    (folder / 'optimizers.py').write_text('raise SystemExit("imported")\n')
    content = load(tmp_path / 'a.pth')
    assert content['model']['w'].tolist() == [1, 1] and 'optimizers' not in sys.modules
    assert content['rule'].__module__.startswith('openselfsup.')


class Calls:
    def __reduce__(self):
        return exclude_bias_and_norm, ('argument',)


def test_nothing_is_called_in_the_place_of_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(exclude_bias_and_norm, '__module__', 'optimizers')
    module = types.ModuleType('optimizers')
    module.exclude_bias_and_norm = exclude_bias_and_norm
    monkeypatch.setitem(sys.modules, 'optimizers', module)
    torch.save(dict(w=torch.ones(1), call=Calls()), tmp_path / 'a.pth')
    monkeypatch.delitem(sys.modules, 'optimizers')
    with pytest.raises(UserError, match='no PyTorch checkpoint, or it is damaged'):
        load(tmp_path / 'a.pth')


@pytest.mark.parametrize('name', VIT)
def test_a_vision_transformer_is_said_to_be_one(name):
    shapes = {key: shape for key, shape in VIT[name].items() if isinstance(shape, list)}
    state = meta(shapes)
    width, _, patch, _ = shapes['patch_embed.proj.weight']
    blocks = len({key.split('.')[1] for key in shapes if key.startswith('blocks.')})
    registers = next((shapes[key][1] for key in ('register_tokens', 'reg_token', 'storage_tokens')
                      if key in shapes), None)
    words = (f'ViT of width {width} with {blocks} block' + 's' * (blocks > 1)
             + (', ' if registers else ' and ') + f'patches of {patch} px'
             + (f' and {registers} register tokens' if registers else '') + ', not of a ResNet')
    for checkpoint in (state, dict(teacher={f'module.backbone.{k}': v for k, v in state.items()},
                                   student={'w': torch.ones(1)})):
        with pytest.raises(UserError, match=words):
            backbone_state_dict(checkpoint)
