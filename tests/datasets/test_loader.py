"""The loader is exact: which tiles and views come when, whatever the number of workers."""

import gc
import threading
import time
import traceback
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from openselfsup.datasets import Source, TileDataset, ViewLoader
from openselfsup.datasets.headers import TileError
from openselfsup.errors import UserError

DEMO = Path(__file__).parents[2] / 'data/demo'
RECIPE = dict(type='ViewRecipe', size=32, steps=dict(
    crop=dict(type='RandomResizedCrop', scale=(0.2, 1.0)),
    flip=dict(type='HorizontalFlip', p=0.5)))


@pytest.fixture(scope='module')
def dataset():
    return TileDataset(dict(type='ImageFolder', root=str(DEMO / 'cmu1')), RECIPE)


def flat(batches) -> list[torch.Tensor]:
    return [tensor for batch in batches
            for tensor in (*batch['views'], batch['view_to_tile'], batch['index'])]


def tensors(batch: dict) -> list[torch.Tensor]:
    """Return all that a batch holds, one row a tile."""
    if 'views' in batch:
        return [batch['index'], *batch['views'], batch['view_to_tile']]
    return [batch['index'], batch['tiles'],
            *(values for view in batch['draw'] for values in view.values())]


def assert_same(left, right):
    left, right = flat(left), flat(right)
    assert len(left) == len(right) > 0
    assert all(torch.equal(a, b) for a, b in zip(left, right))


def view_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith('views')]


class Counted(Source):
    """As many tiles as are asked for, which nobody reads."""

    def __init__(self, n: int):
        self.n = n

    def __len__(self):
        return self.n

    def read(self, index):
        raise AssertionError(f'tile {index} was read')

    def path(self, index):
        return f'tile {index}'


class Numbers:
    """Stands for a dataset of n tiles: a batch is its indices and a random number.

    It counts what it makes, so its loaders work in threads.
    """

    def __init__(self, n: int, fail_at: int | None = None, seconds: float = 0):
        self.n, self.fail_at, self.seconds = n, fail_at, seconds
        self.source = Counted(n)
        self.corrupt: dict = {}
        self.made = 0

    def __len__(self):
        return self.n

    def batch(self, indices, generator, render, allocate):
        self.made += 1
        time.sleep(self.seconds)
        if self.fail_at in indices:
            raise TileError('damaged', where=f'tile {self.fail_at}')
        return dict(index=torch.as_tensor(indices), draw=generator.rand(3))


# --- which tiles ---

@settings(max_examples=60)
@given(n=st.integers(1, 60), batch=st.integers(1, 9), world=st.integers(1, 5),
       epoch=st.integers(0, 3), drop_last=st.booleans(), fewest=st.integers(1, 2))
def test_ranks_share_the_permutation_out(n, batch, world, epoch, drop_last, fewest):
    if drop_last and n < batch * world:
        with pytest.raises(UserError, match=f'{n} tiles do not fill'):
            ViewLoader(Numbers(n), batch, world_size=world)
        return
    loaders = [ViewLoader(Numbers(n), batch, seed=7, rank=rank, world_size=world, workers=0,
                          drop_last=drop_last, fewest=fewest) for rank in range(world)]
    order = loaders[0]._order(epoch)
    assert sorted(order) == list(range(n))
    steps = []
    for loader in loaders:
        loader.set_position(epoch)
        steps.append([batch['index'].tolist() for batch in loader])
        assert len(steps[-1]) == len(loader)
    whole = n // (batch * world)
    seen = []
    for i, parts in enumerate(zip(*steps)):
        assert len({len(part) for part in parts}) == 1  # as many on every rank
        together = sum(parts, [])
        seen += together
        start = i * batch * world
        if i < whole:
            assert all(len(part) == batch for part in parts)
            assert together == order[start:start + batch * world].tolist()
        else:
            rest = order[start:].tolist()
            assert together[:len(rest)] == rest
            padding = together[len(rest):]
            assert padding == [order[j % n] for j in range(len(padding))]
            assert len(parts[0]) == max(-(-len(rest) // world), min(fewest, batch))
    if drop_last:
        assert len(seen) == len(set(seen)) == whole * batch * world
    else:
        assert set(seen) == set(range(n))


def test_epochs_seeds_and_ranks_differ():
    def first(**options):
        epoch = options.pop('epoch', 0)
        loader = ViewLoader(Numbers(64), 8, workers=0, **options)
        loader.set_position(epoch)
        batch = next(iter(loader))
        return batch['index'].tolist(), batch['draw'].flatten().tolist()

    variants = [first(seed=1), first(seed=2), first(seed=1, epoch=1), first(seed=0, epoch=1),
                first(seed=1, rank=1, world_size=2), first(seed=1, rank=2, world_size=3)]
    for place in (0, 1):
        values = [tuple(variant[place]) for variant in variants]
        assert len(set(values)) == len(values)
    assert first(seed=1) == first(seed=1)
    assert first(seed=1)[0] == first(seed=1, world_size=2)[0]  # order knows seed and epoch only


def test_draws_of_an_epoch_all_differ():
    batches = list(ViewLoader(Numbers(64), 4, workers=0))
    assert len(torch.cat([batch['draw'] for batch in batches]).unique()) == 64 * 3


# --- the same views, whoever makes them ---

@settings(max_examples=40)
@given(n=st.integers(8, 60), world=st.integers(1, 4), batch=st.integers(1, 3),
       accumulate=st.integers(1, 3), epoch=st.integers(0, 2), drop_last=st.booleans())
def test_ranks_draw_together_what_one_process_draws(n, world, batch, accumulate, epoch, drop_last):
    total = world * batch * accumulate
    assume(n >= total)
    alone = ViewLoader(Numbers(n), total, seed=5, workers=0, drop_last=drop_last)
    ranks = [ViewLoader(Numbers(n), batch, seed=5, rank=rank, world_size=world, workers=0,
                        drop_last=drop_last) for rank in range(world)]
    for step in range(len(alone)):  # with the last, short one, unless it is dropped
        whole = alone.make_batch(epoch, step)
        steps = range(step * accumulate, min((step + 1) * accumulate, len(ranks[0])))
        parts = [loader.make_batch(epoch, i) for i in steps for loader in ranks]
        for key in ('index', 'draw'):
            together = torch.cat([part[key] for part in parts])
            count = len(whole[key])
            assert torch.equal(together[:count], whole[key])
            assert len(together) - count == (-count) % world  # so that all ranks have as many


@pytest.mark.parametrize('render, workers, processes', [
    ('cpu', 0, False), ('cpu', 2, False), ('cpu', 2, True), ('device', 2, False)])
def test_ranks_see_together_what_one_process_sees(dataset, render, workers, processes):
    alone = ViewLoader(dataset, 8, seed=3, workers=0, render=render)
    ranks = [iter(ViewLoader(dataset, 4, seed=3, rank=rank, world_size=2, workers=workers,
                             processes=processes, render=render)) for rank in range(2)]
    for whole, *parts in islice(zip(alone, *ranks), 3):
        for both, *halves in zip(*map(tensors, (whole, *parts)), strict=True):
            assert torch.equal(torch.cat(halves), both)
    for iterator in ranks:
        iterator.close()


@pytest.mark.parametrize('workers', [1, 3])
@pytest.mark.parametrize('processes', [True, False])
def test_workers_change_nothing(dataset, workers, processes):
    assert_same(ViewLoader(dataset, 8, seed=3, workers=0),
                ViewLoader(dataset, 8, seed=3, workers=workers, processes=processes))


@pytest.mark.parametrize('workers, processes', [(0, False), (2, False), (2, True)])
def test_resume_in_mid_epoch(dataset, workers, processes):
    whole = ViewLoader(dataset, 8, seed=3, workers=workers, processes=processes)
    whole.set_position(2)
    resumed = ViewLoader(dataset, 8, seed=3, workers=workers, processes=processes)
    resumed.set_position(2, 5)
    assert len(resumed) == 8
    batches = list(resumed)
    assert len(batches) == 3
    assert_same(list(whole)[5:], batches)
    assert np.array_equal(batches[1]['index'], whole.indices(2, 6))


def test_single_batches_on_request(dataset):
    loader = ViewLoader(dataset, 8, seed=3, workers=2)
    loader.set_position(1)
    assert_same(list(loader)[4:5], [loader.make_batch(1, 4)])


def test_resume_makes_no_batch_before_its_position():
    numbers = Numbers(1000)
    loader = ViewLoader(numbers, 1, workers=0)
    loader.set_position(0, 998)
    assert len(list(loader)) == 2 and numbers.made == 2
    loader.set_position(0, 1000)
    assert list(loader) == [] and numbers.made == 2


def test_order_is_kept_when_batches_take_unequal_times():
    class Unequal(Numbers):
        def batch(self, indices, generator, *args):
            time.sleep(float(indices[0] % 5) / 200)
            return super().batch(indices, generator, *args)

    loader = ViewLoader(Unequal(40), 2, workers=4, processes=False)
    expected = [batch['index'].tolist() for batch in ViewLoader(Numbers(40), 2, workers=0)]
    assert [batch['index'].tolist() for batch in loader] == expected


@pytest.mark.parametrize('processes', [True, False])
def test_batches_stay_valid_while_later_ones_are_made(dataset, processes):
    loader = ViewLoader(dataset, 4, workers=2, processes=processes)
    kept, copies = [], []
    for batch in loader:
        kept.append(batch['views'][0])
        copies.append(batch['views'][0].clone())
    assert all(torch.equal(a, b) for a, b in zip(kept, copies))


def test_raw_tiles_on_request(dataset):
    batch = next(iter(ViewLoader(dataset, 4, workers=1, render='device', processes=True)))
    assert batch['tiles'].shape == (4, 3, 224, 224) and len(batch['draw']) == 2
    with pytest.raises(UserError, match="'gpu' is unknown"):
        ViewLoader(dataset, 4, render='gpu')


# --- threads ---

def test_prefetch_is_bounded():
    numbers = Numbers(100)
    batches = iter(ViewLoader(numbers, 1, workers=2, processes=False))
    for _ in range(3):
        next(batches)
    time.sleep(0.2)
    assert numbers.made <= 3 + 2 + 2  # taken, in the making, waiting
    batches.close()


def test_no_threads_are_left_behind():
    loader = ViewLoader(Numbers(100, seconds=0.01), 1, workers=3, processes=False)
    assert list(loader) and not view_threads()
    for _ in loader:
        break
    gc.collect()
    assert not view_threads()
    batches = iter(loader)
    next(batches)
    assert len(view_threads()) == 3
    batches.close()
    assert not view_threads()
    batches = iter(loader)
    next(batches)
    del batches
    gc.collect()
    assert not view_threads()
    with pytest.raises(KeyboardInterrupt):
        for _ in loader:
            raise KeyboardInterrupt
    gc.collect()
    assert not view_threads()


@pytest.mark.parametrize('workers', [0, 2])
def test_errors_surface_with_their_own_traceback(workers):
    loader = ViewLoader(Numbers(20, fail_at=int(ViewLoader(Numbers(20), 1).indices(0, 7)[0])), 1,
                        workers=workers, processes=False)
    got = []
    with pytest.raises(TileError, match='tile .*: damaged') as caught:
        for batch in loader:
            got.append(batch)
    assert len(got) == 7  # everything before it was delivered
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-1] == 'batch' and 'make_batch' in frames
    assert not view_threads()


@pytest.mark.parametrize('processes', [True, False])
def test_unreadable_tiles_are_counted(tmp_path, caplog, processes):
    from PIL import Image
    for i in range(8):
        Image.effect_noise((64, 64), 50).convert('RGB').save(tmp_path / f'{i}.png')
    for i in (1, 6):
        path = tmp_path / f'{i}.png'
        content = path.read_bytes()
        path.write_bytes(content[:600] + bytes(50) + content[650:])
    loader = ViewLoader(TileDataset(dict(type='ImageFolder', root=str(tmp_path)), RECIPE), 4,
                        workers=2, processes=processes)
    assert loader.corrupt_count == 0
    read = torch.cat([batch['index'] for batch in loader])
    assert loader.corrupt_count == 2
    assert sorted(read.tolist()) == [0, 2, 2, 3, 4, 5, 7, 7]
    list(loader)
    assert loader.corrupt_count == 2
    assert sorted(record.getMessage()[:12] for record in caplog.records) == ['tile skipped'] * 2


@pytest.mark.parametrize('workers', [0, 1])
def test_data_wait_is_what_the_consumer_waited(workers):
    loader = ViewLoader(Numbers(5, seconds=0.05), 1, workers=workers, processes=False)
    list(loader)
    waited = loader.data_wait
    assert 0.1 < waited < 5
    assert loader.take_wait() == waited and loader.data_wait == 0


def test_default_workers_fit_the_machine(dataset):
    assert 1 <= ViewLoader(dataset, 4).workers <= 8
