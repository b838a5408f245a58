"""Several sources as one: which tiles, how often, with which labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openselfsup.datasets import ImageFolder, Mixed, TileDataset, ViewLoader, build_source, pack
from openselfsup.datasets.identity import identity
from openselfsup.datasets.processes import can_fork
from openselfsup.datasets.verify import verify
from openselfsup.engine.config import load_config
from openselfsup.engine.runner import Runner
from openselfsup.errors import UserError
from openselfsup.training.launch import Launch
from tests.engine.small_runs import DEMO

RECIPE = dict(type='ViewRecipe', size=32, steps=[dict(type='RandomResizedCrop', scale=(0.2, 1.0))])


@pytest.fixture
def folders(tmp_path):
    """Two folders of the same classes, of 3 and 2 tiles, and one large image."""
    for number, name in enumerate(('one/A/a', 'one/A/b', 'one/B/c', 'two/A/d', 'two/B/e')):
        path = tmp_path / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (40, 40), (number, 0, 0)).save(path)
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    (tmp_path / 'regions').mkdir()
    Image.fromarray(noise).save(tmp_path / 'regions/large.png')
    return tmp_path


def folder(path: Path, **options) -> dict:
    return dict(type='ImageFolder', root=str(path), **options)


def mixed(folders: Path, **options) -> Mixed:
    return build_source(dict(type='Mixed', sources=[folder(folders / 'one'),
                                                    folder(folders / 'two')]) | options)


def names(source) -> str:
    return ''.join(Path(source.path(i)).stem for i in range(len(source)))


def test_sources_follow_each_other_as_often_as_is_said(folders):
    assert names(mixed(folders)) == 'abcde'
    source = mixed(folders, repeat=[1, 3])
    assert names(source) == 'abcdedede' and len(source) == 9
    assert [int(source.read(i)[0, 0, 0]) for i in range(9)] == [0, 1, 2, 3, 4, 3, 4, 3, 4]
    assert source.classes == ['A', 'B'] and source.labels.tolist() == [0, 0, 1, 0, 1, 0, 1, 0, 1]
    assert source.stamp(8) == source.stamp(4) == source.sources[1].stamp(1)
    assert source.path(-1) == source.path(8)
    with pytest.raises(IndexError):
        source.read(9)
    summary = verify(source)
    assert summary.tiles == 9 and summary.labels == dict(A=5, B=4) and not summary.bad


def test_labels_are_there_where_all_sources_mean_the_same(folders):
    other = folder(folders / 'two', classes=['B', 'A'])
    for odd in (other, folder(folders / 'two', labels=False), folder(folders / 'regions')):
        source = mixed(folders, sources=[folder(folders / 'one'), odd])
        assert source.labels is None and source.classes is None


def test_the_size_of_all_tiles_is_known_where_it_is_one(folders):
    source = mixed(folders, repeat=[2, 1])
    assert source.tile_size is None  # nobody has looked
    assert len(source.check()) == 8 and source.tile_size == (40, 40)
    windows = dict(type='Windows', root=str(folders / 'regions'), size=40)
    source = mixed(folders, sources=[folder(folders / 'one'), windows], repeat=[5, 2])
    assert len(source) == 15 + 2 * 9 and len(source.check()) == len(source)
    assert source.tile_size == (40, 40)
    source = mixed(folders, sources=[folder(folders / 'one'), dict(windows, size=50)])
    source.check()
    assert source.tile_size is None


def test_all_bad_tiles_of_all_sources_are_told(folders):
    (folders / 'one/A/a.png').write_bytes(b'no image')
    with pytest.raises(UserError, match='(?s)^[^\n]*one: 1 of 3 tiles cannot be used.*a.png'):
        mixed(folders).check()
    (folders / 'two/A/d.png').write_bytes(b'no image')
    with pytest.raises(UserError, match='(?s)2 of 2 sources cannot be used.*a.png.*d.png'):
        mixed(folders).check()
    dataset = TileDataset(mixed(folders, repeat=[1, 3]), RECIPE, check=False)
    for index in (0, 3, 5, 7):
        dataset.read(index)
    assert [Path(path).name for path in dataset.corrupt] == ['a.png', 'd.png']  # each once


@pytest.mark.parametrize('options, words', [
    (dict(sources=[]), 'there is not one source'),
    (dict(repeat=[1]), 'repeat: 1 numbers for 2 sources; expected one number for each'),
    (dict(repeat=[1, 0]), 'repeat must be a list, each of it a whole number of at least 1'),
    (dict(sources=[dict(type='ImageFoldr', root='x')]), "did you mean 'ImageFolder'"),
    (dict(sources=5), 'sources must be a list')])
def test_wrong_arguments_are_refused(folders, options, words):
    with pytest.raises(UserError) as caught:
        mixed(folders, **options)
    assert words in str(caught.value)


def test_it_is_packed_and_recognised(folders):
    source = mixed(folders, repeat=[1, 2])
    store = pack(source, folders / 'store')
    assert store.paths == [source.path(i) for i in range(7)]
    assert store.labels.tolist() == source.labels.tolist()
    assert identity(source) != identity(mixed(folders))


def test_a_config_names_its_sources_and_its_mistakes_are_found(folders):
    def dataset(**source) -> Path:
        path = folders / 'mixed.py'
        path.write_text(f'''
_base_ = [{str(DEMO)!r}]
dataset = dict(recipe=dict(size=32))
dataset['source'] = dict(_delete_=True, type='Mixed', repeat=[3, 1], sources=[
    dict(type='ImageFolder', root={str(folders / 'one')!r}),
    dict(type='Windows', root={str(folders / 'regions')!r}, {', '.join(
        f'{key}={value!r}' for key, value in source.items())})])
global_batch_size = 8
model = dict(queue_len=16)
epochs = 1
schedule = dict(warmup_epochs=0)
''')
        return path

    with pytest.raises(UserError, match=r"sources\.1\.strid: .*did you mean 'stride'"):
        load_config(dataset(strid=10))
    with pytest.raises(UserError, match=r'sources\.1\.size: size must be .* at least 32, not 10'):
        load_config(dataset(size=10))
    runner = Runner(load_config(dataset(size=40, per_image=8)),
                    Launch(0, 1, torch.device('cpu')), folders / 'run')
    runner.train()
    assert len(runner.dataset) == 17 and (folders / 'run/latest.pth').is_file()


def test_processes_read_it(folders):
    data = TileDataset(mixed(folders, repeat=[4, 4]), RECIPE)
    there, here = (ViewLoader(data, 4, workers=workers, processes=can_fork())
                   for workers in (2, 0))
    for left, right in zip(there, here, strict=True):
        assert all(map(torch.equal, left['views'], right['views']))
        assert torch.equal(left['label'], right['label'])
    assert isinstance(data.source.sources[0], ImageFolder)
