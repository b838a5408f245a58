"""The code of the pages on what can be added runs as it is written."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from openselfsup.datasets import Source
from openselfsup.errors import UserError
from openselfsup.registry import REGISTRIES, SOURCES
from tests.test_docs import REPO, blocks

SMALL = ['--cfg-options', 'epochs=1', 'dataset.recipe.size=32', 'global_batch_size=16',
         'log_interval=1']
TILES = f'dataset.source.root={REPO}/data/demo/kather2016'


@pytest.fixture
def module_of(tmp_path, monkeypatch):
    """Write the first block of a page as a module and import it; forget afterwards what it adds."""
    for table in REGISTRIES:
        table.names()  # what is ours is imported before
    before = [(table.module_dict, dict(table.module_dict)) for table in REGISTRIES]
    written = []

    def write(page: str, name: str):
        (tmp_path / f'{name}.py').write_text(blocks(f'docs/extend/{page}.md')[0])
        monkeypatch.syspath_prepend(str(tmp_path))
        written.append(name)
        return importlib.import_module(name)
    yield write
    for name in written:
        del sys.modules[name]
    for known, ours in before:
        known.clear()
        known.update(ours)


def words_of(page: str, folder: Path, *options: str) -> list[str]:
    """Write a page's config; return what trains it for an epoch."""
    config = blocks(f'docs/extend/{page}.md')[1].replace("'configs/", f"'{REPO}/configs/")
    (folder / 'my_config.py').write_text(config)
    return ['my_config.py', '--work-dir', 'OUT', *SMALL, *options]


@pytest.fixture
def train_page(tool, tmp_path):
    """Train a page's config in the folder that holds its module."""
    def train(page: str, *options: str) -> str:
        done = tool('tools/train.py', *words_of(page, tmp_path, *options), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout
    return train


def test_the_backbone_trains_and_is_read_back(module_of, tool, tmp_path):
    from openselfsup import load_backbone
    module = module_of('backbone', 'my_backbone')
    answer = subprocess.run(  # as a user starts it
        [sys.executable, '-m', 'openselfsup', 'train', *words_of('backbone', tmp_path, TILES)],
        cwd=tmp_path, text=True, capture_output=True, timeout=240,
        env={**os.environ, 'PYTHONPATH': f'{tmp_path}:{REPO}'})
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert tool('tools/extract_backbone_weights.py', 'OUT/latest.pth', 'backbone.pth',
                cwd=tmp_path).returncode == 0
    backbone = load_backbone(str(tmp_path / 'backbone.pth'))
    assert type(backbone) is module.SmallNet
    trained = torch.load(tmp_path / 'OUT/latest.pth', weights_only=True)['state_dict']
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, trained[f'encoder_q.backbone.{name}'])


def test_the_hook_stops_the_run(module_of, train_page, tmp_path):
    module_of('hook', 'my_hooks')
    train_page('hook', TILES, 'epochs=3', 'hooks.0.loss=1e6')
    meta = torch.load(tmp_path / 'OUT/latest.pth', weights_only=True)['meta']
    assert (meta['epoch'], meta['iteration']) == (0, 2)  # ranks agree a step later


def test_the_source_is_trained_on(module_of, train_page, tmp_path):
    module_of('source', 'my_source')
    tiles = np.random.default_rng(0).integers(0, 256, (32, 40, 48, 3), dtype=np.uint8)
    np.save(tmp_path / 'tiles.npy', tiles)
    assert '32 tiles' in train_page('source')


def test_what_a_class_leaves_out_is_told_before_it_is_used():
    class Unnamed(Source):
        def __len__(self):
            return 1

        def read(self, index):
            return np.zeros((8, 8, 3), np.uint8)

    with pytest.raises(UserError, match=r'source Unnamed does not define path; expected what its '
                                        'base class leaves to it'):
        SOURCES.build(dict(type=Unnamed))


def test_the_kind_of_data_set_writes_lists_and_reports(module_of, tmp_path):
    from openselfsup.datasets.prepare.report import Report
    module, report = module_of('dataset_kind', 'my_kind'), Report('mine')
    for name in ('adipose/train_1', 'adipose/test_1', 'tumour/train_1', 'tumour/other_1'):
        path = tmp_path / 'src' / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    module.prepare_mine(tmp_path / 'src', tmp_path / 'dst', report)
    lists = tmp_path / 'dst/meta'
    assert (lists / 'train.txt').read_text() == 'adipose/train_1.png 0\ntumour/train_1.png 1\n'
    assert (lists / 'test.txt').read_text() == 'adipose/test_1.png 0\n'
    assert report.facts == {'train tiles': 2, 'test tiles': 1}
    assert len(report.problems) == 1 and 'other_1' in report.problems[0]
    assert len(report.notes) == 1 and '8000' in report.notes[0]
    with pytest.raises(UserError, match='layout'):
        module.prepare_mine(tmp_path / 'src/tumour', tmp_path / 'dst', report)


def test_the_metric_is_scored_with_its_interval(module_of, monkeypatch):
    from openselfsup.evaluation import metrics
    monkeypatch.setattr(metrics, 'SCORES', dict(metrics.SCORES))
    module_of('metric', 'my_metric')
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    probabilities = rng.dirichlet(np.ones(3), 200)
    found = metrics.score(labels, probabilities)['specificity']
    said = probabilities.argmax(1)
    expected = np.mean([((said != c) & (labels != c)).sum() / (labels != c).sum()
                        for c in range(3)])
    np.testing.assert_allclose(found, [expected])
    low, high = metrics.interval(metrics.bootstrap(labels, probabilities)['specificity'])
    assert low < expected < high


def test_the_view_step_is_the_same_in_all_renderings(module_of):
    from openselfsup.datasets import build_recipe
    from openselfsup.registry import STEPS
    from openselfsup.views import TorchRenderer, render_opencv, render_pil, unbind
    module_of('view_step', 'my_steps')
    try:
        recipe = build_recipe(dict(type='ViewRecipe', size=48, steps=dict(
            posterize=dict(type='Posterize', p=0.5, bits=1))))
    finally:
        STEPS._module_dict.pop('Posterize')
    tiles = torch.randint(0, 256, (16, 3, 48, 48), dtype=torch.uint8)
    drawn = recipe.draw(torch.full((16, 2), 48), torch.Generator().manual_seed(0))
    views = TorchRenderer(recipe)(tiles, drawn)
    changed = 0
    for tile, view, one in zip(tiles, views, unbind(drawn)):
        pixels = np.ascontiguousarray(tile.permute(1, 2, 0).numpy())
        by_opencv, by_pil = np.empty_like(pixels), np.empty_like(pixels)
        render_opencv(pixels, recipe, one, by_opencv)
        render_pil(pixels, recipe, one, by_pil)
        np.testing.assert_array_equal(by_opencv, by_pil)
        np.testing.assert_array_equal(view.permute(1, 2, 0).numpy(), by_pil)
        changed += not np.array_equal(by_pil, pixels)
    assert 2 <= changed <= 14
