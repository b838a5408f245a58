"""What a run tells its method, and what it gives it beside the views."""

import numpy as np
import pytest
import torch
from small_runs import DEMO, REPO, SMALL
from torch import nn

from openselfsup.engine.config import load_config
from openselfsup.engine.runner import Runner
from openselfsup.errors import UserError
from openselfsup.models.method import BaseMethod
from openselfsup.registry import ALGORITHMS
from openselfsup.training.launch import Launch


@ALGORITHMS.register_module(force=True)
class Listener(BaseMethod):
    """Learns labels; remembers all that it hears."""

    batch_keys = ('index', 'label')

    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.conv = nn.Conv2d(3, 8, 8, 8)
        self.backbone.out_channels = [8]
        self.told, self.steps, self.pairs, self.ended = None, [], {}, 0

    def set_data(self, length, classes):
        self.told = length, classes
        self.head = nn.Linear(8, len(classes))

    def begin_step(self, progress):
        super().begin_step(progress)
        self.steps.append(tuple(progress))

    def end_step(self):
        self.ended += 1

    def forward(self, views, view_to_tile=None, *, index, label):
        self.pairs.update(zip(index.tolist(), label.tolist()))
        answer = self.head(self.backbone.conv(views[0]).mean((2, 3)))
        return dict(loss=nn.functional.cross_entropy(answer, label))


def runner(tmp_path, *options: str, workers: int = 0) -> Runner:
    cfg = load_config(DEMO, [*SMALL, 'model._delete_=True', 'model.type=Listener', 'log_interval=2',
                             f'workers={workers}', 'hooks=[]', *options])
    return Runner(cfg, Launch(0, 1, torch.device('cpu')), tmp_path / 'run')


@pytest.mark.parametrize('workers', [0, 1])
def test_a_method_learns_labels_and_hears_where_the_run_stands(tmp_path, workers):
    run = runner(tmp_path, 'dataset.source.labels=True', workers=workers)
    method, source = run.algorithm, run.dataset.source
    assert method.told == (len(source), source.classes)
    run.train()
    steps = len(source) // 16
    assert method.steps == [(step // steps, step, steps, 2 * steps) for step in range(2 * steps)]
    assert method.ended == 2 * steps
    labels = np.asarray(source.labels)
    assert len(method.pairs) >= 16 * steps
    assert all(labels[index] == label for index, label in method.pairs.items())


def test_tiles_without_labels_are_refused_before_any_work(tmp_path):
    with pytest.raises(UserError, match='Listener learns from labels, but these tiles have none'):
        runner(tmp_path, 'dataset.source.labels=False')
    assert not (tmp_path / 'run').exists()


def test_labels_without_names_are_numbered(tmp_path):
    root = REPO / 'data/demo/kather2016'
    tiles = [path for path in sorted(root.rglob('*')) if path.suffix in ('.png', '.tif', '.jpg')]
    listed = tmp_path / 'tiles.txt'
    listed.write_text(''.join(f'{path.relative_to(root)} {i % 3}\n'
                              for i, path in enumerate(tiles[:20])))
    run = runner(tmp_path, f"dataset.source=dict(type='ImageList', root='{root}', "
                           f"list_file='{listed}')")
    assert run.algorithm.told == (20, ['0', '1', '2'])
