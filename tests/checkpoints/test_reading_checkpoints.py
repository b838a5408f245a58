import json
import pickle
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tarfile
import types
import zipfile

import pytest
import torch

from openselfsup.checkpoints import load, save
from openselfsup.errors import UserError


@pytest.fixture
def folder(tmp_path):
    torch.save({'state_dict': {'conv1.weight': torch.randn(64, 3, 7, 7)}},
               tmp_path / 'epoch_3.pth')
    return tmp_path


def refusal(path) -> str:
    with pytest.raises(UserError) as error:
        load(path)
    message = str(error.value)
    assert str(path) in message and '\n' not in message
    return message


def test_a_saved_checkpoint_comes_back_as_it_was(tmp_path):
    checkpoint = dict(state_dict={'w': torch.randn(3, 4)}, rng=torch.get_rng_state(),
                      meta=dict(epoch=3, lr=0.1, name='a', none=None, pair=(1, 2), flags=[True]))
    save(checkpoint, tmp_path / 'a.pth')
    loaded = load(tmp_path / 'a.pth')
    assert loaded['meta'] == checkpoint['meta']
    assert torch.equal(loaded['state_dict']['w'], checkpoint['state_dict']['w'])
    assert torch.equal(loaded['rng'], checkpoint['rng'])


def test_files_in_the_old_format_of_torch_are_read(tmp_path):
    torch.save({'a': torch.ones(2)}, tmp_path / 'old.pth.tar',
               _use_new_zipfile_serialization=False)
    assert torch.equal(load(tmp_path / 'old.pth.tar')['a'], torch.ones(2))


def test_a_missing_file_names_the_nearest_one(folder):
    assert refusal(folder / 'epoch_2.pth').endswith("no such file; did you mean 'epoch_3.pth'?")
    assert 'no such file' in refusal(folder / 'missing' / 'x.pth')


def test_a_folder_names_the_checkpoint_inside(folder):
    assert refusal(folder).endswith(f"did you mean '{folder / 'epoch_3.pth'}'?")


def test_a_run_s_folder_names_its_latest_checkpoint(folder):
    for name in ('latest.pth', 'latest-0a1b2c3d.pth'):
        shutil.copy(folder / 'epoch_3.pth', folder / name)
    assert refusal(folder).endswith(f"did you mean '{folder / 'latest.pth'}'?")


def test_what_is_no_checkpoint_is_never_suggested(folder):
    for name in ('config.py', 'config_2.py'):
        (folder / name).write_text('epochs = 1')
    assert refusal(folder / 'config.py').endswith("did you mean 'epoch_3.pth'?")


@pytest.mark.parametrize('content, what', [
    (b'', 'empty'),
    (b'<!DOCTYPE html><html><body>404</body></html>', 'web page'),
    (b'\n <html>', 'web page'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'Git LFS'),
    (b'just some text that is no checkpoint', 'this is a text file, not a checkpoint; expected'),
    ('Ergebnisse: Präzision größer als zuvor, Rückruf kleiner als dort ä'.encode(), 'text file'),
    (bytes(4096), 'no PyTorch checkpoint, or it is damaged; expected'),
])
def test_what_is_no_checkpoint_is_said(folder, content, what):
    (folder / 'latest.pth').write_bytes(content)
    assert what in refusal(folder / 'latest.pth')


@pytest.mark.parametrize('new_format', [True, False])
@pytest.mark.parametrize('share', [0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_said_to_be_cut_short(folder, new_format, share):
    path = folder / 'latest.pth'
    torch.save({f'w{i}': torch.randn(50, 50) for i in range(9)}, path,
               _use_new_zipfile_serialization=new_format)
    content = path.read_bytes()
    path.write_bytes(content[:int(share * len(content))])
    assert 'cut short' in refusal(path) and 'epoch_3.pth' in refusal(path)


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save({'w': torch.randn(100, 100)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    assert 'damaged: the checksum' in refusal(path)


@pytest.mark.parametrize('new_format', [True, False])
def test_code_in_a_file_is_named_and_not_run(tmp_path, new_format):
    path = tmp_path / 'theirs.pth'
    torch.save({'state_dict': {'w': torch.ones(1)}, 'args': types.SimpleNamespace(lr=1)}, path,
               _use_new_zipfile_serialization=new_format)
    message = refusal(path)
    assert 'types.SimpleNamespace' in message and 'python -c' in message


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_a_newer_pickle_protocol_is_refused_in_a_sentence(tmp_path):
    torch.save({'w': torch.ones(1), 'args': types.SimpleNamespace()}, tmp_path / 'a.pth',
               pickle_protocol=4)
    assert 'pickle protocol' in refusal(tmp_path / 'a.pth')


def follow_the_advice(path, in_a_shell: bool = False) -> dict:
    """Run the command that the refusal of a file advises, and load what it writes."""
    command = re.search(r'python -c .*', refusal(path))[0]
    if in_a_shell:
        done = subprocess.run(command.replace('python', shlex.quote(sys.executable), 1),
                              shell=True, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    else:
        exec(shlex.split(command)[2], {})
    return load(path.with_name(f'{path.stem}_weights.pth'))


WEIGHTS = {'weight': torch.ones(2, 2), 'bias': torch.zeros(2)}


def module() -> torch.nn.Module:
    layer = torch.nn.Linear(2, 2)
    layer.load_state_dict(WEIGHTS)
    return layer


@pytest.mark.parametrize('content', [
    lambda: {'state_dict': WEIGHTS, 'args': types.SimpleNamespace(lr=1)},
    lambda: {'net': WEIGHTS, 'args': types.SimpleNamespace(lr=1)},
    lambda: {'model': module(), 'epoch': 3},
    lambda: {**WEIGHTS, 'args': types.SimpleNamespace(lr=1)},
    module,
], ids=['state_dict', 'net', 'module in a dict', 'weights at the top', 'module'])
@pytest.mark.parametrize('new_format', [True, False])
def test_the_conversion_that_is_advised_works(tmp_path, content, new_format):
    path = tmp_path / "a model's $HOME.pth"
    torch.save(content(), path, _use_new_zipfile_serialization=new_format)
    found = follow_the_advice(path, in_a_shell=new_format and content is module)
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())


@pytest.mark.filterwarnings('ignore')
def test_a_torchscript_program_is_refused_and_its_conversion_works(tmp_path):
    path = tmp_path / 'program.pt'
    torch.jit.save(torch.jit.trace(module(), torch.ones(1, 2)), path)
    assert torch.equal(follow_the_advice(path)['weight'], WEIGHTS['weight'])


class WritesAFile:
    """What a malicious file would hold: unpickling it runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_a_malicious_file_does_nothing(tmp_path):
    torch.save({'state_dict': WritesAFile(tmp_path / 'hacked')}, tmp_path / 'a.pth')
    (tmp_path / 'b.pth').write_bytes(pickle.dumps({'a': WritesAFile(tmp_path / 'hacked')}))
    assert 'open' in refusal(tmp_path / 'a.pth')
    assert 'plain pickle' in refusal(tmp_path / 'b.pth')
    assert not (tmp_path / 'hacked').exists()


def test_other_archives_are_refused(folder):
    with zipfile.ZipFile(folder / 'a.zip', 'w') as archive:
        archive.writestr('notes.txt', 'x')
    with tarfile.open(folder / 'b.tar', 'w') as archive:
        archive.add(folder / 'epoch_3.pth')
    assert 'no PyTorch checkpoint' in refusal(folder / 'a.zip')
    assert 'no PyTorch checkpoint' in refusal(folder / 'b.tar')


def test_a_lone_tensor_is_refused(tmp_path):
    torch.save(torch.ones(3), tmp_path / 'a.pth')
    assert 'holds a Tensor' in refusal(tmp_path / 'a.pth')


def write_safetensors(path, header: dict, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + data)


def test_safetensors_are_read(tmp_path):
    header = {'__metadata__': {'format': 'pt'},
              'a': dict(dtype='F32', shape=[2, 2], data_offsets=[0, 16]),
              'b': dict(dtype='I64', shape=[], data_offsets=[16, 24]),
              'c': dict(dtype='BF16', shape=[2], data_offsets=[24, 28]),
              'd': dict(dtype='F32', shape=[0], data_offsets=[28, 28])}
    data = struct.pack('<4fq', 1, 2, 3, 4, 7) + b'\x80\x3f\x00\x40'
    write_safetensors(tmp_path / 'a.safetensors', header, data)
    state = load(tmp_path / 'a.safetensors')
    assert state['a'].tolist() == [[1, 2], [3, 4]] and state['b'].item() == 7
    assert state['c'].tolist() == [1, 2] and state['c'].dtype == torch.bfloat16
    assert state['d'].shape == (0,) and '__metadata__' not in state


@pytest.mark.parametrize('length', range(120, 1160, 8))
def test_safetensors_are_read_whatever_the_length_of_their_header(tmp_path, length):
    """A file begins with it: with 128 or 640 as a pickle, with 32 as a text."""
    header = {'a': dict(dtype='U8', shape=[1], data_offsets=[0, 1])}
    missing = length - len(json.dumps(header | {'__metadata__': {'': ''}}))
    write_safetensors(tmp_path / 'a.safetensors', header | {'__metadata__': {'': 'x' * missing}},
                      b'\x07')
    assert int.from_bytes((tmp_path / 'a.safetensors').read_bytes()[:8], 'little') == length
    assert load(tmp_path / 'a.safetensors')['a'].item() == 7


def test_spoilt_safetensors_are_refused(tmp_path):
    path = tmp_path / 'a.safetensors'
    write_safetensors(path, {'a': dict(dtype='F32', shape=[4], data_offsets=[0, 16])}, bytes(8))
    assert 'cut short' in refusal(path)
    path.write_bytes(b'garbage that is long enough to have a header')
    assert 'no safetensors' in refusal(path)


def test_types_that_torch_lacks_are_said(tmp_path):
    path = tmp_path / 'a.safetensors'
    write_safetensors(path, {'a': dict(dtype='F4', shape=[4], data_offsets=[0, 2])}, bytes(2))
    assert "no numbers of the type 'F4'" in refusal(path)
