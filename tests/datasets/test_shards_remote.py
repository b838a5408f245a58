"""Shards in a bucket and on a web server, on good days and bad ones."""

import functools
import http.server
import os
import sys
import threading
from pathlib import Path

import boto3
import fsspec
import numpy as np
import pytest
import torch
from faulty_server import FaultyServer, running
from moto.server import ThreadedMotoServer
from PIL import Image

from openselfsup.datasets import (
    ImageFolder,
    Shards,
    TileDataset,
    ViewLoader,
    shard_cache,
    write_shards,
)
from openselfsup.datasets.sources import stamp_of
from openselfsup.errors import UserError

RECIPE = dict(type='ViewRecipe', size=32, steps=dict(
    crop=dict(type='RandomResizedCrop', scale=(0.2, 1.0))))
COUNT, PER_SHARD = 48, 4
KEYS = dict(aws_access_key_id='a', aws_secret_access_key='b', region_name='us-east-1')


@pytest.fixture(scope='module')
def local(tmp_path_factory):
    root = tmp_path_factory.mktemp('local')
    (root / 'tiles').mkdir()
    noise = np.random.default_rng(0)
    for i in range(COUNT):
        pixels = noise.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f'tiles/{i:02}.png')
    return write_shards(ImageFolder(str(root / 'tiles')), root / 'set', shard_mb=0.02)


@pytest.fixture(scope='module')
def store():
    """A real server of S3's protocol."""
    server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)
    server.start()
    yield 'http://{}:{}'.format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(scope='module')
def bucket(store, local):
    """A client of that server; 'tiles/set' holds the shards."""
    client = boto3.client('s3', endpoint_url=store, **KEYS)
    client.create_bucket(Bucket='tiles')
    for name in os.listdir(local.url):
        client.put_object(Bucket='tiles', Key=f'set/{name}',
                          Body=Path(local.url, name).read_bytes())
    return client


@pytest.fixture
def server(store, bucket):
    with running(FaultyServer(store)) as server:
        yield server


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(shard_cache, 'DELAY', 0.01)


@pytest.fixture
def opened(server, tmp_path):
    """Open the bucket's shards through the faulty server."""
    def open_(url: str = 's3://tiles/set', **settings) -> Shards:
        options = dict(key='a', secret='b', endpoint_url=server.url,
                       client_kwargs=dict(region_name='us-east-1'),
                       config_kwargs=dict(retries=dict(max_attempts=0)))
        return Shards(url, **dict(dict(cache=str(tmp_path / 'cache'), shuffle_shards=2,
                                       storage_options=options), **settings))
    return open_


def fetched(server) -> list[str]:
    return [path for command, path in server.asked if command == 'GET' and '.tar' in path]


def test_a_bucket_is_a_folder(opened, local, server, tmp_path):
    dataset = TileDataset(opened(), RECIPE)
    there = TileDataset(Shards(local.url, shuffle_shards=2), RECIPE)
    shards = len(local._index.shards)
    for rank in range(2):  # two ranks of a host with two processes each, one after the other
        loaders = [ViewLoader(d, 4, workers=workers, rank=rank, world_size=2, processes=True)
                   for d, workers in ((dataset, 2), (there, 0))]
        for loader in loaders:
            loader.set_position(0, 2 * rank)
        for mine, expected in zip(*loaders, strict=True):
            assert torch.equal(mine['index'], expected['index'])
            assert torch.equal(mine['views'][0], expected['views'][0])
    assert shards == len(fetched(server)) == len(set(fetched(server)))  # once each, for all
    assert len(list((tmp_path / 'cache').glob('*.tar'))) == shards
    assert not list((tmp_path / 'cache').glob('*.part'))


def test_shards_come_ahead_of_their_use(opened, server):
    source = opened()
    order = source.permutation(torch.Generator().manual_seed(0))
    source.coming(order, 0)
    for _ in range(500):
        if len(fetched(server)) == 2:
            break
        threading.Event().wait(0.01)
    first = {source._index.shards[i].name for i in source._shard_of(order[:8])}
    assert {path.split('/')[-1].split('?')[0] for path in fetched(server)} == first
    [source.read(i) for i in order[:8]]
    assert len(fetched(server)) == 2
    source.coming(order, 4)  # half a group before the next one
    [source.read(i) for i in order[8:16]]
    assert len(fetched(server)) == 4


def bytes_in(cache: Path) -> int:
    """Return the size of the shards there; one that is removed meanwhile counts nothing."""
    return sum((stamp_of(file) or (0,))[0] for file in cache.glob('*.tar'))


def test_the_cache_is_bounded(opened, local, server, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_cache, 'TOUCH', 0.)
    size = local._index.shards[0].size
    source = opened(cache_gb=5 * size / 1e9)
    order = source.permutation(torch.Generator().manual_seed(0))
    most = 0
    for place, index in enumerate(order):
        source.coming(order, place)
        assert np.array_equal(source.read(index), local.read(index))
        most = max(most, bytes_in(tmp_path / 'cache'))
    assert 3 * size < most <= 5 * size
    assert len(fetched(server)) == len(local._index.shards)  # none was removed too early
    with pytest.raises(UserError, match='do not hold two groups of 4 shards; expected at least'):
        opened(cache_gb=5 * size / 1e9, shuffle_shards=4)


def test_no_shard_is_renamed_while_the_cache_is_counted(opened, tmp_path, monkeypatch):
    fcntl = pytest.importorskip('fcntl')
    replace, seen = os.replace, []

    def watched(part, file):
        with open(tmp_path / 'cache/room.lock') as lock:
            with pytest.raises(BlockingIOError):  # or a count between two listings misses it
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(file)
        replace(part, file)

    monkeypatch.setattr(shard_cache.os, 'replace', watched)
    opened().read(0)
    assert len(seen) == 1


@pytest.mark.parametrize('fault', ['slow', 'cut', '503'])
def test_bad_days_pass(opened, local, server, fault):
    source = opened()
    server.first(2, fault)
    assert np.array_equal(source.read(0), local.read(0))
    assert len(fetched(server)) == (1 if fault == 'slow' else 3)


def test_a_store_that_stays_away_ends_the_run(opened, server, monkeypatch):
    source = opened()
    source._cache._store.retries = 1
    server.fault = lambda path: '503'
    with pytest.raises(UserError, match=r's3://tiles/set/shard-000000.tar: cannot be fetched after '
                                        r'6 attempts .*; expected a store that answers; --resume'):
        source.read(0)
    dataset = TileDataset(source, RECIPE, check=False)  # nor are tiles skipped one by one
    with pytest.raises(UserError, match='cannot be fetched'):
        list(ViewLoader(dataset, 8, workers=0))
    assert not dataset.corrupt
    server.fault = lambda path: '403'
    with pytest.raises(UserError, match='the store refuses access'):
        source.read(0)


def test_other_objects_than_were_packed(opened, bucket, local):
    name = local._index.shards[0].name
    data = Path(local.url, name).read_bytes()
    source = opened()
    try:
        bucket.put_object(Bucket='tiles', Key=f'set/{name}', Body=data[:-2000])
        with pytest.raises(UserError, match=f'1 of .. shards are missing or of another .*{name}'):
            source.check()
        with pytest.raises(UserError, match=rf'{name}: .* bytes came; expected {len(data):,} byt'):
            source.read(0)
        bucket.put_object(Bucket='tiles', Key=f'set/{name}', Body=data[:-1] + b'?')
        with pytest.raises(UserError, match='another checksum than the index tells, twice'):
            source.read(0)
        bucket.delete_object(Bucket='tiles', Key=f'set/{name}')
        with pytest.raises(UserError, match=f'{name}: is not there'):
            source.read(0)
    finally:
        bucket.put_object(Bucket='tiles', Key=f'set/{name}', Body=data)
    assert np.array_equal(source.read(0), local.read(0))
    with pytest.raises(UserError, match='tiles/other/index.json: is not there'):
        opened('s3://tiles/other')


def test_a_cache_that_disappears_or_spoils(opened, local, tmp_path, caplog):
    source, cache = opened(), tmp_path / 'cache'
    assert np.array_equal(source.read(0), local.read(0))
    cache.rename(tmp_path / 'gone')
    assert np.array_equal(source.read(1), local.read(1))  # another of the same shard: fetched anew
    (file,) = cache.glob('*.tar')
    offset = int(source._index.offsets[1])
    data = bytearray(file.read_bytes())
    data[offset + 99] ^= 1
    file.write_bytes(data)
    assert np.array_equal(source.read(1), local.read(1))
    assert 'is not as it came: it is fetched again' in caplog.text
    os.truncate(file, 100)
    assert np.array_equal(source.read(1), local.read(1))


def test_a_cache_that_cannot_be_written(opened, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='file/x: no shard can be kept here: part of its path is a '
                                        'file'):
        opened(cache=str(tmp_path / 'file/x')).read(0)
    source = opened()

    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(UserError, match='cache: no shard can be kept here: the disk is full'):
        source.read(0)
    assert not list((tmp_path / 'cache').glob('*.part'))


def test_a_file_system_without_locks(opened, local, tmp_path, monkeypatch):
    def refused(*args):
        raise OSError(37, 'No locks available')

    monkeypatch.setattr(shard_cache.fcntl, 'flock', refused)
    source = opened()
    assert np.array_equal(source.read(0), local.read(0))
    assert [f.suffix for f in sorted((tmp_path / 'cache').iterdir())].count('.tar') == 1


def test_what_a_killed_process_left_is_removed(opened, local, tmp_path):
    source = opened()
    left = tmp_path / f'cache/{source._index.shards[0].sha256}.0123.part'
    left.parent.mkdir()
    left.write_bytes(b'half')
    assert np.array_equal(source.read(0), local.read(0))
    assert not list(left.parent.glob('*.part'))


def test_processes_share_what_one_of_them_fetches(opened, server):
    server.fault = lambda path: 'slow' if '.tar' in path else None
    sources = [opened(), opened()]
    threads = [threading.Thread(target=source.read, args=(0,)) for source in sources]
    pid = os.fork()
    if not pid:  # a third one, in a process of its own
        status = 1
        try:
            status = 0 if sources[0].read(1).shape == (40, 40, 3) else 2
        finally:
            os._exit(status)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(fetched(server)) == 1


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_a_web_server_without_ranges(local, tmp_path, caplog):
    handler = functools.partial(_Quiet, directory=str(Path(local.url).parent))
    with running(http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)) as plain, \
            running(FaultyServer(f'http://127.0.0.1:{plain.server_port}')) as server:
        source = Shards(f'{server.url}/set/', cache=str(tmp_path / 'cache'))
        assert source.check() == ()
        server.first(1, '503')
        assert np.array_equal(source.read(5), local.read(5))
        assert '503' in caplog.text and 'asked again' in caplog.text
        with pytest.raises(UserError, match='nothing/index.json: is not there'):
            Shards(f'{server.url}/nothing', cache=str(tmp_path / 'cache'))


def test_what_cannot_be_opened(monkeypatch, tmp_path):
    with pytest.raises(UserError, match='Protocol not known: s4.*expected a path, s3://'):
        Shards('s4://tiles/set')
    monkeypatch.setitem(sys.modules, 's3fs', None)  # as if it were not installed
    monkeypatch.delitem(fsspec.core.get_filesystem_class.__globals__['_registry'], 's3', False)
    with pytest.raises(UserError, match=r"Install s3fs.*pip install 'openselfsup-pathology\[s3\]'"):
        Shards('s3://tiles/set')


def test_a_run_tells_of_damage_in_the_index(opened, bucket, local):
    text = Path(local.url, 'index.json').read_bytes()
    bucket.put_object(Bucket='tiles', Key='cut/index.json', Body=text[:-9])
    with pytest.raises(UserError, match='s3://tiles/cut/index.json: damaged or cut off'):
        opened('s3://tiles/cut')
