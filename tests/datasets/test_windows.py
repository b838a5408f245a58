"""Windows of large images: where they lie, what they cost, and what is refused."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from openselfsup.datasets import (
    LabeledTileDataset,
    TileDataset,
    ViewLoader,
    Windows,
    build_source,
    image_cache,
    pack,
)
from openselfsup.datasets.headers import Header, TileError
from openselfsup.datasets.identity import identity
from openselfsup.datasets.processes import can_fork
from openselfsup.datasets.verify import verify
from openselfsup.datasets.windows import Layout, spread
from openselfsup.engine.config import load_config
from openselfsup.engine.runner import Runner
from openselfsup.errors import UserError
from openselfsup.training.launch import Launch
from tests.engine.small_runs import DEMO, assert_same_state

RECIPE = dict(type='ViewRecipe', size=32, steps=[dict(type='RandomResizedCrop', scale=(0.2, 1.0))])


def image(path: Path, width: int, height: int) -> np.ndarray:
    """Write an image each of whose pixels tells its place, and return it."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x % 256, y % 256, x // 256 + 16 * (y // 256) + len(path.name)], -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return pixels.astype(np.uint8)


def box(source: Windows, index: int) -> tuple[str, int, int]:
    """Return file, left and top of a window, as its path names them."""
    file, _, numbers = source.path(index).partition('#xywh=')
    left, top, width, height = map(int, numbers.split(','))
    assert width == height == source.size
    return file, left, top


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Three images in two class folders; one is just as large as a window of 64 px."""
    root = tmp_path_factory.mktemp('regions')
    for name, width, height in (('A/one.png', 300, 100), ('A/two.png', 64, 64),
                                ('B/three.png', 97, 200)):
        image(root / name, width, height)
    return root


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of the files that are decoded from now on."""
    names, read = [], image_cache.read_tile
    monkeypatch.setattr(image_cache, 'read_tile',
                        lambda path: names.append(Path(path).name) or read(path))
    return names


def windows_of(width: int, height: int, size: int, **options) -> list[tuple[int, int]]:
    """Return (left, top) of the windows of an image of that size."""
    layout = Layout(size, options.get('stride', size), options.get('per_image'))
    header = Header('', height, width)
    return [layout.place(header, options.get('name', 'a.png'), number)[::-1]
            for number in range(layout.count(header))]


# --- where they lie ---

@given(st.integers(32, 150), st.integers(32, 150), st.integers(32, 80), st.integers(1, 90))
def test_windows_at_a_stride_cover_every_pixel_and_none_outside(width, height, size, stride):
    size = min(size, width, height)
    stride = min(stride, size)
    boxes = windows_of(width, height, size, stride=stride)
    seen = np.zeros((height, width), bool)
    for left, top in boxes:
        assert 0 <= left <= width - size and 0 <= top <= height - size
        seen[top:top + size, left:left + size] = True
    assert seen.all()
    assert len(set(boxes)) == len(boxes)
    assert boxes == sorted(boxes, key=lambda place: place[::-1])  # row by row
    assert all(left % stride == 0 or left == width - size for left, _ in boxes)


@given(st.integers(32, 400), st.integers(32, 400), st.integers(1, 60), st.text(max_size=8))
def test_windows_per_image_lie_inside_and_as_many_as_there_are_places(width, height, count, name):
    boxes = windows_of(width, height, 32, per_image=count, name=name)
    places = (width - 31) * (height - 31)
    assert len(boxes) == min(count, places)
    assert all(0 <= left <= width - 32 and 0 <= top <= height - 32 for left, top in boxes)
    if places <= count:
        assert len(set(boxes)) == places
    assert boxes == windows_of(width, height, 32, per_image=count, name=name)


@pytest.mark.parametrize('name', ['a.png', 'slide 7.tif'])
def test_the_positions_are_spread_evenly_at_any_length(name):
    def distances(these: np.ndarray, those: np.ndarray) -> np.ndarray:
        steps = np.abs(these[:, None] - those)
        return np.linalg.norm(np.minimum(steps, 1 - steps), axis=-1)  # opposite edges meet

    points = np.array([spread(name, number) for number in range(128)])
    everywhere = np.stack(np.mgrid[:32, :32], -1).reshape(-1, 2) / 32
    apart, away = distances(points, points) + 9 * np.eye(128), distances(everywhere, points)
    for count in range(4, 129):  # random points: 0.05 apart, and 1.5 away, of 100
        assert apart[:count, :count].min() > 0.55 / count ** 0.5
        assert away[:, :count].min(1).max() < 0.95 / count ** 0.5


def test_more_windows_of_an_image_go_on_where_fewer_stop_and_names_differ():
    few, many = (windows_of(500, 400, 64, per_image=count) for count in (10, 30))
    assert many[:10] == few and len(set(many)) == 30
    assert not set(many) & set(windows_of(500, 400, 64, per_image=30, name='b.png'))


# --- what they are ---

@pytest.mark.parametrize('options, counts', [
    (dict(), [10, 1, 8]), (dict(stride=32), [9 * 3, 1, 3 * 6]), (dict(per_image=12), [12, 1, 12])])
def test_each_window_is_the_part_of_the_image_that_its_path_names(folder, options, counts):
    source = Windows(str(folder), 64, **options)
    assert source.counts.tolist() == counts and len(source) == sum(counts)
    files = []
    for i in range(len(source)):
        file, left, top = box(source, i)
        whole = np.asarray(Image.open(file))
        tile = source.read(i)
        assert np.array_equal(tile, whole[top:top + 64, left:left + 64])
        assert tile.flags.writeable and tile.flags.c_contiguous and tile.base is None
        files.append(file)
    assert files == sorted(files, key=source.images.paths.index)  # one image after another
    assert source.labels is None and source.classes is None
    assert source.path(-1) == source.path(len(source) - 1)
    with pytest.raises(IndexError):
        source.read(len(source))


def test_class_folders_are_labels_where_they_are_wanted(folder):
    source = Windows(str(folder), 64, labels=True)
    assert source.classes == ['A', 'B']
    assert source.labels.tolist() == [0] * 11 + [1] * 8 and source.label(11) == 1
    tile, label = LabeledTileDataset(source, 64)[18]
    assert tile.shape == (3, 64, 64) and label == 1
    with pytest.raises(UserError, match='these tiles have no labels'):
        Windows(str(folder / 'A'), 64, labels=True)
    with pytest.raises(UserError, match='labels=True takes .* class folders, but this is a file'):
        Windows([str(folder), str(folder / 'A/one.png')], 64, labels=True)


def test_folders_and_files_keep_their_order(folder):
    source = Windows([str(folder / 'B/three.png'), str(folder / 'A')], 64)
    assert source.counts.tolist() == [8, 10, 1]
    assert box(source, 0)[0] == str(folder / 'B/three.png')
    assert len(Windows(str(folder / 'A/one.png'), 64)) == 10


def test_a_config_can_name_it_and_packing_and_verifying_take_it(folder, tmp_path):
    source = build_source(dict(type='Windows', root=str(folder), size=64, stride=64, labels=True))
    summary = verify(source)
    assert summary.tiles == 19 and summary.bad == [] and summary.sizes == {(64, 64): 19}
    assert summary.labels == dict(A=11, B=8)
    assert len(source.check()) == 19 and source.check()[3].width == 64
    store = pack(source, tmp_path / 'store')
    assert store.tile_size == (64, 64) and store.classes == ['A', 'B']
    assert store.paths == [source.path(i) for i in range(19)]
    assert all(np.array_equal(store.read(i), source.read(i)) for i in range(19))


def test_it_is_recognised_where_it_moved_and_known_by_its_windows_and_files(tmp_path):
    for place in ('here', 'there'):
        image(tmp_path / place / 'a.png', 200, 100)
    os.utime(tmp_path / 'there/a.png', ns=(1, (tmp_path / 'here/a.png').stat().st_mtime_ns))
    here, there = (identity(Windows(str(tmp_path / place), 64, per_image=9))
                   for place in ('here', 'there'))
    assert here == there
    assert here['tile_names'] != identity(
        Windows(str(tmp_path / 'here'), 64, per_image=8))['tile_names']
    os.utime(tmp_path / 'here/a.png', ns=(1, 1))
    changed = identity(Windows(str(tmp_path / 'here'), 64, per_image=9))
    assert changed['tile_names'] == here['tile_names']
    assert changed['tile_contents'] != here['tile_contents']


# --- what they cost ---

def test_windows_of_one_image_decode_it_once(folder, decoded):
    source = Windows(str(folder), 64, stride=8)
    for i in range(len(source)):
        source.read(i)
    assert decoded == ['one.png', 'two.png', 'three.png']
    decoded.clear()
    small = Windows(str(folder), 64, stride=8, cache_mb=0)  # the image used last is kept
    for i in range(len(small)):
        small.read(i)
    assert decoded == ['one.png', 'two.png', 'three.png']


def test_threads_that_want_one_image_at_once_decode_it_once(folder, monkeypatch):
    source = Windows(str(folder), 64, stride=16)
    read, started, names = image_cache.read_tile, threading.Barrier(8), []

    def slow(path):
        names.append(path)
        threading.Event().wait(0.05)  # the others arrive meanwhile
        return read(path)

    monkeypatch.setattr(image_cache, 'read_tile', slow)
    found: dict[int, np.ndarray] = {}

    def work(number):
        started.wait()
        for i in range(number, len(source), 8):
            found[i] = source.read(i)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 3
    again = Windows(str(folder), 64, stride=16)
    assert all(np.array_equal(found[i], again.read(i)) for i in range(len(again)))


@pytest.mark.skipif(not can_fork(), reason='needs forks')
def test_a_fork_while_a_thread_holds_the_cache_reads_all_the_same(folder):
    source = Windows(str(folder), 64)
    source.read(0)
    with source._cache._lock:  # in the child nobody would ever give it back
        if not (child := os.fork()):
            os._exit(0 if source.read(0).shape == (64, 64, 3) else 1)
        for _ in range(500):
            if (ended := os.waitpid(child, os.WNOHANG))[0]:
                break
            threading.Event().wait(0.02)
        else:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail('the child waits for the lock')
    assert os.waitstatus_to_exitcode(ended[1]) == 0


def test_processes_threads_and_ranks_see_the_same_views(folder):
    def loader(**options) -> ViewLoader:
        options = dict(seed=3, workers=2, processes=can_fork()) | options
        data = TileDataset(dict(type='Windows', root=str(folder), size=64, per_image=30), RECIPE)
        return ViewLoader(data, options.pop('batch', 8), **options)

    def views(found: ViewLoader) -> list[torch.Tensor]:
        return [torch.stack(batch['views']).clone() for batch in found]

    expected = views(loader(workers=0))
    assert len(expected) == 61 // 8
    for other in (loader(), loader(processes=False), loader(workers=3)):
        other_views = views(other)
        assert len(other_views) == len(expected) and all(map(torch.equal, other_views, expected))
    ranks = [views(loader(batch=4, rank=rank, world_size=2)) for rank in range(2)]
    assert all(torch.equal(torch.cat(parts, 1), whole)
               for *parts, whole in zip(*ranks, expected, strict=True))
    late = loader()
    late.set_position(0, 5)
    assert all(map(torch.equal, views(late), expected[5:]))


def test_raw_windows_are_rendered_where_the_model_is(folder):
    data = TileDataset(Windows(str(folder), 64, per_image=30, labels=True), RECIPE)
    for batch in ViewLoader(data, 16, workers=2, render='device'):
        for tile, index, label in zip(batch['tiles'], batch['index'], batch['label'], strict=True):
            assert np.array_equal(tile.permute(1, 2, 0).numpy(), data.source.read(int(index)))
            assert label == data.source.label(int(index))


# --- what is refused ---

def test_images_smaller_than_a_window_are_counted(folder):
    with pytest.raises(UserError) as caught:
        Windows(str(folder), 98)
    text = str(caught.value)
    assert '2 of 3 images are smaller than a window of 98 x 98 px (size=64 fits all)' in text
    assert 'two.png: 64 x 64 px' in text and 'three.png: 97 x 200' in text
    assert 'one.png' not in text


@pytest.mark.parametrize('options, words', [
    (dict(size=31), 'size must be a whole number of at least 32, not 31'),
    (dict(stride=0), 'stride must be a whole number of at least 1 or None, not 0'),
    (dict(per_image=0), 'per_image must be a whole number of at least 1 or None, not 0'),
    (dict(cache_mb=-1), 'cache_mb must be a number of at least 0, not -1'),
    (dict(stride=8, per_image=8), 'stride=8 and per_image=8 are both given; expected one of'),
    (dict(root='regiosn'), "no such folder; did you mean 'regions'"),
    (dict(root='regions/gone.png'), 'gone.png: No such file'),
    (dict(root=[]), 'no root folder is given')])
def test_wrong_arguments_are_refused(tmp_path, monkeypatch, options, words):
    image(tmp_path / 'regions/a.png', 100, 100)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        build_source(dict(type='Windows', root='regions', size=64) | options)
    assert words in str(caught.value)


def test_a_damaged_image_is_told_with_its_window_and_decoded_once(tmp_path, decoded):
    image(tmp_path / 'a.png', 200, 64)
    image(tmp_path / 'b.png', 128, 64)
    data = bytearray((tmp_path / 'a.png').read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / 'a.png').write_bytes(data)
    source = Windows(str(tmp_path), 64)
    for i, left in enumerate((0, 64, 128, 136)):
        with pytest.raises(TileError, match=rf'a\.png#xywh={left},0,64,64: .*damaged'):
            source.read(i)
    assert decoded == ['a.png']
    dataset = TileDataset(source, RECIPE)
    assert dataset.read(2)[1] == 4 and list(dataset.corrupt) == [source.path(2), source.path(3)]
    assert len(verify(source).bad) == 4


def test_an_image_that_was_replaced_by_a_smaller_one_is_told(tmp_path):
    image(tmp_path / 'a.png', 200, 64)
    source = Windows(str(tmp_path), 64)
    image(tmp_path / 'a.png', 100, 64)
    with pytest.raises(TileError, match='the image has 100 x 64 px now, it had 200 x 64 before'):
        source.read(3)


# --- training ---

def test_a_run_by_a_config_goes_on_as_if_it_had_not_stopped(tmp_path):
    for name in 'ab':
        noise = np.random.default_rng(ord(name)).integers(0, 256, (160, 200, 3), np.uint8)
        path = tmp_path / f'regions/{name}.png'
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise).save(path)
    config = tmp_path / 'windows.py'
    config.write_text(f'''
_base_ = [{str(DEMO)!r}]
model = dict(queue_len=16)
dataset = dict(source=dict(_delete_=True, type='Windows', root={str(tmp_path / 'regions')!r},
                           size=96, per_image=8), recipe=dict(size=32))
global_batch_size = 8
epochs = 2
workers = 2
schedule = dict(warmup_epochs=1)
checkpoint_interval = 1
''')

    def runner(folder: str, *options: str) -> Runner:
        return Runner(load_config(config, list(options)), Launch(0, 1, torch.device('cpu')),
                      tmp_path / folder)

    runner('whole').train()
    rest = runner('rest', 'workers=0')
    rest.resume(tmp_path / 'whole/epoch_1.pth')
    rest.train()
    assert_same_state(tmp_path / 'whole/epoch_2.pth', tmp_path / 'rest/epoch_2.pth')
