"""Interleaved timing of several ways of doing one thing."""

import ctypes
import dataclasses
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

TARGET_SECONDS = 0.2  # one sample repeats short work until it takes about so long


@dataclasses.dataclass
class Case:
    """One kind of work and the ways of doing it.

    Attributes:
        name: key in the JSON output.
        what: the work, with its sizes.
        ours: does the work once.
        published: does the work once, the published way.
        others: further ways by name.
        items: how many things one call makes; figures are given per second of these.
        unit: what these things are.
        calls: how many calls make one sample, where that must not be found out by trying.
        memory: whether to compare the peak of extra memory (CPU work only).
        difference: whether to give what an item takes longer in ours, in microseconds.
    """

    name: str
    what: str
    ours: Callable[[], object]
    published: Callable[[], object] | None
    others: dict[str, Callable[[], object]] = dataclasses.field(default_factory=dict)
    items: int = 1
    unit: str = 'calls'
    calls: int | None = None
    memory: bool = False
    difference: bool = False


@dataclasses.dataclass
class Result:
    """Medians over the repeats.

    Attributes:
        name: of the case, as ``what`` and ``unit``.
        ours: items per second.
        published: the same of the published way.
        others: the same of further ways.
        ratio: how many times faster ours is, the median over the repeats, each a pair taken
            one right after the other.
        spread: the smallest and the largest of these ratios.
        memory_ratio: ours / published, of what a call takes at its peak.
        memory_mb: both in MB.
        microseconds: what one item takes longer in ours: median, smallest and largest.
    """

    name: str
    what: str
    unit: str
    ours: float
    published: float | None
    others: dict[str, float]
    ratio: float | None
    spread: tuple[float, float] | None
    memory_ratio: float | None
    memory_mb: tuple[float, float] | None
    microseconds: tuple[float, float, float] | None = None

    @property
    def verdict(self) -> str:
        """Call a difference only where the whole spread lies on one side of 1."""
        if self.ratio is None:
            return ''
        low, high = self.spread
        if low <= 1 <= high:
            return 'no difference beyond the spread'
        if self.microseconds:
            return f'{self.microseconds[0]:+,.0f} µs each'
        return f'{self.ratio:.1f}x' if self.ratio >= 1 else f'{1 / self.ratio:.1f}x slower'


def measure(case: Case, repeats: int = 7) -> Result:
    """Time all ways of a case in turn, ``repeats`` times each, after one warm-up."""
    ways = {'ours': case.ours, **({'published': case.published} if case.published else {}),
            **case.others}
    calls = {}
    for name, work in ways.items():
        work()
        calls[name] = case.calls or max(1, round(TARGET_SECONDS / max(_time(work, 1), 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, work in ways.items():
            samples[name].append(_time(work, calls[name]))
    rates = {name: case.items / statistics.median(s) for name, s in samples.items()}
    ratio = spread = memory_ratio = memory = microseconds = None
    if case.published:
        ratios = [p / o for p, o in zip(samples['published'], samples['ours'])]
        ratio, spread = statistics.median(ratios), (min(ratios), max(ratios))
        if case.difference:
            longer = sorted(1e6 / case.items * (o - p)
                            for p, o in zip(samples['published'], samples['ours']))
            microseconds = statistics.median(longer), longer[0], longer[-1]
        if case.memory and (used := (peak_memory(case.ours), peak_memory(case.published)))[1]:
            memory, memory_ratio = used, used[0] / used[1]
    ours, published = rates.pop('ours'), rates.pop('published', None)
    return Result(case.name, case.what, case.unit, ours, published, rates, ratio, spread,
                  memory_ratio, memory, microseconds)


def on_threads(threads: int, work: Callable[[], object]) -> Callable[[], object]:
    """Return ``work`` with torch limited to so many threads."""
    def limited() -> object:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return work()
        finally:
            torch.set_num_threads(before)
    return limited


def _time(work: Callable[[], object], calls: int) -> float:
    """Return seconds of one call, averaged over ``calls``."""
    gc.collect()
    _synchronise()
    start = time.perf_counter()
    for _ in range(calls):
        work()
    _synchronise()
    return (time.perf_counter() - start) / calls


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(work: Callable[[], object]) -> float:
    """Return how many MB above the state before it a call takes at its peak (Linux), else 0."""
    if hasattr(work, 'peak_memory'):  # it is done in another process
        return work.peak_memory()
    reset = Path('/proc/self/clear_refs')
    if not reset.exists():
        return 0.0
    work()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _status('VmRSS')
    reset.write_text('5')  # the high-water mark starts anew
    work()
    return max(_status('VmHWM') - before, 0) / 1024


def _status(field: str) -> int:
    """Return a field of /proc/self/status in kB."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(field + ':'):
            return int(line.split()[1])
    raise KeyError(field)
