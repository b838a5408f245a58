"""Probes see everything and disturb nothing."""

import json
import shutil

import pytest
import torch
from PIL import Image
from small_runs import REPO, assert_same_state

from openselfsup import checkpoints
from openselfsup.engine.config import load_config
from openselfsup.engine.hooks import (
    CheckpointHook,
    CorrespondenceHook,
    KNNProbeHook,
    LinearProbeHook,
    build_hooks,
)
from openselfsup.errors import UserError
from openselfsup.evaluation.linear_probe import fit_linear
from openselfsup.files import NotWritten

TILES = {'type': 'ImageFolder', 'root': 'data/demo/kather2016'}
KNN = {'type': 'KNNProbeHook', 'source': TILES, 'interval': 1, 'k': 3, 'size': 32}
DENSE = {'type': 'CorrespondenceHook', 'interval': 1, 'tiles': 6}
LINEAR = {'type': 'LinearProbeHook', 'source': TILES, 'interval': 2, 'size': 32}


def lines_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def test_a_run_with_probes_ends_in_the_same_weights(make_runner, tmp_path):
    make_runner(name='plain').train()
    runner = make_runner(f'hooks={[KNN, LINEAR, DENSE]}', name='probed')
    runner.train()
    assert_same_state(tmp_path / 'plain/latest.pth', tmp_path / 'probed/latest.pth')
    assert all(part.training for part in runner.algorithm.encoder_q.modules())

    rows = lines_of(tmp_path / 'probed')
    knn = {row['step']: row['probe_knn'] for row in rows if 'probe_knn' in row}
    linear = {row['step']: row['probe_linear'] for row in rows if 'probe_linear' in row}
    assert list(knn) == [0, 3, 6] and list(linear) == [0, 6]
    assert all(0 < value <= 1 for value in [*knn.values(), *linear.values()])
    dense = [row for row in rows if 'probe_correspondence' in row]
    assert [row['step'] for row in dense] == [0, 3, 6]
    assert all(0 <= row['probe_correspondence'] <= 1 and 1 <= row['probe_rankme'] <= 12
               and row['probe_alpha_req'] > 0 for row in dense)
    kept = [row for row in rows if 'loss' in row]
    plain = lines_of(tmp_path / 'plain')
    assert [row['loss'] for row in kept] == [row['loss'] for row in plain]

    best = torch.load(tmp_path / 'probed/best_knn.pth', weights_only=True)['meta']['step']
    trained = {step: value for step, value in knn.items() if step}
    beats_start = [step for step in trained if trained[step] > knn[0]]
    if beats_start:
        assert best == max(trained, key=lambda step: (trained[step], -step))


def test_the_best_so_far_survives_a_resume(make_runner, tmp_path):
    options = (f'hooks={[KNN]}',)
    runner = make_runner(*options)
    hook = next(h for h in runner.hooks if isinstance(h, KNNProbeHook))
    scores = iter([0.2, 0.9])
    hook.scores = lambda features: {'probe_knn': next(scores)}
    before = hook.after_epoch

    def stop_after_one(runner):
        before(runner)
        runner.finite.stopped = True

    hook.after_epoch = stop_after_one
    runner.train()
    saved = torch.load(tmp_path / 'run/best_knn.pth', weights_only=True)['meta']
    assert saved['step'] == 3

    runner = make_runner(*options)
    runner.resume(tmp_path / 'run/latest.pth')
    hook = next(h for h in runner.hooks if isinstance(h, KNNProbeHook))
    hook.scores = lambda features: {'probe_knn': 0.7}
    runner.train()
    assert hook.best == 0.9
    saved = torch.load(tmp_path / 'run/best_knn.pth', weights_only=True)['meta']
    assert saved['step'] == 3


def test_a_best_that_could_not_be_written_leaves_the_next_a_chance(make_runner, tmp_path,
                                                                    monkeypatch):
    runner = make_runner(f'hooks={[KNN]}', 'epochs=4', 'checkpoint_interval=1')
    hook = next(h for h in runner.hooks if isinstance(h, KNNProbeHook))
    scores, real = iter([0.1, 0.3, 0.9, 0.5, 0.4]), checkpoints.save
    hook.scores = lambda features: {'probe_knn': next(scores)}

    def save(state, path):
        if path.name == 'best_knn.pth' and state['meta']['epoch'] == 2:
            raise NotWritten('no space left on device', where=str(path))
        real(state, path)

    monkeypatch.setattr(checkpoints, 'save', save)
    runner.train()
    saved = torch.load(tmp_path / 'run/best_knn.pth', weights_only=True)['meta']
    assert saved['epoch'] == 3 and hook.best == 0.5  # .9 has no file
    (tmp_path / 'run/best_knn.pth').unlink()
    runner = make_runner(f'hooks={[KNN]}')
    runner.resume(tmp_path / 'run/epoch_1.pth')
    hook = next(h for h in runner.hooks if isinstance(h, KNNProbeHook))
    hook.before_train(runner)
    assert hook.best == 0.1


def test_a_run_goes_on_from_whole_epochs_alone(make_runner, tmp_path, monkeypatch):
    runner = make_runner(f'hooks={[KNN]}', 'epochs=3', 'checkpoint_interval=1')
    there = []
    hook = next(h for h in runner.hooks if isinstance(h, CheckpointHook))
    real = hook.after_epoch

    def look(runner):  # between the probe's checkpoint and that of the epoch
        runner.saver.settle(wait=True)
        latest = tmp_path / 'run/latest.pth'
        there.append(latest.exists() and torch.load(latest, weights_only=True)['meta']['epoch'])
        real(runner)

    hook.after_epoch = look
    probe = next(h for h in runner.hooks if isinstance(h, KNNProbeHook))
    scores = iter([0.1, 0.2, 0.3, 0.4])
    probe.scores = lambda features: {'probe_knn': next(scores)}
    runner.train()
    assert there == [False, 1, 2]
    clustered = load_config('configs/DeepCluster/r18_small.py',
                            [f'hooks={[KNN, dict(type="DeepClusterHook")]}'])
    kinds = [type(hook).__name__ for hook in build_hooks(clustered)]
    assert kinds.index('DeepClusterHook') < kinds.index('KNNProbeHook')


def test_scores_of_known_features():
    labels = LinearProbeHook({**TILES}, size=32).tiles.labels
    perfect = torch.nn.functional.one_hot(labels).float()
    noise = torch.randn(51, 8, generator=torch.Generator().manual_seed(0))
    for hook in (KNNProbeHook({**TILES}, k=3), LinearProbeHook({**TILES})):
        assert hook.scores(perfect)[hook.key] == 1.0
        assert hook.scores(noise)[hook.key] < 0.5


def test_two_probes_of_a_kind_have_names(make_runner, tmp_path):
    second = {**KNN, 'k': 1, 'name': 'one'}
    runner = make_runner(f'hooks={[KNN, second]}')
    hooks = [hook for hook in runner.hooks if isinstance(hook, KNNProbeHook)]
    for hook, found in zip(hooks, ([0.5, 0.93, 0.8], [0.4, 0.55, 0.6])):
        scores = iter(found)
        hook.scores = lambda features, scores=scores: {'probe_knn': next(scores)}
    runner.train()
    for name, step in (('best_knn', 3), ('best_knn_one', 6)):
        saved = torch.load(tmp_path / f'run/{name}.pth', weights_only=True)['meta']
        assert saved['step'] == step
    rows = lines_of(tmp_path / 'run')
    assert [row['probe_knn'] for row in rows if 'probe_knn' in row] == [0.5, 0.93, 0.8]
    assert [row['probe_knn_one'] for row in rows if 'probe_knn_one' in row] == [0.4, 0.55, 0.6]

    runner = make_runner(f'hooks={[KNN, second]}')
    runner.resume(tmp_path / 'run/latest.pth')
    hooks = [hook for hook in runner.hooks if isinstance(hook, KNNProbeHook)]
    for hook in hooks:
        hook.before_train(runner)
    assert [(hook.best, hook.start['probe_knn']) for hook in hooks] == [(0.93, 0.5), (0.6, 0.4)]


@pytest.mark.parametrize('hooks, message', [
    ([KNN, KNN], 'hooks.1: two probes write probe_knn and best_knn.pth; expected a name of its'),
    ([DENSE, {**DENSE, 'best_by': 'alpha_req'}], 'hooks.1: two probes .* and best_dense.pth'),
    ([{**KNN, 'name': '../a'}], "hooks.KNNProbeHook.name: '../a' is no name of a probe"),
])
def test_probes_that_would_write_over_each_other_are_refused(make_runner, hooks, message):
    with pytest.raises(UserError, match=message):
        make_runner(f'hooks={hooks}')


def test_a_decay_of_eigenvalues_near_the_best_is_not_below_the_start(make_runner, tmp_path):
    runner = make_runner(f"hooks={[{**DENSE, 'best_by': 'alpha_req'}]}", 'epochs=3')
    hook = next(hook for hook in runner.hooks if isinstance(hook, CorrespondenceHook))
    scores = iter([1.003, 1.012, 1.003, 1.4])
    hook.measure = lambda runner: {'probe_alpha_req': next(scores)}
    runner.train()
    log = (tmp_path / 'run/train.log').read_text()
    assert log.count('BELOW START?') == 1
    assert 'probe_alpha_req is 1.400 after step 9, and was 1.003 before the first' in log


@pytest.fixture
def cohort(tmp_path) -> dict:
    """Twelve tiles of two classes and four patients, of whom two have tiles of both."""
    for name, tiles in (('STROMA', (0, 1, 2)), ('TUMOR', (0, 1, 3))):
        (tmp_path / name).mkdir()
        for patient in tiles:
            for i in range(2):
                Image.new('RGB', (32, 32)).save(
                    tmp_path / name / f'TCGA-AA-000{patient}-{i}.png')
    return dict(type='ImageFolder', root=str(tmp_path))


@pytest.mark.parametrize('pattern', [None, r'AA-(\d+)'])
def test_nothing_is_judged_by_tiles_of_its_patient(cohort, pattern, monkeypatch):
    hook = KNNProbeHook(cohort, k=20, patient_pattern=pattern)
    assert hook.k == 12 - 4
    two = LinearProbeHook(cohort, patient_pattern=pattern)
    assert not set(two.patients[two.kept].tolist()) & set(two.patients[two.held].tolist())
    asked = []
    monkeypatch.setattr('openselfsup.engine.hooks.probe.fit_linear',
                        lambda *given: asked.append(given) or fit_linear(*given))
    two.scores(torch.randn(12, 4))
    assert asked[0][4].tolist() == two.patients[two.kept].tolist()  # they choose the penalty
    # Features that tell what is of one patient and class: only the patient's own tiles find it.
    features = torch.nn.functional.one_hot(2 * hook.patients + hook.tiles.labels, 8).float()
    hook.k = 1
    alone = KNNProbeHook(cohort, k=1, patient_pattern=r'(\w+/TCGA.*)\.png')  # each is a patient
    assert alone.scores(features)['probe_knn'] == 1 > hook.scores(features)['probe_knn']


def test_windows_of_one_image_do_not_judge_each_other(tmp_path):
    for name in 'AB':
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new('RGB', (64, 64)).save(tmp_path / name / f'{i}.png')
    source = dict(type='Windows', root=str(tmp_path), size=32, labels=True)
    hook = KNNProbeHook(source, k=20)
    assert hook.patients.tolist() == [image for image in range(6) for _ in range(4)]
    assert hook.k == 20
    held = LinearProbeHook(source)
    assert not set(held.patients[held.kept].tolist()) & set(held.patients[held.held].tolist())
    features = torch.nn.functional.one_hot(hook.patients, 6).float()  # tells images, not classes
    hook.k = 1
    assert hook.scores(features)['probe_knn'] < 1
    with pytest.raises(UserError, match='finds no patient'):
        KNNProbeHook(source, patient_pattern='(P[0-9]+)')


def test_a_pattern_that_tells_no_patients_is_refused(cohort):
    with pytest.raises(UserError, match='hooks.KNNProbeHook.patient_pattern: .* finds no patient'):
        KNNProbeHook(cohort, patient_pattern='(P[0-9]+)')


def test_tiles_without_labels_are_refused(make_runner):
    hook = {**KNN, 'source': {'type': 'ImageFolder', 'root': 'data/demo/cmu1'}}
    with pytest.raises(UserError, match='no labels'):
        make_runner(f'hooks={[hook]}')


def test_one_tile_a_class_cannot_be_held_out(tmp_path):
    for name in ('TUMOR', 'STROMA'):
        tile = next((REPO / 'data/demo/kather2016' / name).iterdir())
        (tmp_path / name).mkdir()
        shutil.copy(tile, tmp_path / name)
    with pytest.raises(UserError, match='one tile only'):
        LinearProbeHook(dict(type='ImageFolder', root=str(tmp_path)))


@pytest.mark.parametrize('hook', [KNNProbeHook, LinearProbeHook])
def test_tiles_of_one_class_tell_nothing(hook, tmp_path):
    shutil.copytree(REPO / 'data/demo/kather2016/TUMOR', tmp_path / 'TUMOR')
    with pytest.raises(UserError, match=f'hooks.{hook.__name__}.source: all 9 labelled tiles are '
                                        'of one class'):
        hook(dict(type='ImageFolder', root=str(tmp_path)))
