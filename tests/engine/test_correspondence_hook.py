"""The probe without labels sees fixed views and chooses by its scores."""

import json
import math

import pytest
import torch

from openselfsup.engine.hooks import CorrespondenceHook
from openselfsup.errors import UserError

HOOK = {'type': 'CorrespondenceHook', 'interval': 1, 'tiles': 6, 'batch_size': 5}
OTHERS = {'type': 'ImageFolder', 'root': 'data/demo/cmu1', 'labels': False}
SCORES = ('probe_correspondence', 'probe_rankme', 'probe_alpha_req')


def hook_of(runner) -> CorrespondenceHook:
    return next(hook for hook in runner.hooks if isinstance(hook, CorrespondenceHook))


def test_views_are_the_same_at_every_probe_and_of_tiles_without_labels(make_runner):
    runner = make_runner(f'hooks={[dict(HOOK, source=OTHERS)]}', 'model.backbone.out_indices=[2,4]')
    hook = hook_of(runner)
    hook.before_train(runner)
    views, first = hook.views.clone(), hook.measure(runner)
    assert views.shape == (12, 3, 64, 64) and hook.maps.shape == (6, 2, 2, 3)
    assert not views[::2].equal(views[1::2])
    torch.manual_seed(5)
    hook.before_train(runner)
    assert hook.views.equal(views) and hook.measure(runner) == first
    # How many views one pass takes changes rounding only.
    hook.batch_size = 12
    assert hook.measure(runner) == pytest.approx(first, rel=1e-3)
    hook.feature_map = 0  # of 8 x 8 cells, not 2 x 2
    other = hook.measure(runner)
    assert other[SCORES[1]] == pytest.approx(first[SCORES[1]], rel=1e-3)
    assert other[SCORES[0]] != first[SCORES[0]]


def test_a_backbone_that_sees_places_finds_them(make_runner):
    runner = make_runner(f'hooks={[dict(HOOK, tiles=2)]}')
    hook = hook_of(runner)
    hook.before_train(runner)
    # Two views that are the same: each cell is found but where its features occur twice.
    hook.views[1::2], hook.maps[:, 1] = hook.views[::2], hook.maps[:, 0]
    found = hook.measure(runner)
    groups = {SCORES[0], f'{SCORES[0]}_upright', f'{SCORES[0]}_overlap_0.75_1'}
    assert {key for key in found if key.startswith(SCORES[0])} == groups
    assert all(found[key] == 1 for key in groups)


def test_the_score_that_chooses(make_runner, tmp_path):
    options = (f"hooks={[dict(HOOK, best_by='alpha_req')]}", 'epochs=3', 'workers=0',
               'global_batch_size=48')
    runner = make_runner(*options)
    found = iter([(0.1, 2, 3), (0.3, 9, 0.2), (0.5, 8, math.nan), (0.2, 7, 1.1)])
    hook_of(runner).measure = lambda runner: dict(zip(SCORES, next(found)))
    runner.train()
    saved = torch.load(tmp_path / 'run/best_dense.pth', weights_only=True)['meta']
    assert saved['step'] == 3
    lines = (tmp_path / 'run/metrics.jsonl').read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if SCORES[0] in row]
    assert [SCORES[2] in row for row in rows] == [True, True, False, True]  # no NaN in the file

    again = make_runner(*options)
    again.resume(tmp_path / 'run/latest.pth')
    hook_of(again).before_train(again)
    assert hook_of(again).best == hook_of(runner).best == pytest.approx(-0.1)
    scores = dict(zip(SCORES, (0.1, 2, 3)))
    assert CorrespondenceHook().goodness(scores) == 2
    assert CorrespondenceHook(best_by='correspondence').goodness(scores) == 0.1


def test_what_cannot_be_scored_is_refused(make_runner):
    steps = [dict(type='ElasticDistortion')]
    for wrong, said in ((dict(recipe=dict(type='ViewRecipe', size=32, steps=steps)),
                         'does not say where a view lies'),
                        (dict(feature_map=1), r'returns 1 feature map\(s\), there is no 1')):
        runner = make_runner(f'hooks={[HOOK | wrong]}')
        with pytest.raises(UserError, match=said):
            runner.call_hooks('before_train')
