"""Shards on a disk: what goes in comes out, in an order that is told, whoever is killed."""

import json
import os
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openselfsup.cli.main import execute
from openselfsup.datasets import (
    ImageFolder,
    Mixed,
    Shards,
    TileDataset,
    TileError,
    ViewLoader,
    Windows,
    pack,
    shard_writer,
    write_shards,
)
from openselfsup.errors import UserError

RECIPE = dict(type='ViewRecipe', size=32, steps=dict(
    crop=dict(type='RandomResizedCrop', scale=(0.2, 1.0)), flip=dict(type='HorizontalFlip')))
COUNT = 60
SMALL = 0.03  # megabytes: five tiles


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Tiles of two classes, JPEG and PNG."""
    root = tmp_path_factory.mktemp('tiles')
    noise = np.random.default_rng(0)
    for i in range(COUNT):
        place = root / 'ab'[i % 2] / (f'{i:03}.png' if i % 3 else f'{i:03}.v2.jpg')
        place.parent.mkdir(exist_ok=True)
        pixels = noise.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place)
    return root


@pytest.fixture(scope='module')
def source(folder):
    return ImageFolder(str(folder))


@pytest.fixture(scope='module')
def shards(source, tmp_path_factory):
    return write_shards(source, tmp_path_factory.mktemp('shards'), shard_mb=SMALL)


def by_path(source):
    return {source.path(i): (source.read(i), source.label(i)) for i in range(len(source))}


def test_what_went_in_comes_out(source, shards):
    assert len(shards) == COUNT and shards.tile_size == (40, 40)
    assert shards.classes == source.classes == ['a', 'b'] and shards.check() == ()
    there, here = by_path(source), by_path(shards)
    assert list(here) != list(there)  # in random order
    assert here.keys() == there.keys()
    assert all(np.array_equal(here[p][0], there[p][0]) and here[p][1] == there[p][1] for p in here)
    assert shards.damaged() == []
    assert all(shards.stamp(i) is not None for i in range(COUNT))
    assert Shards(shards.url, labels=False).labels is None


def test_files_are_stored_as_they_are_where_the_index_says(shards):
    index = json.loads(Path(shards.url, 'index.json').read_text())
    place = 0
    for shard in index['shards']:
        data = Path(shards.url, shard['name']).read_bytes()
        assert len(data) == shard['size']
        for _ in range(shard['tiles']):
            start, length = index['offsets'][place], index['lengths'][place]
            tile = data[start:start + length]
            assert tile == Path(index['paths'][place]).read_bytes()
            assert zlib.crc32(tile) == index['checksums'][place]
            place += 1
    assert place == COUNT and len(index['shards']) > 8


def test_other_programs_read_them(shards):
    webdataset = pytest.importorskip('webdataset')
    files = sorted(str(path) for path in Path(shards.url).glob('*.tar'))
    found = list(webdataset.WebDataset(files, shardshuffle=False).decode('rgb8'))
    assert len(found) == COUNT
    for i, sample in enumerate(found):
        (image,) = (value for key, value in sample.items() if key in ('png', 'v2.jpg', 'jpg'))
        assert sample['cls'] == shards.label(i)
        assert np.abs(image.astype(int) - shards.read(i)).max() <= (0 if 'png' in sample else 40)


@pytest.mark.parametrize('encoding', ['raw', 'png', 'jpeg'])
def test_tiles_are_encoded(source, tmp_path, encoding):
    found = write_shards(source, tmp_path, encoding, size=36, shuffle=False)
    packed = pack(source, tmp_path / 'packed', size=36)
    assert found.paths == source.paths and found.tile_size == (36, 36)
    assert found.read(7).shape == (36, 36, 3)
    difference = np.abs(found.read(7).astype(int) - packed.read(7))
    assert difference.mean() < 12 if encoding == 'jpeg' else not difference.any()


def test_what_is_no_file_is_packed_without_loss(folder, tmp_path):
    windows = Windows(str(folder), size=32, stride=8, labels=True)
    found = write_shards(windows, tmp_path / 'out')
    assert sorted(found.paths) == sorted(windows.path(i) for i in range(len(windows)))
    there = by_path(windows)
    assert all(np.array_equal(found.read(i), there[found.path(i)][0]) for i in range(9))
    with pytest.raises(UserError, match="only files are stored as they are, not Windows"):
        write_shards(windows, tmp_path / 'kept', 'keep')


def test_a_killed_packing_goes_on(source, shards, tmp_path, monkeypatch):
    encoded, first = shard_writer._encoded, []

    def dies(*args):
        first.append(args)
        if len(first) > 30:
            raise KeyboardInterrupt
        return encoded(*args)

    monkeypatch.setattr(shard_writer, '_encoded', dies)
    with pytest.raises(KeyboardInterrupt):
        write_shards(source, tmp_path, shard_mb=SMALL)
    whole = len(list(tmp_path.glob('*.tar')))
    assert whole and (tmp_path / 'journal.jsonl').exists()
    with pytest.raises(UserError, match='no shards here'):
        Shards(str(tmp_path))
    with pytest.raises(UserError, match='a part of shards of other tiles, or of other settings'):
        write_shards(source, tmp_path, shard_mb=2 * SMALL)
    with open(tmp_path / 'journal.jsonl', 'ab') as journal:
        journal.write(b'{"shard": nul')  # cut off by a crash
    again = []
    monkeypatch.setattr(shard_writer, '_encoded',
                        lambda *args: (again.append(args), encoded(*args))[1])
    write_shards(source, tmp_path, shard_mb=SMALL)
    assert len(again) < COUNT - 4  # whole shards were not made again
    for name in os.listdir(shards.url):  # the same bytes as in one go
        assert (tmp_path / name).read_bytes() == Path(shards.url, name).read_bytes()
    assert sorted(os.listdir(tmp_path)) == sorted(os.listdir(shards.url))


def test_finished_shards_are_left_alone(source, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writer, '_encoded', None)
    assert len(write_shards(source, shards.url, shard_mb=SMALL)) == COUNT
    with pytest.raises(UserError, match='holds shards of 60 other tiles, or of other settings'):
        write_shards(source, shards.url, 'png', shard_mb=SMALL)


def test_unreadable_tiles(tmp_path):
    for i in range(6):
        Image.effect_noise((40, 40), 50).convert('RGB').save(tmp_path / f'{i}.png')
    data = (tmp_path / '3.png').read_bytes()
    (tmp_path / '3.png').write_bytes(data[:300] + b'?' + data[301:])
    source = ImageFolder(str(tmp_path))
    with pytest.raises(UserError, match=r'3\.png.*or --skip-corrupt'):
        write_shards(source, tmp_path / 'out/x')
    found = write_shards(source, tmp_path / 'out/x', skip_corrupt=True)
    assert len(found) == 5
    index = json.loads((tmp_path / 'out/x/index.json').read_text())
    assert index['skipped'] == [str(tmp_path / '3.png')]


def copy_of(shards, target: Path) -> Shards:
    target.mkdir()
    for name in os.listdir(shards.url):
        (target / name).write_bytes(Path(shards.url, name).read_bytes())
    return Shards(str(target))


def test_damage_is_found(shards, tmp_path):
    mine = copy_of(shards, tmp_path / 'shards')
    with tarfile.open(tmp_path / 'shards/shard-000001.tar') as tar:
        place = tar.getmembers()[0].offset_data
    with open(tmp_path / 'shards/shard-000001.tar', 'r+b') as file:
        file.seek(place + 50)
        byte = file.read(1)[0]
        file.seek(place + 50)
        file.write(bytes([byte ^ 1]))
    (bad,) = mine.damaged()
    index = mine.paths.index(bad)
    with pytest.raises(TileError, match='shard-000001.tar.: its bytes are not those that were'):
        mine.read(index)
    dataset = TileDataset(mine, RECIPE)
    assert dataset.read(index)[1] == index + 1  # skipped and told, as any unreadable tile
    with pytest.raises(UserError, match='1 of 60 tiles have changed'):
        execute('pack', ['--verify', mine.url])

    os.truncate(tmp_path / 'shards/shard-000002.tar', 2000)
    (tmp_path / 'shards/shard-000000.tar').unlink()
    with pytest.raises(UserError, match='2 of .. shards are missing or of another size.*: '
                                        'shard-000000.tar, shard-000002.tar'):
        TileDataset(mine, RECIPE)
    with pytest.raises(UserError, match='shards that stay while they are read'):
        mine.read(0)


@pytest.mark.parametrize('spoil, words', [
    (lambda text: text[:300], 'damaged or cut off'),
    (lambda text: text.replace('"version": 1', '"version": 9'), 'another format or version'),
    (lambda text: text.replace('"lengths": [', '"lengths": [1, '), 'have 60 tiles, its columns'),
    (lambda text: text.replace('"offsets"', '"offset"'), 'damaged .KeyError')])
def test_a_damaged_index_is_refused(shards, tmp_path, spoil, words):
    text = Path(shards.url, 'index.json').read_text()
    (tmp_path / 'index.json').write_text(spoil(text))
    with pytest.raises(UserError, match=words):
        Shards(str(tmp_path))


def order_of(source, seed: int = 0) -> np.ndarray:
    return source.permutation(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('group', [1, 3, 100])
def test_an_epoch_mixes_groups_of_shards(shards, group):
    source = Shards(shards.url, shuffle_shards=group)
    order, other = order_of(source), order_of(source, 1)
    assert sorted(order) == list(range(COUNT)) and not np.array_equal(order, other)
    shard = source._shard_of(order)
    count = len(source._index.shards)
    groups = -(-count // group)
    where = [np.flatnonzero(shard == i) for i in range(count)]
    members: list[list] = []  # a group is a run of the order that no other group's shards enter
    start = 0
    for end in range(1, COUNT + 1):
        if all(w.max() < end or w.min() >= end for w in where):
            members.append(sorted(set(shard[start:end])))
            start = end
    assert len(members) == groups and max(map(len, members)) <= group
    assert [i for i in np.diff(order) if i != 1]  # tiles of a shard are permuted, too


def test_ranks_and_workers_see_each_tile_once_and_go_on_where_they_were(shards):
    dataset = TileDataset(Shards(shards.url, shuffle_shards=2), RECIPE)
    one = ViewLoader(dataset, 8, workers=0, drop_last=False)
    whole = [batch['index'].tolist() for batch in one]
    assert sorted(sum(whole, [])) == list(range(COUNT))
    two = [ViewLoader(dataset, 4, workers=2, rank=rank, world_size=2, drop_last=False)
           for rank in range(2)]
    for loader in two:
        loader.set_position(0, 3)
    halves = [list(loader) for loader in two]
    assert [a['index'].tolist() + b['index'].tolist() for a, b in zip(*halves)] == whole[3:]
    one.set_position(0, 3)
    for batch, a, b in zip(one, *halves):
        assert torch.equal(batch['views'][1], torch.cat([a['views'][1], b['views'][1]]))


def test_mixed_keeps_the_order_of_each_source(shards, source):
    mixed = Mixed([source, Shards(shards.url, shuffle_shards=2)], repeat=[2, 1])
    order = order_of(mixed)
    assert np.bincount(order).tolist() == [1] * 3 * COUNT
    tiles = order[order >= 2 * COUNT] - 2 * COUNT
    shard = mixed.sources[1]._shard_of(tiles)
    spans = [np.ptp(np.flatnonzero(shard == i)) for i in range(shard.max() + 1)]
    assert max(spans) < 15  # of a group, not of the epoch
    plain = Mixed([source, source])
    expected = torch.randperm(2 * COUNT, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(order_of(plain), expected)

    told = []
    mixed.sources[1].coming = lambda order, place: told.append((order.tolist(), place))
    mixed.coming(order, 0)
    mixed.coming(order, 90)
    assert told == [(tiles.tolist(), 0), (tiles.tolist(), int((order[:90] >= 2 * COUNT).sum()))]


def test_the_command(folder, tmp_path, capsys):
    out = str(tmp_path / 'out')
    assert execute('pack', ['--shards', str(folder), out, '--shard-mb', '0.1', '--verify']) == 0
    said = capsys.readouterr().out
    assert '60 tiles of 40 x 40 px\n' in said and 'all as they were packed' in said
    assert len(list(Path(out).glob('shard-*.tar'))) > 1
    with pytest.raises(UserError, match='are for shards'):
        execute('pack', [str(folder), str(tmp_path / 'store'), '--keep-order'])
