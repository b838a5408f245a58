"""The loader of views: background workers, exact order, constant-time resume.

A worker makes one whole batch; which worker and which rank it is changes nothing, because all
random numbers of a tile's views come from (seed, epoch, position in the epoch). Views are rendered
by forked processes where the system allows it. Raw tiles are gathered by threads: reading releases
Python's lock.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial

import numpy as np
import torch

from ..errors import UserError
from ..views import Draws
from .memory import Allocate, pinned, recycled
from .parallel import default_workers
from .prefetch import prefetch
from .processes import ViewProcesses, can_fork
from .tiles import TileDataset
from .uniform import uniform_indices

PREFETCH = 2  # finished batches that may wait, beyond the one that each worker makes
HELD = 2  # batches that a consumer holds: the one in use and the one before it
_ORDER, _VIEWS = 0, 1  # keep the random streams of order and views apart


class ViewLoader:
    """Iterates over the batches of one epoch, as one rank sees them.

    The tiles are permuted by (seed, epoch) alone, as the source permutes them, unless
    :meth:`see_alike` draws them by classes.
    Of the global batch i, tiles [i·W·B, (i+1)·W·B) of that permutation, rank r gets the r-th B. A
    tile's place in the permutation also decides on its views: ranks together see what one process
    sees. Iterating starts at the position that :meth:`set_position` set and does not move it:
    whoever trains sets the position of each epoch.

    Args:
        dataset: what makes the batches.
        batch_size: B, tiles per rank.
        seed: seed of order and views, at least 0.
        rank: r, this process.
        world_size: W, the number of processes.
        workers: processes or threads; 0 makes the batches in the calling thread; None chooses
            as many as there are cores, 8 at most.
        drop_last: drop the tiles that do not fill the last global batch. Otherwise that
            batch is short, filled up from the start of the permutation only to a multiple
            of W, so that all ranks have as many, and to ``fewest`` a rank.
        render: 'cpu' for views, 'device' for raw tiles with their draws.
        pin_memory: page-locked buffers; None means where CUDA is available.
        processes: whether the workers are processes, which see the dataset as it was when the
            first batch was asked for, or threads; None means processes on Linux. Raw tiles are
            gathered by threads in any case.
        fewest: tiles of a rank in a batch, B if that is less: batch norm needs two.

    Attributes:
        data_wait: seconds that the consumer waited for batches since :meth:`take_wait`.

    Raises:
        UserError: the dataset does not fill one global batch and ``drop_last`` is set.
    """

    def __init__(self, dataset: TileDataset, batch_size: int, seed: int = 0, rank: int = 0,
                 world_size: int = 1, workers: int | None = None, drop_last: bool = True,
                 render: str = 'cpu', pin_memory: bool | None = None,
                 processes: bool | None = None, fewest: int = 1):
        if render not in ('cpu', 'device'):
            raise UserError(f'{render!r} is unknown', where='render', expected="'cpu' or 'device'")
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.workers = default_workers() if workers is None else workers
        self.drop_last, self.fewest, self.render = drop_last, min(fewest, batch_size), render
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self.processes = render == 'cpu' and (can_fork() if processes is None else processes)
        self._started: ViewProcesses | None = None
        self.epoch = self.iteration = 0
        self.data_wait = 0.0
        self._known_order: tuple[int, np.ndarray | None] = (-1, None)
        self._classes: np.ndarray | None = None
        if len(self) == 0:
            raise UserError(f'{len(dataset)} tiles do not fill one batch of {world_size} ranks x '
                            f'{batch_size}', where='global_batch_size',
                            expected=f'at most {len(dataset)}, or drop_last=False')

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        full, rest = divmod(len(self.dataset), self.world_size * self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def set_position(self, epoch: int, iteration: int = 0) -> None:
        """Let the next iteration start at batch ``iteration`` of ``epoch``, without a replay."""
        self.epoch, self.iteration = epoch, iteration

    def see_alike(self, classes: np.ndarray | None) -> None:
        """Draw the tiles of epochs so that all classes are seen alike, from the next iteration on.

        An epoch has as many tiles as before, some of them several times, and follows from
        (seed, epoch, classes) alone: a run that goes on has to say its classes again.

        Args:
            classes: class of each tile, int64 (N,); None for all tiles once.
        """
        if classes is not None and self.dataset.source.endless:
            raise UserError('its tiles are new in every epoch: they have no classes to see alike',
                            where='dataset.source', expected='a source of fixed tiles')
        self._classes, self._known_order = classes, (-1, None)
        self._started = None  # processes know the loader as it was when they were forked

    @property
    def corrupt_count(self) -> int:
        """Number of different tiles that could not be read and were replaced so far."""
        return len(self.dataset.corrupt)

    def take_wait(self) -> float:
        """Return ``data_wait`` and start it again from zero."""
        waited, self.data_wait = self.data_wait, 0.0
        return waited

    def __iter__(self) -> Generator[dict, None, None]:
        todo = self._announced(self.epoch, range(self.iteration, len(self)))
        return (self._ahead if self.workers else self._in_place)(self.epoch, todo)

    def _announced(self, epoch: int, todo: range) -> Iterator[int]:
        """Let the source know what is read next, before each batch is begun."""
        for iteration in todo:
            self.dataset.source.coming(self._order(epoch),
                                       iteration * self.world_size * self.batch_size)
            yield iteration

    def indices(self, epoch: int, iteration: int) -> np.ndarray:
        """Return the tiles of this rank's batch as int64 array of shape (B,)."""
        return np.take(self._order(epoch), self._positions(iteration), mode='wrap')

    def rows(self, iterations: range) -> int:
        """Return how many tiles this rank has in some batches of an epoch."""
        return sum(len(self._positions(iteration)) for iteration in iterations)

    def _positions(self, iteration: int) -> np.ndarray:
        """Return the places of this rank's batch in the epoch's permutation, int64 (B,).

        Those that fill up the last batch lie beyond its end.
        """
        per_step = self.world_size * self.batch_size
        start = iteration * per_step
        size = min(per_step, len(self.dataset) - start)
        share = max(-(-size // self.world_size), self.fewest)  # rounded up
        start += self.rank * share
        return np.arange(start, start + share)

    def make_batch(self, epoch: int, iteration: int, render: str | None = None,
                   allocate: Allocate | None = None) -> dict:
        """Make one batch in the calling thread; see :meth:`TileDataset.batch`.

        Args:
            epoch: the epoch.
            iteration: the batch of that epoch.
            render: 'cpu' or 'device' in place of the loader's own.
            allocate: where images go in place of the loader's own memory.
        """
        draws = Draws.at(self.seed, _VIEWS, epoch, positions=self._positions(iteration))
        return self.dataset.batch(self.indices(epoch, iteration).tolist(), draws,
                                  render or self.render,
                                  allocate or (pinned if self.pin_memory else recycled))

    def _order(self, epoch: int) -> np.ndarray:
        """Return the permutation of an epoch; the last one asked for is kept."""
        known, order = self._known_order
        if order is None or known != epoch:
            state = np.random.SeedSequence((self.seed, _ORDER, epoch)).generate_state(1, np.uint64)
            if self._classes is not None:
                words = state.view(np.uint32)  # all that numpy's legacy generator takes
                order = uniform_indices(self._classes, np.random.RandomState(words))
            else:
                generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
                order = self.dataset.source.permutation(generator)
                if self.dataset.source.endless:
                    order = order + epoch * len(self.dataset)
            self._known_order = epoch, order
        return order

    def _in_place(self, epoch: int, todo: Iterable[int]) -> Generator[dict, None, None]:
        for iteration in todo:
            start = time.perf_counter()
            batch = self.make_batch(epoch, iteration)
            self._count_wait(time.perf_counter() - start)
            yield batch

    def _ahead(self, epoch: int, todo: Iterable[int]) -> Generator[dict, None, None]:
        """Yield batches that threads make, or let processes make, before they are asked for."""
        if self.processes and not self._started:
            self._started = ViewProcesses(self.make_batch, self.dataset, self.workers,
                                          self.workers + PREFETCH + HELD, self.batch_size)
        make = partial(self._from_process, self._started) if self._started else self.make_batch
        yield from prefetch(partial(make, epoch), todo, self.workers, self.workers + PREFETCH,
                            'views', self._enter_thread(), self._count_wait)

    def _from_process(self, processes: ViewProcesses, epoch: int, iteration: int) -> dict:
        batch = processes.make_batch(epoch, iteration)
        if batch is None:  # the consumer keeps batches, which takes memory of their own
            return self.make_batch(epoch, iteration)
        if self.pin_memory:
            batch['views'] = [_pinned_copy(view) for view in batch['views']]
        return batch

    def _enter_thread(self) -> Callable[[], None] | None:
        """Return what each thread does first: its pinned memory belongs to our GPU."""
        if not self.pin_memory:
            return None
        device = torch.cuda.current_device()
        return lambda: torch.cuda.set_device(device)

    def _count_wait(self, seconds: float) -> None:
        self.data_wait += seconds


def _pinned_copy(view: torch.Tensor) -> torch.Tensor:
    rows = view.permute(0, 2, 3, 1)  # B x S x S x 3, as it is in memory
    return pinned(rows.shape).copy_(rows).permute(0, 3, 1, 2)
