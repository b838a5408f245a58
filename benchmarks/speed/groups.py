"""The groups of cases, each measured in this process or in one of its own."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

from .timing import Case, Result, measure


def groups() -> dict[str, Callable[[], Iterator[Case]]]:
    """Return what can be measured, by the names that --only takes."""
    from . import (
        ca2cl,
        clusters,
        dinov2,
        kmeans,
        loader,
        losses,
        matching,
        overhead,
        shards,
        slides,
        step,
        views,
    )
    return dict(views=views.view_cases, loader=loader.loader_cases, match=matching.match_cases,
                loss=losses.loss_cases, ntxent=losses.ntxent_cases, kmeans=kmeans.kmeans_cases,
                clusters=clusters.cluster_cases, shards=shards.shard_cases,
                slides=slides.slide_cases, step=step.step_cases, overhead=overhead.overhead_cases,
                strong=ca2cl.strong_view_cases, ca2cl=ca2cl.ca2cl_step_cases,
                dinov2=dinov2.dinov2_cases)


def run(group: str, repeats: int) -> list[Result]:
    """Measure the cases of one group."""
    results = []
    for case in groups()[group]():
        print(f'measuring {case.name}: {case.what} ...', flush=True)
        results.append(measure(case, repeats))
        print(f'  {results[-1].verdict}', flush=True)
    return results


def run_afresh(group: str, repeats: int) -> list[Result]:
    """Do so in a process of its own.

    What large blocks of memory cost depends on what a process has freed before: after the
    other cases, broadcast k-means is several times faster than alone.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        return pool.submit(run, group, repeats).result()
