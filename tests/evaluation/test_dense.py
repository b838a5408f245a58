"""Dense evaluation: labels of patches, scores of pixels, probes, files and the command."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from openselfsup.cli.main import execute
from openselfsup.errors import UserError
from openselfsup.evaluation.baselines import ColourStatistics
from openselfsup.evaluation.dense.data import DenseData, find_dense_data
from openselfsup.evaluation.dense.features import (
    Layers,
    PatchColours,
    find_layers,
    join,
    patch_features,
)
from openselfsup.evaluation.dense.masks import IGNORED, Codes, find_codes, pair_up
from openselfsup.evaluation.dense.measure import measure
from openselfsup.evaluation.dense.probes import (
    PENALTIES,
    Patches,
    draw_patches,
    fit_linear,
    patch_labels,
    upsample,
)
from openselfsup.evaluation.dense.results import ARRAYS, read_dense
from openselfsup.evaluation.dense.scores import (
    bootstrap,
    confusion,
    paired_difference,
    scores_of,
)
from openselfsup.evaluation.logistic import principal_axes, solve
from openselfsup.evaluation.networks import build
from openselfsup.evaluation.sampling import hold_out
from openselfsup.evaluation.settings import DENSE_PROTOCOLS

COLOURS = np.array([[230, 220, 230], [150, 60, 150]], np.float32)
PATCHES = [Layers('1', (1,), 8)]
PLAIN = dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), colours=True)


def write(folder: Path, count: int, first: int = 0, value: int = 255, side: int = 64,
          tossed: bool = False, ending: str = '') -> Path:
    """Write images of two colours, left and right of an edge, and masks that say which, or toss."""
    for i in range(first, first + count):
        rng = np.random.default_rng(i)
        y, x = np.mgrid[:side, :side]
        truth = (x + rng.uniform(-0.5, 0.5) * y > side * rng.uniform(0.3, 0.7)).astype(np.uint8)
        image = COLOURS[truth] + rng.normal(0, 8, (side, side, 3))
        said = rng.integers(0, 2, truth.shape, np.uint8) if tossed else truth
        for part, pixels in (('images', image.clip(0, 255).astype(np.uint8)[..., ::-1]),
                             ('masks', value * said)):
            name = f'P{i // 2}_{i}{ending if part == "masks" else ""}.png'
            (folder / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / part / name), pixels)
    return folder


@pytest.fixture(scope='session')
def folders(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp('dense')
    return write(root / 'train', 8), write(root / 'test', 6, 8)


def load(train: Path, test: Path, **more) -> DenseData:
    return find_dense_data(str(train / 'images'), str(train / 'masks'), str(test / 'images'),
                           str(test / 'masks'), patient_pattern=r'/(P\d+)_', **more)


masks = st.tuples(st.integers(4, 40), st.integers(4, 40)).flatmap(lambda size: arrays(
    np.uint8, size, elements=st.sampled_from([0, 1, 2, IGNORED])))


@given(masks, st.integers(1, 9), st.integers(1, 9))
def test_labels_of_patches_are_shares_of_the_pixels_in_them(truth, h, w):
    found = patch_labels(truth, (h, w), 3)
    counts = np.zeros((h, w, 3))
    for (y, x), label in np.ndenumerate(truth):
        if label != IGNORED:
            cell = int((y + 0.5) * h / truth.shape[0]), int((x + 0.5) * w / truth.shape[1])
            counts[(*cell, label)] += 1
    total = counts.sum(2)
    np.testing.assert_allclose(found * total[..., None], counts, atol=1e-3)
    np.testing.assert_allclose(found.sum(2), total > 0, atol=1e-5)
    drawn = draw_patches(found, 5, np.random.default_rng(0))
    assert len(drawn) == min(5, (total > 0).sum()) == len(np.unique(drawn))
    assert (total.ravel()[drawn] > 0).all()


@given(masks, st.integers(0, 9))
def test_confusion_agrees_with_a_count(truth, seed):
    found = np.random.default_rng(seed).integers(0, 3, truth.shape).astype(np.uint8)
    matrix = confusion(truth, found, 3)
    assert matrix.tolist() == [[int(((truth == t) & (found == f)).sum()) for f in range(3)]
                               for t in range(3)]
    scores = scores_of(matrix)
    counted = truth != IGNORED
    for c in range(3):
        t, f = (truth == c) & counted, (found == c) & counted
        if (t | f).any():
            assert scores['dice'][c] == pytest.approx(2 * (t & f).sum() / (t.sum() + f.sum()))
            assert scores['iou'][c] == pytest.approx((t & f).sum() / (t | f).sum())
        else:
            assert np.isnan(scores['dice'][c])
    if counted.any():
        assert scores['mdice'] == pytest.approx(np.nanmean(scores['dice']))


def test_bootstrap_redraws_whole_cases_and_the_same_ones_for_all():
    rng = np.random.default_rng(0)
    confusions = rng.integers(0, 50, (12, 2, 2))
    cases = np.repeat(np.arange(4), 3)
    draws = bootstrap(confusions, cases, 200)
    # A case at a time: images of one case summed beforehand give the same values.
    summed = confusions.reshape(4, 3, 2, 2).sum(1)
    np.testing.assert_allclose(draws['mdice'], bootstrap(summed, np.arange(4), 200)['mdice'])
    values = {round(float(v), 9) for v in draws['mdice']}
    assert 10 < len(values) <= 35  # multisets of four of four cases
    better = confusions + 20 * np.eye(2, dtype=int)
    found = paired_difference(bootstrap(better, cases, 200)['mdice'], draws['mdice'])
    assert 0 < found.low < found.high and found.better == 1
    assert paired_difference(draws['mdice'], draws['mdice']) == (0, 0, 0)
    with pytest.raises(ValueError, match='not the same'):
        paired_difference(draws['mdice'], draws['mdice'][:100])


def test_a_soft_label_is_fitted_like_copies_of_each_class_weighted_by_their_share():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator)
    shares = torch.rand(200, 2, generator=generator).softmax(1)
    axes, penalties = principal_axes(x, torch.float64), torch.tensor([0.01])
    soft = solve(x, axes, shares, 2, penalties, tolerance=1e-6)
    hard = solve(x.repeat(2, 1), axes, torch.arange(2).repeat_interleave(200), 2, penalties,
                 shares.T.reshape(1, -1), tolerance=1e-6)
    torch.testing.assert_close(soft, hard, atol=1e-3, rtol=0)


def test_distributions_are_interpolated_before_the_largest_is_taken():
    share = torch.tensor([[1.0, 0.4]])
    found = upsample(torch.stack([1 - share, share], 2), (1, 8))
    assert found.tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]


@pytest.mark.parametrize('tossed', (False, True))
def test_colour_tells_classes_of_different_colour_and_no_others(tmp_path, tossed):
    data = load(write(tmp_path / 'train', 8, tossed=tossed),
                write(tmp_path / 'test', 6, 8, tossed=tossed))
    for one in measure(PatchColours(ColourStatistics(), [8]), data, PATCHES, **PLAIN):
        dice = float(scores_of(one.confusions.sum(0))['mdice'])
        assert 0.3 < dice < 0.53 if tossed else dice > 0.93, (one.protocol, dice)


def test_labels_of_the_test_change_no_choice_and_no_prediction(folders, tmp_path):
    data = load(*folders), load(folders[0], write(tmp_path / 'test', 6, 8, tossed=True))
    network = build(dict(type='ResNet', depth=18))
    for backbone, layers, more in (
            (PatchColours(ColourStatistics(), [8]), PATCHES, PLAIN),
            (network, find_layers(network, ['last2']), {})):
        first, second = (measure(backbone, one, layers, keep=range(6), **more) for one in data)
        for a, b in zip(first, second):
            assert a.fitted.chosen == b.fitted.chosen
            assert len(a.predictions) == 6
            for i, found in a.predictions.items():
                np.testing.assert_array_equal(found, b.predictions[i])
            assert (a.confusions != b.confusions).any()


def test_maps_of_a_backbone(folders):
    network = build(dict(type='ResNet', depth=18))
    found = find_layers(network, ['last2', '3+4', '3', 'all'])
    assert [(one.name, one.numbers, one.stride) for one in found] == [
        ('3+4', (3, 4), 16), ('3', (3,), 16), ('1+2+3+4', (1, 2, 3, 4), 4)]
    data = load(*folders)
    batches = list(patch_features(network, data.train, found, 2.0, 4, (0.5,) * 3, (0.5,) * 3))
    assert network.out_indices == (4,) and [len(indices) for indices, _ in batches] == [4, 4]
    assert [tuple(m.shape) for m in batches[0][1]] == [
        (4, 768, 8, 8), (4, 256, 8, 8), (4, 960, 32, 32)]
    lengths = torch.stack([m[:, :256].square().sum(1) for m in (batches[0][1][0],)])
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    with pytest.raises(UserError, match="'5' names no feature maps.*numbers from 1 to 4"):
        find_layers(network, ['5'])


def test_coarser_maps_are_laid_over_the_finest():
    fine, coarse = torch.rand(1, 2, 4, 4), torch.rand(1, 3, 2, 2)
    joined = join([fine, coarse], (1, 2))
    assert joined.shape == (1, 5, 4, 4)
    torch.testing.assert_close(join([fine, coarse], (1,)), fine)
    flat = torch.ones(1, 3, 2, 2) / 3 ** 0.5
    torch.testing.assert_close(join([fine, flat], (1, 2))[:, 2:], torch.full((1, 3, 4, 4),
                                                                            3 ** -0.5))


def test_masks_beside_their_images_and_of_instances(tmp_path):
    write(tmp_path, 3, value=7, ending='_anno')
    for path in (tmp_path / 'masks').iterdir():
        path.rename(tmp_path / 'images' / path.name)
    folder = str(tmp_path / 'images')
    pairs = pair_up(folder, folder, '--train')
    assert [(Path(a).stem + '_anno', Path(b).stem) for a, b in pairs] == [
        (f'P{i // 2}_{i}_anno',) * 2 for i in range(3)]
    codes, said, _ = find_codes(pairs, True)
    assert codes.classes == ('background', 'foreground') and 'ids of objects' in said
    assert codes.labels(np.array([[0, 7, 300]]), '').tolist() == [[0, 1, 1]]
    codes, said, _ = find_codes(pairs, False)
    assert codes == Codes(('0', '7'), (0, 7)) and said.endswith('class: 0, 7.')


def test_pixels_of_255_do_not_count_where_there_are_classes(tmp_path):
    folder = write(tmp_path, 2, value=1)
    path = str(next((folder / 'masks').iterdir()))
    mask = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    mask[:8] = 255
    cv2.imwrite(path, mask)
    codes, said, values = find_codes(pair_up(str(folder / 'images'), str(folder / 'masks'), ''),
                                     False)
    assert sorted(map(sorted, values)) == [[0, 1], [0, 1, 255]]
    assert codes == Codes(('0', '1'), (0, 1), 255) and 'pixels of 255 do not count' in said
    assert (codes.labels(mask, path)[:8] == IGNORED).all()


@pytest.mark.parametrize('images', [(3,), (0, 7)])
def test_an_image_of_each_class_stays_to_be_learnt_from(tmp_path, images):
    folder = write(tmp_path, 8, value=1)
    masks = sorted((folder / 'masks').iterdir())
    for i in images:
        mask = cv2.imread(str(masks[i]), cv2.IMREAD_UNCHANGED)
        mask[:9, :9] = 2
        cv2.imwrite(str(masks[i]), mask)
    noted = set()
    for seed in range(8):
        data = find_dense_data(str(folder / 'images'), str(folder / 'masks'), share=0.3, seed=seed)
        has = [[(part.read_labels(i) == 2).any() for i in range(len(part))]
               for part in (data.train, data.test)]
        assert data.classes == ['0', '1', '2'] and any(has[0]) and len(data.test)
        note = any(text.startswith('No test image has 2') for text in data.notes)
        assert note != any(has[1])
        noted.add(note)
    assert noted == ({True} if len(images) == 1 else {True, False})
    for i in range(8):  # now every image but one is all that there is of a class
        mask = cv2.imread(str(masks[i]), cv2.IMREAD_UNCHANGED)
        mask[:9, :9] = 2 + i
        cv2.imwrite(str(masks[i]), mask)
    with pytest.raises(UserError, match='no image can be held out.* all that there is of some'):
        find_dense_data(str(folder / 'images'), str(folder / 'masks'), share=0.3)


def test_whole_patients_are_held_out(folders):
    train = folders[0]
    data = find_dense_data(str(train / 'images'), str(train / 'masks'), share=0.5,
                           patient_pattern=r'/(P\d+)_')
    assert len(data.train) + len(data.test) == 8 and len(data.test) == 4
    assert not set(data.train_patients) & set(data.test_patients)
    assert len(np.unique(data.cases('test'))) == len(set(data.test_patients))


def damage(folder: Path, how: str) -> None:
    mask, image = (sorted((folder / part).iterdir())[0] for part in ('masks', 'images'))
    if how == 'alone':
        mask.unlink()
    elif how == 'extra':
        image.unlink()
    elif how == 'size':
        cv2.imwrite(str(mask), np.zeros((40, 64), np.uint8))
    elif how == 'value':
        cv2.imwrite(str(mask), np.full((64, 64), 9, np.uint8))
    elif how == 'colour':
        cv2.imwrite(str(mask), np.full((64, 64, 3), (1, 2, 3), np.uint8))
    elif how == 'one class':
        for path in (folder / 'masks').iterdir():
            cv2.imwrite(str(path), np.full((64, 64), 1, np.uint8))
    elif how == 'ids':
        cv2.imwrite(str(mask), np.arange(4096, dtype=np.uint16).reshape(64, 64))


@pytest.mark.parametrize(('part', 'how', 'message'), [
    ('train', 'alone', 'P0_0.png: has no mask'),
    ('test', 'extra', 'P4_8.png: is a mask without an image'),
    ('train', 'size', '64 x 40 px, its image .* 64 x 64 px'),
    ('test', 'size', '64 x 40 px'),
    ('test', 'value', 'holds the value 9, which no training mask has; expected 0, 255'),
    ('train', 'colour', 'holds colours; expected one value a pixel'),
    ('train', 'one class', 'one class only: the values 1'),
    ('train', 'ids', 'hold 4095 values.*--instances')])
def test_what_cannot_be_used_is_refused(tmp_path, part, how, message):
    folders = write(tmp_path / 'train', 4), write(tmp_path / 'test', 2, 8)
    damage(tmp_path / part, how)
    with pytest.raises(UserError, match=message):
        load(*folders)


def test_shared_images_and_patients_are_refused(folders, tmp_path):
    with pytest.raises(UserError, match='1 of 1 test patients.*are in the training part'):
        load(folders[0], write(tmp_path / 'test', 2))
    train, test = folders
    with pytest.raises(UserError, match='--train_masks'):
        find_dense_data(str(train / 'images'), None)
    with pytest.raises(UserError, match='exclude each other'):
        load(train, test, share=0.3)
    with pytest.raises(UserError, match='1.5 is no share'):
        find_dense_data(str(train / 'images'), str(train / 'masks'), share=1.5)


def run(folders: tuple[Path, Path], out: Path, *more: str) -> None:
    train, test = folders
    execute('evaluate', ['--dense', '--train', str(train / 'images'), '--train_masks',
                         str(train / 'masks'), '--test', str(test / 'images'), '--test_masks',
                         str(test / 'masks'), '--patient_pattern', r'/(P\d+)_', '--out', str(out),
                         '--default_device', 'cpu', *more])


def test_the_command(folders, weights, tmp_path, capsys):
    out = tmp_path / 'out'
    command = ['--model_path', str(weights), '--dense_layers', 'last2', '3']
    run(folders, out, *command)
    printed = capsys.readouterr().out
    assert 'mDice' in printed and '0 and 255 alone' in printed
    results = read_dense(out)
    assert results.notes[0].startswith('The masks hold') and len(results.model['sha256']) == 64
    assert [(r.features, r.layers, r.protocol) for r in results.rows] == [
        (features, layers, probe)
        for features in ('checkpoint', 'random init', 'colour mean / sd', 'colour histogram')
        for layers in ('3+4', '3') for probe in DENSE_PROTOCOLS]
    with np.load(out / ARRAYS) as file:
        found = dict(file)
    for i, row in enumerate(results.rows):
        assert sum(map(sum, row.confusion)) == 6 * 64 ** 2
        assert (found['confusions'][i].sum(0) == row.confusion).all()
        score = row.scores['mdice']
        assert 0 <= score['low'] <= score['value'] <= score['high'] <= 1
        np.testing.assert_allclose(np.quantile(found['draws_mdice'][i], 0.025), score['low'],
                                   rtol=1e-6)
    page = (out / 'dense.html').read_text()
    assert 'dense-knn-v1' in page and page.count('<img') == 2
    with pytest.raises(UserError, match=r'scales was \[1.0\] and is \[2.0\]'):
        run(folders, out, *command, '--dense_scale', '2')


def test_rows_survive_an_interruption(folders, tmp_path, monkeypatch):
    from openselfsup.evaluation.dense import evaluate
    done = []

    def stop(*arguments, **options):
        if done:
            raise KeyboardInterrupt
        done.append(True)
        return measure(*arguments, **options)
    monkeypatch.setattr(evaluate, 'measure', stop)
    data, out = load(*folders), tmp_path / 'out'
    with pytest.raises(KeyboardInterrupt):
        evaluate.DenseEvaluation(evaluate.DenseSettings(out, say=str), data).run()
    found = json.loads((out / 'dense.json').read_text())
    assert len(found['rows']) == 2 and 'has not finished' in found['notes'][0]
    monkeypatch.undo()  # the same again is welcome, and finds the same
    again = evaluate.DenseEvaluation(evaluate.DenseSettings(out, say=str), data).run()
    assert len(again.rows) == 6 and not any('not finished' in note for note in again.notes)
    assert [row.confusion for row in again.rows[:2]] == [r['confusion'] for r in found['rows']]


def test_flags_that_have_no_use_are_refused(folders, tmp_path):
    with pytest.raises(UserError, match='--labeled_train has no use with --dense'):
        run(folders, tmp_path, '--labeled_train', '0.1')
    with pytest.raises(UserError, match='--dense_scale without --dense'):
        execute('evaluate', ['--train', 'x', '--dense_scale', '2'])
    with pytest.raises(UserError, match="(?s)did you mean 'dense-knn-v1'.*: 9 is out of range"):
        run(folders, tmp_path, '--protocols', 'dense-knn', '--dense_scale', '9')


def test_of_a_single_case_patches_choose_the_penalty():
    rng = np.random.default_rng(0)
    truth = rng.random(600) < 0.15
    features = torch.from_numpy(truth[:, None] + rng.normal(0, 0.3, (600, 3))).float()
    shares = torch.nn.functional.one_hot(torch.from_numpy(truth).long(), 2).float()
    found = fit_linear(Patches(features, shares, np.zeros(600, np.int64)), np.arange(1), 0, False)
    assert found.chosen['validated_by'] == 'patches' and found.chosen['penalty'] < PENALTIES[0]
    assert (found.probabilities(features).argmax(1).numpy()[truth] == 1).mean() > 0.8


def test_a_penalty_that_calls_all_patches_one_class_is_not_chosen():
    """Masks of the few cases that validate are often wrong: of little confidence is not of use."""
    cases, each = np.arange(10), 200
    images = np.repeat(cases, each)
    truth = np.arange(len(images)) % 4 > 0  # three of four are foreground
    features = torch.from_numpy(truth)[:, None].float() * 2 - 1
    _, held = hold_out(np.zeros(10, np.int64), 0.2, 0, cases)
    wrong = np.isin(images, held) & (np.arange(len(images)) % 5 < 2)
    shares = torch.nn.functional.one_hot(torch.from_numpy(truth ^ wrong).long(), 2).float()
    found = fit_linear(Patches(features, shares, images), cases, 0, False)
    kinds = found.probabilities(torch.tensor([[-1.], [1.]])).argmax(1)
    assert kinds.tolist() == [0, 1]
    assert found.chosen['penalty'] < PENALTIES[0] and found.chosen['validation_mdice'] > 0.5
