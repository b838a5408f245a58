"""Packed tiles: what goes in comes out, whoever is killed, and damage is found."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openselfsup.claims import claimed
from openselfsup.datasets import (
    ImageFolder,
    PackedTiles,
    TileDataset,
    ViewLoader,
    build_source,
    packed,
)
from openselfsup.errors import UserError

REPO = Path(__file__).parents[2]
DEMO = REPO / 'data/demo/kather2016'
RECIPE = dict(type='ViewRecipe', size=32, steps=dict(
    crop=dict(type='RandomResizedCrop', scale=(0.2, 1.0)), flip=dict(type='HorizontalFlip')))


@pytest.fixture(scope='module')
def source():
    return ImageFolder(str(DEMO))


@pytest.fixture(scope='module')
def store(source, tmp_path_factory):
    return packed.pack(source, tmp_path_factory.mktemp('store'))


def write_noise(folder: Path, count: int, size: int = 64) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        image = Image.effect_noise((size, size), 10 + i % 90).convert('RGB')
        image.save(folder / f'{i:04}.png')


def test_what_went_in_comes_out(source, store):
    assert len(store) == len(source) and store.tile_size == (224, 224)
    assert store.paths == source.paths and store.classes == source.classes
    assert np.array_equal(store.labels, source.labels) and store.label(3) == source.label(3)
    for index in (0, 17, len(source) - 1):
        assert np.array_equal(store.read(index), source.read(index))
    assert not store.read(0).flags.writeable
    assert store.damaged() == []
    assert sorted(os.listdir(store.root)) == ['index.json', 'tiles.u8']


def test_a_config_can_name_it(store):
    again = build_source(dict(type='PackedTiles', root=store.root, labels=False))
    assert again.labels is None and again.classes is None and len(again) == len(store)
    with pytest.raises(IndexError):
        again.read(len(store))


def test_batches_are_those_of_the_files(source, store):
    recipe, indices = RECIPE, [5, 2, 40, 2]
    for render in ('cpu', 'device'):
        ours, theirs = (TileDataset(s, recipe).batch(indices, torch.Generator().manual_seed(3),
                                                     render) for s in (store, source))
        assert ours.keys() == theirs.keys()
        assert torch.equal(ours['index'], theirs['index'])
        assert torch.equal(ours['label'], theirs['label'])
        if render == 'cpu':
            assert all(map(torch.equal, ours['views'], theirs['views']))
            continue
        assert torch.equal(ours['tiles'], theirs['tiles'])
        assert ours['tiles'].stride() == theirs['tiles'].stride()
        for a, b in zip(ours['draw'], theirs['draw']):
            assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_loader_feeds_raw_tiles(store):
    batches = list(ViewLoader(TileDataset(store, RECIPE), 16, workers=2, render='device'))
    assert len(batches) == 3
    for batch in batches:
        first = batch['tiles'][0].permute(1, 2, 0).numpy()
        assert np.array_equal(first, store.read(int(batch['index'][0])))


def test_packing_again_leaves_a_finished_store_as_it_is(source, store, tmp_path):
    before = os.stat(Path(store.root) / 'tiles.u8').st_mtime_ns
    assert len(packed.pack(source, store.root)) == len(store)
    assert os.stat(Path(store.root) / 'tiles.u8').st_mtime_ns == before
    write_noise(tmp_path / 'others', 2)
    with pytest.raises(UserError, match=f'a store of {len(store)} other tiles'):
        packed.pack(ImageFolder(str(tmp_path / 'others')), store.root)


def test_a_store_of_tiles_that_have_changed_since_is_not_taken_for_theirs(tmp_path, monkeypatch):
    tiles, out = tmp_path / 'tiles', tmp_path / 'store'
    write_noise(tiles, 40)
    monkeypatch.setattr(packed, 'CHUNK', 8)

    def pack(stop_at: int | None = None):
        source = ImageFolder(str(tiles))
        read = source.read
        source.read = lambda i: pytest.fail('stopped') if i == stop_at else read(i)
        return packed.pack(source, out)

    def change(name: str, with_its_time: bool = False):
        old = (tiles / name).stat()
        Image.new('RGB', (64, 64), 'red').save(tiles / name)
        if with_its_time:  # then the size tells
            os.utime(tiles / name, ns=(old.st_atime_ns, old.st_mtime_ns))

    with pytest.raises(pytest.fail.Exception):
        pack(stop_at=20)
    part = (out / 'tiles.u8.part').read_bytes()
    change('0003.png')  # packed already
    with pytest.raises(UserError, match='these tiles as they were before'):
        pack()
    assert (out / 'tiles.u8.part').read_bytes() == part
    for path in out.iterdir():
        path.unlink()
    pack()
    change('0005.png', with_its_time=True)
    with pytest.raises(UserError, match='these tiles as they were before'):
        pack()
    assert PackedTiles(str(out)).damaged() == []


def test_tiles_that_change_while_they_are_packed_are_not_kept(tmp_path):
    write_noise(tmp_path / 'tiles', 3)
    source = ImageFolder(str(tmp_path / 'tiles'))
    read = source.read

    def read_and_change(index: int) -> np.ndarray:
        tile = read(index)
        if index == 2:
            os.utime(source.path(1), (1, 1))
        return tile

    source.read = read_and_change
    with pytest.raises(UserError, match='changed while they were packed'):
        packed.pack(source, tmp_path / 'store')
    assert not (tmp_path / 'store/index.json').exists()


def test_a_store_that_another_process_writes_is_left_alone(tmp_path):
    write_noise(tmp_path / 'tiles', 3)
    with claimed(tmp_path / 'store', 'packing tiles'), \
            pytest.raises(UserError, match='this process writes into this folder already'):
        packed.pack(ImageFolder(str(tmp_path / 'tiles')), tmp_path / 'store')
    assert not (tmp_path / 'store').exists()


# --- killed and continued ---

def test_a_killed_process_goes_on(tmp_path):
    write_noise(tmp_path / 'tiles', 600)
    out = tmp_path / 'store'
    script = ('import sys, time\nfrom openselfsup.datasets import ImageFolder, packed\n'
              'packed.CHUNK = 16\nsource = ImageFolder(sys.argv[1])\n'
              'read = source.read\n'
              'source.read = lambda i: (time.sleep(0.004), read(i))[1]\n'
              'packed.pack(source, sys.argv[2])\n')
    words = [sys.executable, '-c', script, str(tmp_path / 'tiles'), str(out)]
    process = subprocess.Popen(words, cwd=REPO)
    journal = out / 'journal.jsonl'
    while process.poll() is None:
        if journal.exists() and len(journal.read_bytes().splitlines()) > 50:
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(journal.read_bytes().splitlines()) - 1
    assert 50 <= done < 600
    with pytest.raises(UserError, match='not finished'):
        PackedTiles(str(out))
    source = ImageFolder(str(tmp_path / 'tiles'))
    read, reads = source.read, []
    source.read = lambda i: (reads.append(i), read(i))[1]
    store = packed.pack(source, out)
    assert len(reads) <= 600 - done + 1  # the first tile tells the size
    assert store.damaged() == []
    assert all(np.array_equal(store.read(i), read(i)) for i in range(0, 600, 37))


@pytest.mark.parametrize('state', ['line cut off', 'tile cut off', 'data behind', 'no line',
                                   'renamed'])
def test_whatever_is_on_disk_after_a_crash(tmp_path, state, monkeypatch):
    write_noise(tmp_path / 'tiles', 40)
    source, out = ImageFolder(str(tmp_path / 'tiles')), tmp_path / 'store'
    monkeypatch.setattr(packed, 'CHUNK', 8)

    def stop(done):
        if done == 24:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        packed.pack(source, out, on_progress=stop)
    journal, part = out / 'journal.jsonl', out / 'tiles.u8.part'
    if state == 'line cut off':
        journal.write_bytes(journal.read_bytes()[:-4])
    elif state == 'tile cut off':
        os.truncate(part, part.stat().st_size - 5)
    elif state == 'data behind':
        part.write_bytes(part.read_bytes() + b'rubbish')
    elif state == 'no line':
        journal.write_bytes(b'{"format"')
    else:
        os.replace(part, out / 'tiles.u8')
    store = packed.pack(source, out)
    assert store.damaged() == [] and sorted(os.listdir(out)) == ['index.json', 'tiles.u8']
    assert all(np.array_equal(store.read(i), source.read(i)) for i in range(40))


def test_another_source_cannot_go_on(tmp_path):
    write_noise(tmp_path / 'tiles', 4)
    source, out = ImageFolder(str(tmp_path / 'tiles')), tmp_path / 'store'
    with pytest.raises(KeyboardInterrupt):
        packed.pack(source, out, on_progress=interrupt)
    write_noise(tmp_path / 'tiles', 5)
    with pytest.raises(UserError, match='part of a store of other tiles'):
        packed.pack(ImageFolder(str(tmp_path / 'tiles')), out)


def interrupt(done: int) -> None:
    raise KeyboardInterrupt


# --- damage ---

@pytest.fixture
def small(tmp_path):
    write_noise(tmp_path / 'tiles', 6)
    packed.pack(ImageFolder(str(tmp_path / 'tiles')), tmp_path / 'store')
    return tmp_path / 'store'


def test_a_changed_byte_is_found(small, tool):
    data = bytearray((small / 'tiles.u8').read_bytes())
    data[3 * 64 * 64 * 3 + 100] ^= 1
    (small / 'tiles.u8').write_bytes(data)
    store = PackedTiles(str(small))
    assert store.damaged() == [store.path(3)]
    answer = tool('tools/pack_tiles.py', '--verify', small)
    assert answer.returncode == 2 and store.path(3) in answer.stderr
    assert '1 of 6 tiles have changed' in answer.stderr


@pytest.mark.parametrize('damage, message', [
    (lambda s: os.truncate(s / 'tiles.u8', 64 * 64 * 3 * 5), '61,440 bytes; expected 73,728'),
    (lambda s: (s / 'tiles.u8').unlink(), '0 bytes'),
    (lambda s: (s / 'index.json').write_text('{"format": "pack'), 'damaged'),
    (lambda s: (s / 'index.json').write_text('{"format": "packed tiles", "version": 9}'),
     'another format or version'),
    (lambda s: (s / 'index.json').unlink(), 'no store of packed tiles')])
def test_a_damaged_store_is_refused_when_opened(small, damage, message):
    damage(small)
    with pytest.raises(UserError) as caught:
        PackedTiles(str(small))
    assert message in str(caught.value) and str(small) in str(caught.value)


def test_tiles_of_another_size(tmp_path):
    write_noise(tmp_path / 'tiles', 3)
    Image.effect_noise((80, 64), 30).convert('RGB').save(tmp_path / 'tiles/0001.png')
    source = ImageFolder(str(tmp_path / 'tiles'))
    with pytest.raises(UserError, match='80 x 64 px, others have 64 x 64.*--size') as caught:
        packed.pack(source, tmp_path / 'store')
    assert '0001.png' in str(caught.value)
    store = packed.pack(source, tmp_path / 'resized', size=48)
    assert store.tile_size == (48, 48) and len(store) == 3


def test_unreadable_tiles(tmp_path):
    write_noise(tmp_path / 'tiles', 5)
    bad = tmp_path / 'tiles/0002.png'
    bad.write_bytes(bad.read_bytes()[:200])
    source, out = ImageFolder(str(tmp_path / 'tiles')), tmp_path / 'store'
    with pytest.raises(UserError, match='0002.png.*--skip-corrupt'):
        packed.pack(source, out)
    store = packed.pack(source, out, skip_corrupt=True)
    assert len(store) == 4 and str(bad) not in store.paths and store.damaged() == []
    assert json.loads((out / 'index.json').read_text())['skipped'] == [str(bad)]


def test_the_tool_packs_a_folder_and_a_config(tmp_path, tool):
    answer = tool('tools/pack_tiles.py', DEMO, tmp_path / 'store', '--verify')
    assert answer.returncode == 0, answer.stderr
    assert '51 tiles of 224 x 224 px, all as they were packed' in answer.stdout
    assert PackedTiles(str(tmp_path / 'store')).classes[0] == 'ADIPOSE'
    config = tmp_path / 'mine.py'
    config.write_text(f"_base_ = '{REPO}/configs/demo/plm_r18.py'\n"
                      f"dataset = dict(source=dict(root='{DEMO}'))\n")
    answer = tool('tools/pack_tiles.py', config, tmp_path / 'plain')
    assert answer.returncode == 0, answer.stderr
    assert PackedTiles(str(tmp_path / 'plain')).labels is None


@pytest.mark.parametrize('target, words', [
    ('data/demo/cmu9', "no such folder; did you mean 'cmu1'?"),
    ('configs/demo/plm_r19.py', "no such config file; did you mean 'plm_r18.py'?")])
@pytest.mark.parametrize('script, more', [('tools/pack_tiles.py', ['store']),
                                          ('tools/verify_data.py', [])])
def test_a_misspelt_folder_or_config_is_told_apart(tool, script, more, target, words):
    answer = tool(script, target, *more)
    assert answer.returncode == 2 and words in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_a_finished_store_is_returned_without_a_claim(source, store, monkeypatch):
    monkeypatch.setattr(packed, 'claimed', lambda *args: pytest.fail('it claims the folder'))
    assert len(packed.pack(source, store.root)) == len(source)


def test_a_store_of_an_earlier_version_cannot_be_compared(small):
    index = json.loads((small / 'index.json').read_text())
    del index['contents']
    (small / 'index.json').write_text(json.dumps(index))
    with pytest.raises(UserError, match='an earlier version packed this folder'):
        packed.pack(ImageFolder(str(small.parent / 'tiles')), small)
