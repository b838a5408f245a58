"""The pickle for detectron2: names, values, and what must not be read from one."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from openselfsup.errors import UserError
from openselfsup.transfer.instance.weights import convert, read_pickle

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / 'tests' / 'data' / 'golden'


def published(name: str, container: str) -> dict:
    """A checkpoint with the keys and shapes of a published file and random values."""
    keys = json.loads((GOLDEN / name).read_text())
    keys = keys.get(container, keys)
    torch.manual_seed(0)
    return {container: {k: torch.rand(v if isinstance(v, list) else v['shape'])
                        for k, v in keys.items()}}


def expected_names() -> set[str]:
    """detectron2's names of ResNet-18, written down by its own rules."""
    def norm(conv: str) -> list[str]:
        return [f'{conv}.weight'] + [f'{conv}.norm.{p}' for p in (
            'weight', 'bias', 'running_mean', 'running_var')]
    names = norm('stem.conv1')
    for stage in (2, 3, 4, 5):
        for block in (0, 1):
            for conv in ('conv1', 'conv2'):
                names += norm(f'res{stage}.{block}.{conv}')
        if stage > 2:
            names += norm(f'res{stage}.0.shortcut')
    return set(names)


@pytest.mark.parametrize('file, container, prefix', [
    ('plm_r18_checkpoint_keys.json', 'state_dict', 'encoder_q.0.'),
    ('ca2cl_r18_checkpoint_keys.json', 'net', 'module.resnet.')])
def test_published_files_are_converted_directly(tmp_path, file, container, prefix):
    checkpoint = published(file, container)
    torch.save(checkpoint, tmp_path / 'x.pth')
    assert '100 tensors' in convert(tmp_path / 'x.pth', tmp_path / 'x.pkl')
    found = read_pickle(tmp_path / 'x.pkl')
    assert set(found) == expected_names()
    state = checkpoint[container]
    for ours, theirs in (('res5.1.conv2.norm.running_var', 'layer4.1.bn2.running_var'),
                         ('res3.0.shortcut.weight', 'layer2.0.downsample.0.weight'),
                         ('res3.0.shortcut.norm.bias', 'layer2.0.downsample.1.bias'),
                         ('stem.conv1.norm.weight', 'bn1.weight')):
        assert torch.equal(found[ours], state[prefix + theirs])


def test_the_command_line_and_the_form_of_the_file(tmp_path):
    model = resnet18(weights=None)
    torch.save(dict(state_dict={k: v for k, v in model.state_dict().items()
                                if not k.startswith('fc')}), tmp_path / 'b.pth')
    script = ROOT / 'segmentation' / 'detection' / 'convert-pretrain-to-detectron2.py'
    done = subprocess.run([sys.executable, str(script), 'b.pth', 'b.pkl'], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / 'b.pkl', 'rb') as file:
        content = pickle.load(file)
    assert content['matching_heuristics'] is True and '__author__' in content
    assert all(isinstance(v, np.ndarray) and v.dtype == np.float32
               for v in content['model'].values())


def test_a_pickle_of_another_backbone_is_not_overwritten(tmp_path):
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(resnet18(weights=None).state_dict(), tmp_path / f'{seed}.pth')
    convert(tmp_path / '0.pth', tmp_path / 'b.pkl')
    before = (tmp_path / 'b.pkl').read_bytes()
    convert(tmp_path / '0.pth', tmp_path / 'b.pkl')
    content = pickle.loads(before)
    (tmp_path / 'b.pkl').write_bytes(pickle.dumps(content, protocol=2))  # the same, as others write
    convert(tmp_path / '0.pth', tmp_path / 'b.pkl')
    assert (tmp_path / 'b.pkl').read_bytes() == before
    with pytest.raises(UserError, match='b.pkl: this file holds something else'):
        convert(tmp_path / '1.pth', tmp_path / 'b.pkl')
    assert (tmp_path / 'b.pkl').read_bytes() == before
    (tmp_path / 'b.pkl').write_bytes(b'notes')
    with pytest.raises(UserError, match='b.pkl: this file holds something else'):
        convert(tmp_path / '0.pth', tmp_path / 'b.pkl')


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path}/ran',)
    (tmp_path / 'evil.pkl').write_bytes(pickle.dumps(dict(model=Evil())))
    with pytest.raises(UserError, match='more than arrays .*system'):
        read_pickle(tmp_path / 'evil.pkl')
    assert not (tmp_path / 'ran').exists()
    (tmp_path / 'cut.pkl').write_bytes(pickle.dumps(dict(model={}))[:5])
    with pytest.raises(UserError, match='damaged'):
        read_pickle(tmp_path / 'cut.pkl')


def test_other_suffixes_are_refused(tmp_path):
    torch.save(dict(state_dict=resnet18(weights=None).state_dict()), tmp_path / 'b.pth')
    with pytest.raises(UserError, match='ending in .pkl'):
        convert(tmp_path / 'b.pth', tmp_path / 'c.pth')


@pytest.mark.parametrize('data', [
    b'\x80\x04}r\xff\xff\xff\x7f.',  # a memo of 2 ** 31 places
    b'\x80\x04cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nI' + b'9' * 10 + b'\nC\x01bt'
    b'R.', b'\x80\x04', b'(I1\nlV\nR.', b'\x80\x02cmatin1\nx\n.'])
def test_pickles_that_make_no_sense_are_refused_at_once(tmp_path, data):
    (tmp_path / 'b.pkl').write_bytes(data)
    with pytest.raises(UserError, match='b.pkl: this pickle is damaged|there are no arrays'):
        read_pickle(tmp_path / 'b.pkl')


def test_arrays_larger_than_their_file_are_refused(tmp_path):
    empty = (np.core.multiarray if np.__version__ < '2' else np._core.multiarray)._reconstruct

    class Boundless:
        def __reduce__(self):
            return empty, (np.ndarray, (10 ** 9,), b'b')

    (tmp_path / 'b.pkl').write_bytes(pickle.dumps({'stem.conv1.weight': Boundless()}, protocol=4))
    with pytest.raises(UserError, match='no arrays'):  # none is made of a promised size
        read_pickle(tmp_path / 'b.pkl')


def test_a_damaged_state_of_a_dtype_is_refused_where_numpy_would_crash(tmp_path):
    whole = pickle.dumps({'stem.conv1.weight': np.ones(3, np.float32)}, protocol=4)
    state = whole.index(b'NNNJ')
    (tmp_path / 'b.pkl').write_bytes(whole[:state + 1] + b'\x80\x00' + whole[state + 3:])
    with pytest.raises(UserError, match='a dtype that is not of plain numbers'):
        read_pickle(tmp_path / 'b.pkl')


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize('array', [
    np.arange(6, dtype='<f4').reshape(2, 3), np.arange(6, dtype='>f8').reshape(3, 2),
    np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)), np.ones((), np.float16),
    np.zeros((0, 4), np.uint8), np.array([True, False])], ids=lambda a: str(a.dtype))
def test_arrays_of_every_protocol_are_what_numpy_wrote(tmp_path, array, protocol):
    (tmp_path / 'b.pkl').write_bytes(pickle.dumps(dict(model={'x': array}), protocol=protocol))
    assert np.array_equal(read_pickle(tmp_path / 'b.pkl')['x'].numpy(), array)
