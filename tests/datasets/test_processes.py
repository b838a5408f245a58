"""Processes that make views: what they share, how they end, what happens when one is killed."""

import gc
import logging
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from openselfsup.datasets import ImageFolder, TileDataset, ViewLoader
from openselfsup.datasets.headers import TileError
from openselfsup.errors import UserError

pytestmark = pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='needs Linux')

DEMO = Path(__file__).parents[2] / 'data/demo'
RECIPE = dict(type='ViewRecipe', size=32, steps=[dict(type='RandomResizedCrop', scale=(0.2, 1.0))])


class Tiles(ImageFolder):
    """The demo's tiles, of which one does something else in whatever process reads it."""

    def __init__(self, at: int = -1, act=lambda: None):
        super().__init__(str(DEMO / 'cmu1'))
        self.at, self.act = at, act

    def read(self, index):
        if index == self.at:
            self.act()
        return super().read(index)


def loader_of(source=None, **options) -> ViewLoader:
    options = dict(seed=3, workers=2, processes=True) | options
    return ViewLoader(TileDataset(source or Tiles(), RECIPE, on_corrupt='raise'), 8, **options)


def gone(pids: set[int], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while any(Path(f'/proc/{pid}').exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(Path(f'/proc/{pid}').exists() for pid in pids)


def views(loader) -> list[torch.Tensor]:
    return [torch.stack(batch['views']).clone() for batch in loader]


def same(left, right) -> bool:
    return len(left) == len(right) > 0 and all(map(torch.equal, left, right))


@pytest.fixture(scope='module')
def expected():
    return views(loader_of(workers=0))


def test_the_same_processes_serve_all_epochs_and_end_with_their_loader(expected, children):
    before = children()
    loader = loader_of()
    assert same(views(loader), expected)
    started = children() - before
    assert len(started) == 2
    assert same(views(loader), expected)
    for _ in loader:
        break  # what is in the making is finished, then dropped
    assert children() - before == started
    assert same(views(loader), expected)
    del loader
    gc.collect()
    assert gone(started)


def test_memory_is_used_again_when_nobody_holds_it():
    loader = loader_of()
    seen = {view.data_ptr() for _ in range(3) for batch in loader for view in batch['views']}
    assert len(seen) <= 2 * (2 + 2 + 2)  # views of batches: two in the making, waiting, held
    # A part of a batch is enough to keep all of its memory.
    kept = [(batch['views'][1][3], batch['views'][1][3].clone()) for batch in loader]
    list(loader)
    assert all(torch.equal(part, copy) for part, copy in kept)


def test_batches_outlive_their_loader():
    loader = loader_of()
    batch = next(iter(loader))
    copies = [view.clone() for view in batch['views']]
    del loader
    gc.collect()
    assert same(batch['views'], copies)
    assert batch['views'][0].is_contiguous(memory_format=torch.channels_last)
    batch['views'][0].zero_()  # it may be written, as any other


@pytest.mark.parametrize('meanwhile', ['idle', 'working'])
def test_a_killed_process_is_replaced_and_nothing_changes(expected, caplog, meanwhile, children):
    before = children()
    act = (lambda: time.sleep(0.3)) if meanwhile == 'working' else (lambda: None)
    loader = loader_of(Tiles(int(loader_of().indices(0, 2)[0]), act))
    got = []
    for number, batch in enumerate(loader):
        got.append(torch.stack(batch['views']).clone())
        if number == 0:
            for pid in children() - before:
                os.kill(pid, signal.SIGKILL)
    assert same(got, expected)
    said = [record.getMessage() for record in caplog.records]
    assert 1 <= len(said) <= 2
    assert all('a loader process was killed by SIGKILL while it made batch' in line
               for line in said)
    assert same(views(loader), expected)


def test_a_batch_that_kills_whoever_makes_it_is_named(caplog):
    def crash():
        os.kill(os.getpid(), signal.SIGKILL)

    loader = loader_of(Tiles(int(loader_of().indices(1, 4)[0]), crash))
    loader.set_position(1)
    got = 0
    with pytest.raises(UserError, match=r'epoch 2, batch 5: each of 2 loader processes .* was '
                                        r'killed by SIGKILL; expected enough memory'):
        for _ in loader:
            got += 1
    assert got == 4 and len(caplog.records) == 2
    loader.set_position(1, 5)
    assert len(list(loader)) == len(loader) - 5  # it can be used again


def test_a_process_that_leaves_is_noticed():
    loader = loader_of(Tiles(int(loader_of().indices(0, 0)[0]), lambda: os._exit(7)))
    with pytest.raises(UserError, match='ended with status 7'):
        list(loader)


class Odd(Exception):
    """Cannot be sent: it is made of two things, and remembers one."""

    def __init__(self, one, two):
        super().__init__(one)


@pytest.mark.parametrize('error, kind, words', [
    (TileError('damaged', where='a.png'), TileError, 'a.png: damaged'),
    (ZeroDivisionError('by zero'), ZeroDivisionError, 'by zero'),
    (Odd('one', 'two'), RuntimeError, 'Odd: one')])
def test_errors_arrive_with_the_place_where_they_arose(error, kind, words, children):
    def fail():
        raise error

    before = children()
    loader = loader_of(Tiles(int(loader_of().indices(0, 5)[0]), fail))
    got = 0
    with pytest.raises(kind, match=words) as caught:
        for _ in loader:
            got += 1
    assert got == 5
    assert 'in fail' in str(caught.value.__cause__)
    started = children() - before
    loader.set_position(0, 6)
    assert len(list(loader)) == 2 and started <= children()  # nobody died of it


def test_signals_that_the_program_handles_do_not_reach_the_processes(expected, children):
    before = children()
    previous = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        loader = loader_of()
        batches = iter(loader)
        got = [torch.stack(next(batches)['views']).clone()]
        started = children() - before
        for pid in started:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        got += [torch.stack(batch['views']).clone() for batch in batches]
        assert children() - before == started  # nobody had to be replaced
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert same(got, expected)


def test_others_may_wait_for_the_processes(expected, caplog, children):
    before = children()
    loader = loader_of()
    views(loader)
    for pid in children() - before:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert same(views(loader), expected)
    said = [record.getMessage() for record in caplog.records]
    assert said and all('a loader process ended while it made' in line for line in said)
    for pid in children() - before:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    del loader  # nothing is left to be stopped
    gc.collect()


def test_processes_do_not_log(tmp_path):
    log = logging.getLogger('openselfsup')
    handler = logging.FileHandler(tmp_path / 'train.log')
    log.addHandler(handler)
    try:
        for workers in (2, 0):  # in processes, then in this one
            list(loader_of(Tiles(3, lambda: log.warning('read by %d', os.getpid())),
                           workers=workers))
    finally:
        log.removeHandler(handler)
        handler.close()
    assert (tmp_path / 'train.log').read_text().split('\n') == [f'read by {os.getpid()}', '']


def test_recipes_of_several_sizes_and_short_batches():
    recipes = [RECIPE, dict(RECIPE, size=(48, 20))]
    dataset = TileDataset(Tiles(), recipes)
    there, here = (ViewLoader(dataset, 24, workers=w, processes=True, drop_last=False)
                   for w in (2, 0))
    for a, b in zip(there, here, strict=True):
        assert [tuple(v.shape) for v in a['views']] == [tuple(v.shape) for v in b['views']]
        assert all(map(torch.equal, a['views'], b['views']))
        assert torch.equal(a['index'], b['index'])
    assert len(a['views'][0]) == len(dataset) % 24 > 0


def test_labels_and_torchvision_pipelines_come_through():
    pipeline = dict(type='TorchvisionPipeline', size=32, geometry='none', transforms=[
        dict(type='RandomResizedCrop', size=32, antialias=True), dict(type='ColorJitter', hue=.1)])
    dataset = TileDataset(dict(type='ImageFolder', root=str(DEMO / 'kather2016')), pipeline)
    for there, here in zip(ViewLoader(dataset, 16, workers=2, processes=True),
                           ViewLoader(dataset, 16, workers=0), strict=True):
        assert there['view_to_tile'] is None is here['view_to_tile']
        assert torch.equal(there['label'], here['label'])
        assert all(map(torch.equal, there['views'], here['views']))


def test_hdf5_files_can_be_read_by_processes(tmp_path):
    h5py = pytest.importorskip('h5py')
    tiles = np.random.default_rng(0).integers(0, 256, (64, 96, 96, 3), np.uint8)
    with h5py.File(tmp_path / 'train_x.h5', 'w') as file:
        file.create_dataset('x', data=tiles, chunks=(4, 96, 96, 3), compression='gzip')
    with h5py.File(tmp_path / 'train_y.h5', 'w') as file:
        file['y'] = np.arange(64) % 2
    dataset = TileDataset(dict(type='PCam', x=str(tmp_path / 'train_x.h5')), RECIPE)
    for there, here in zip(ViewLoader(dataset, 4, workers=3, processes=True),
                           ViewLoader(dataset, 4, workers=0), strict=True):
        assert all(map(torch.equal, there['views'], here['views']))
