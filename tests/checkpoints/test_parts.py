"""Folders of parts: what is written is read, and nothing of a damaged or foreign one is run."""

import io
import os
import pickle
import shutil

import pytest
import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex

from openselfsup.checkpoints import load
from openselfsup.checkpoints.parts import write_parts
from openselfsup.engine.saving import Saver
from openselfsup.errors import UserError
from openselfsup.training.logs import build_logger

PART = '__0_0.distcp'


def state(step=3):
    return dict(
        state_dict={'a.weight': torch.randn(50, 7), 'a.count': torch.tensor(step),
                    'empty': torch.zeros(0, 3), 'half': torch.randn(4).bfloat16(),
                    'turned': torch.randn(3, 5).t()},
        optimizer=dict(state={0: dict(step=torch.tensor(1.)), 1: {}},
                       param_groups=[dict(lr=0.1, params=[0, 1])]),
        scaler={}, meta=dict(step=step, config='x = 1', sizes=(1, [2, None])))


@pytest.fixture
def written(tmp_path):
    content = state()
    write_parts(content, [tmp_path / 'epoch_1.pth', tmp_path / 'latest.pth'])
    return tmp_path / 'latest.pth', content


@pytest.fixture
def folder(written):
    return written[0].resolve()


def test_what_is_written_is_read(written, tmp_path):
    path, content = written
    for place in (path, tmp_path / 'epoch_1.pth', shutil.copytree(path, tmp_path / 'copy')):
        found = load(place)
        assert_equal(found, content)
        assert found['state_dict']['half'].dtype == torch.bfloat16
    assert str(tmp_path).encode() not in (path / '.metadata').read_bytes()
    assert sorted(os.listdir(tmp_path)) == ['copy', 'epoch_1.pth', 'latest.pth', 'step_3.dcp']


def assert_equal(found, content):
    assert found['meta'] == content['meta']
    for key in ('state_dict', 'optimizer'):
        torch.testing.assert_close(found[key], content[key], rtol=0, atol=0)


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def place_of_values(folder):
    return (folder / PART).read_bytes().index(load(folder)['state_dict']['a.weight'].numpy()
                                              .tobytes())


def without_a_part(folder):
    metadata = pickle.loads((folder / '.metadata').read_bytes())
    metadata.state_dict_metadata['state_dict.a.weight'].chunks.clear()
    (folder / '.metadata').write_bytes(pickle.dumps(metadata))


DAMAGES = {
    'lacks its .metadata': lambda folder: (folder / '.metadata').unlink(),
    'lacks run.pth': lambda folder: (folder / 'run.pth').unlink(),
    f'{PART}: this part of the checkpoint is missing': lambda folder: (folder / PART).unlink(),
    f'{PART}: this file is damaged or cut short .*cut short':
        lambda folder: os.truncate(folder / PART, 4000),
    f'{PART}: this file is damaged .*checksum':
        lambda folder: flip(folder / PART, place_of_values(folder) + 9),
    'run.pth: this file is cut short': lambda folder: os.truncate(folder / 'run.pth', 700),
    '.metadata: this file is damaged or cut short (?!.*not tell)':
        lambda folder: os.truncate(folder / '.metadata', 300),
    '.metadata: this file is damaged .*does not tell where all of state_dict.a.weight':
        without_a_part,
    '.metadata: this file is damaged .*holds a dict':
        lambda folder: (folder / '.metadata').write_bytes(pickle.dumps({}))}


@pytest.mark.parametrize('said', DAMAGES)
def test_a_damaged_folder_is_told_with_the_place(said, folder):
    DAMAGES[said](folder)
    with pytest.raises(UserError, match=said):
        load(folder)


def test_any_damage_of_the_metadata_is_told_or_harmless(folder):
    whole, content = (folder / '.metadata').read_bytes(), load(folder)
    for place in range(0, len(whole), 5):
        (folder / '.metadata').write_bytes(whole[:place] + bytes([whole[place] ^ 1])
                                           + whole[place + 1:])
        try:
            found = load(folder)
        except UserError:
            continue
        assert_equal(found, content)


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_the_metadata_is_not_run(folder, tmp_path):
    (folder / '.metadata').write_bytes(pickle.dumps(Harmful(tmp_path / 'made')))
    with pytest.raises(UserError, match='.metadata: this file names posix.mkdir, and reading that '
                                        'would run code'):
        load(folder)
    assert not (tmp_path / 'made').exists()


def test_code_in_a_part_is_not_run(folder, tmp_path):
    """Objects that torch would unpickle stand where a tensor is expected."""
    torch.save(Harmful(tmp_path / 'made'), chunk := io.BytesIO())
    metadata = pickle.loads((folder / '.metadata').read_bytes())
    name = 'state_dict.a.count'
    metadata.state_dict_metadata[name] = BytesStorageMetadata()
    info = next(info for index, info in metadata.storage_data.items() if index.fqn == name)
    info.offset, info.length = (folder / PART).stat().st_size, len(chunk.getvalue())
    metadata.storage_data[MetadataIndex(name)] = info
    (folder / '.metadata').write_bytes(pickle.dumps(metadata))
    with open(folder / PART, 'ab') as file:
        file.write(chunk.getvalue())
    with pytest.raises(UserError, match='damaged'):
        load(folder)
    assert not (tmp_path / 'made').exists()


def test_a_link_to_nothing_says_so(written):
    shutil.rmtree(written[0].resolve())
    with pytest.raises(UserError, match="latest.pth: this is a link to 'step_3.dcp', which is not"):
        load(written[0])


def test_files_take_the_place_of_folders_and_back(tmp_path):
    saver = Saver(tmp_path, build_logger(tmp_path / 'train.log'))
    steps = {'epoch_1.pth': (1, True), 'epoch_2.pth': (2, False), 'epoch_3.pth': (3, True)}
    for name, (step, parts) in steps.items():
        assert saver.save(state(step), name, parts=parts)
        assert load(tmp_path / 'latest.pth')['meta']['step'] == step
    (tmp_path / 'epoch_1.pth').unlink()
    (tmp_path / '.step_9.dcp.unfinished').mkdir()  # by somebody who was killed
    assert saver.save(state(3), 'latest.pth', parts=True)
    assert sorted(os.listdir(tmp_path)) == ['epoch_2.pth', 'epoch_3.pth', 'latest.pth',
                                            'step_3.dcp', 'step_3_2.dcp', 'train.log']
    assert saver.save(state(4), 'latest.pth')
    assert (tmp_path / 'latest.pth').is_file() and not (tmp_path / 'step_3_2.dcp').exists()
