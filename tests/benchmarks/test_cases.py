"""Every case runs, at sizes that take no time."""

import json
from itertools import repeat

import pytest

from benchmarks.speed import (
    clusters,
    dinov2,
    gpu,
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
from benchmarks.speed.tiles import write_tiffs
from benchmarks.speed.timing import measure
from openselfsup.datasets import ImageFolder, ViewLoader, pack
from openselfsup.registry import DATASETS

TINY_VIT = [
    *(f'model.backbone.{key}={value}' for key, value in dict(
        embed_dim=24, depth=2, num_heads=2, img_size=56).items()),
    'model.head.prototypes=64', 'model.head.hidden=32', 'model.head.bottleneck=16',
    *(f'dataset.recipe.global{i}.size=56' for i in (1, 2)),
    *(f'dataset.recipe.local{i}.size=28' for i in range(1, 9))]


def run_all(cases) -> dict:
    found = {}
    for case in cases:
        for work in (case.ours, case.published, *case.others.values()):
            if work:  # a library that is not installed has none
                work()
        found[case.name] = case
    return found


def test_loss_cases(monkeypatch):
    monkeypatch.setattr(losses, 'ROWS', 40)
    monkeypatch.setattr(losses, 'QUEUE', 64)
    monkeypatch.setattr(losses, 'BATCH', 10)
    assert set(run_all(losses.loss_cases())) == {'loss_bf16', 'loss_fp32'}
    assert set(run_all(losses.ntxent_cases())) == {'ntxent'}


def test_matching_and_kmeans_cases(monkeypatch):
    assert set(run_all(matching.match_cases())) == {'match'}
    assert set(run_all(kmeans.kmeans_cases())) == {'kmeans'}


def test_cluster_cases(monkeypatch):
    monkeypatch.setattr(clusters, 'SIZES', {60: 4, 80: 5})
    found = []
    monkeypatch.setattr(clusters, 'DIM', 20)
    monkeypatch.setattr(clusters, 'PCA_DIM', 8)
    for case in clusters.cluster_cases():
        assert len(case.ours().labels.unique()) > 1
        found.append(case.name)
    assert found == ['clusters_60', 'clusters_80']


def test_step_case(monkeypatch):
    monkeypatch.setattr(step, 'BATCH', 4)
    monkeypatch.setattr(step, 'SIZE', 64)
    monkeypatch.setattr(step, 'GRID', 2)
    assert set(run_all(step.step_cases())) == {'step'}


def test_dinov2_cases():
    assert set(run_all(dinov2.dinov2_cases(tuple(TINY_VIT)))) == {'dinov2', 'dinov2_matched'}


def test_what_dinov2_cases_compare():
    plain, matched = (dinov2.config(matched=wanted) for wanted in (False, True))
    assert plain.model.matched is None and matched.model.matched.type == 'MatchedPatches'
    assert plain.model.head.prototypes == 8192
    sizes = [view['size'] for view in plain.dataset.recipe.values()]
    assert sizes == 2 * [224] + 8 * [98]
    cfg = dinov2.config(changes=tuple(TINY_VIT))
    dataset = DATASETS.build(cfg.dataset)
    batch = ViewLoader(dataset, 2, workers=0).make_batch(0, 0)
    step = dinov2.build_step(cfg, dataset.geometry)
    before = {name: value.clone() for name, value in step.algorithm.state_dict().items()}
    dinov2.bare_model(step, batch)()
    assert all(value.equal(before[name]) for name, value in step.algorithm.state_dict().items())
    step(repeat(batch), 1, 0.1)
    name = 'student.backbone.net.blocks.1.attn.proj.weight'
    assert not step.algorithm.state_dict()[name].equal(before[name])  # the backbone learns


def test_views_case(monkeypatch):
    monkeypatch.setattr(views, 'BATCH', 2)
    assert set(run_all(views.view_cases())) == {'views'}


def test_loader_cases(monkeypatch):
    monkeypatch.setattr(loader, 'BATCH', 4)
    monkeypatch.setattr(loader, 'RAW_BATCH', 4)
    assert set(run_all(loader.loader_cases(tiles=8, raw_tiles=12))) == {'loader', 'feed'}


def test_shard_cases(monkeypatch):
    monkeypatch.setattr(shards, 'SHARD_MB', 0.05)
    assert set(run_all(shards.shard_cases(tiles=6))) == {'shards'}


def test_slide_cases():
    assert set(run_all(slides.slide_cases(tiles=8, side=1200))) == {'slides'}


def test_overhead_cases(monkeypatch):
    monkeypatch.setattr(overhead, 'STEPS', 2)
    found = []
    for case in overhead.overhead_cases():
        found.append(measure(case, repeats=5))
    assert [r.name for r in found] == ['overhead_empty', 'overhead']
    median, low, high = found[0].microseconds
    assert low <= median <= high and median > 0  # hooks cannot cost less than nothing


def test_dinov2_steps_of_the_gpu_script(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, 'VITS', ('small', 'large'))
    folder = write_tiffs(4)
    packed = pack(ImageFolder(folder.name), tmp_path)
    bench = gpu.Bench('cpu', 2, 56, steps=1, repeats=1)
    found = dict(gpu.dinov2_steps(bench, packed, batch=2, workers=1, changes=tuple(TINY_VIT)))
    folder.cleanup()
    assert list(found) == ['small', 'large']
    for figures in found.values():
        for kind in ('plain', 'matched'):
            assert set(figures[kind]) == {'packed', 'ready', 'bare', 'packed_of_bare',
                                          'ready_of_bare', 'memory_gb'}
        assert figures['plain']['packed_of_bare'] > 0 and figures['matched_takes'] > 0


@pytest.mark.slow
def test_the_gpu_script_runs_on_a_cpu(monkeypatch, tmp_path):
    out = tmp_path / 'gpu.json'
    monkeypatch.setattr(gpu, 'VITS', ())
    monkeypatch.setattr('sys.argv', ['gpu', '--device', 'cpu', '--batch', '4', '--size', '32',
                                     '--tiles', '8', '--steps', '1', '--repeats', '1',
                                     '--workers', '1', '--json', str(out)])
    gpu.main()
    figures = json.loads(out.read_text())
    assert set(figures['pairs_per_s']) == {'moco', 'plm'}
    assert set(figures['shares']) == {'views', 'loss', 'ema', 'logging'}
    assert figures['end_to_end']['ratio'] > 0
