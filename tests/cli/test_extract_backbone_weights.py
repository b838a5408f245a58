import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

from openselfsup import load_backbone

ROOT = Path(__file__).parents[2]
TOOL = 'tools/extract_backbone_weights.py'
KEYS = ROOT / 'tests' / 'data' / 'golden' / 'plm_r18_checkpoint_keys.json'


def plm_state() -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape, dtype=torch.int64)
            if name.endswith(('num_batches_tracked', '_ptr')) else torch.rand(shape)
            for name, shape in json.loads(KEYS.read_text()).items()}


def body() -> torch.nn.Module:
    model = torchvision.models.resnet18()
    del model.fc
    return model


def test_published_plm_from_another_folder(tmp_path):
    state = plm_state()
    torch.save(dict(state_dict=state, meta=dict(epoch=200), optimizer={}), tmp_path / 'plm.pth')
    done = subprocess.run([sys.executable, str(ROOT / TOOL), 'plm.pth', 'new/folder/r18.pth'],
                          cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        'plm.pth: published PLM checkpoint, ResNet-18',
        "120/120 tensors of torchvision's resnet18 (without fc) matched",
        'wrote new/folder/r18.pth: 120 tensors']
    extracted = torch.load(tmp_path / 'new/folder/r18.pth', weights_only=True)
    assert extracted.keys() == {'state_dict'}
    model = body()
    model.load_state_dict(extracted['state_dict'], strict=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[f'encoder_q.0.{name}'])
    assert len(load_backbone(tmp_path / 'new/folder/r18.pth').state_dict()) == 120


def test_ours_and_an_existing_file(tmp_path, tool):
    weights = {f'encoder_{side}.backbone.{name}': value + (side == 'q')
               for side in 'kq' for name, value in body().state_dict().items()}
    torch.save(dict(state_dict=weights, optimizer={}, scaler={}, meta={}), tmp_path / 'a.pth')
    for other in (b'an older file', (tmp_path / 'a.pth').read_bytes()):
        (tmp_path / 'out.pth').write_bytes(other)
        done = tool(TOOL, tmp_path / 'a.pth', tmp_path / 'out.pth')
        assert done.returncode == 2 and 'holds something else than this backbone' in done.stderr
        assert (tmp_path / 'out.pth').read_bytes() == other
    (tmp_path / 'out.pth').unlink()
    for said in ('wrote', 'had already'):
        done = tool(TOOL, tmp_path / 'a.pth', tmp_path / 'out.pth')
        assert done.returncode == 0, done.stderr
        assert 'our checkpoint' in done.stdout
        assert f'{said} {tmp_path}/out.pth: 120 tensors' in done.stdout
    extracted = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    body().load_state_dict(extracted, strict=True)
    assert torch.equal(extracted['bn1.weight'], weights['encoder_q.backbone.bn1.weight'])


@pytest.mark.parametrize('content, words', [
    (dict(state_dict=body().state_dict()),
     ['another kind (torchvision)', 'top-level keys: state_dict', 'conv1.weight (64x3x7x7)']),
    (dict(net={'module.head.weight': torch.ones(2, 3)}, epoch=1),
     ['no ResNet weights', 'net, epoch', 'module.head.weight (2x3)']),
    (dict(epoch=1), ['no weights', 'epoch']),
])
def test_anything_else_is_refused_by_saying_what_was_found(tmp_path, tool, content, words):
    torch.save(content, tmp_path / 'other.pth')
    done = tool(TOOL, tmp_path / 'other.pth', tmp_path / 'out.pth')
    assert done.returncode == 2
    assert done.stderr.startswith(f'error: {tmp_path}/other.pth: ')
    assert done.stderr.count('\n') == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert 'expected a training checkpoint of ours, or a published one' in done.stderr
    assert not (tmp_path / 'out.pth').exists()


def test_a_checkpoint_is_not_replaced_by_its_backbone(tmp_path, tool):
    torch.save(dict(state_dict=plm_state()), tmp_path / 'a.pth')
    before = (tmp_path / 'a.pth').read_bytes()
    done = tool(TOOL, tmp_path / 'a.pth', './a.pth', cwd=tmp_path)
    assert done.returncode == 2 and 'replace the checkpoint' in done.stderr
    assert (tmp_path / 'a.pth').read_bytes() == before
