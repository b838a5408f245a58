"""Training, resuming, several processes, and the files of a run."""

import json
import logging

import numpy as np
import pytest
import torch
from short_config import DETECTION, SHORT, TINY
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from openselfsup.checkpoints import BackboneRecord, load
from openselfsup.errors import UserError
from openselfsup.models.backbones.resnet import ResNet
from openselfsup.training.optimizer_step import OptimizerStep
from openselfsup.transfer.instance.data import InstanceDataset, batch_indices, training_batches
from openselfsup.transfer.instance.data_sets import Wanted, open_data_sets
from openselfsup.transfer.instance.job import Job
from openselfsup.transfer.instance.precise_bn import update_statistics
from openselfsup.transfer.instance.scoring import evaluate
from openselfsup.transfer.instance.solver import build_optimizer
from openselfsup.transfer.instance.torchvision_backend import TorchvisionBackend
from openselfsup.transfer.instance.weights import convert
from tests.transfer.messages import count_told


def backend(datasets, out, *more, config=SHORT, **job) -> TorchvisionBackend:
    out.mkdir(exist_ok=True)
    return TorchvisionBackend(Job(str(config), [*TINY, 'OUTPUT_DIR', str(out), *more],
                                  str(datasets), **job))


def opened(datasets, name='GlaS_train'):
    """Folder of images and truth of a data set."""
    data = open_data_sets(datasets, Wanted((), (name,), 1, True, 100))[0][name]
    return data.folder, data.truth


def test_data_sets_are_found_by_their_registered_names(datasets):
    folder, truth = opened(datasets, 'GlaS_testA')
    assert folder.name == 'test' and len(truth['images']) == 2
    sets, _ = open_data_sets(datasets, Wanted(('GlaS_train',), ('GlaS_test',), 1, True, 100))
    assert sets['GlaS_test'].subsets == {'testA': [1, 2], 'testB': [3]}
    with pytest.raises(UserError, match="GlaS_tset.*did you mean 'GlaS_test'"):
        opened(datasets, 'GlaS_tset')


def test_every_image_is_seen_once_a_pass_and_ranks_share_a_batch(datasets):
    seen = [i for step in range(5) for i in batch_indices(5, 4, step, seed=1)]
    assert all(sorted(seen[k:k + 5]) == list(range(5)) for k in range(0, 20, 5))
    data = InstanceDataset(*opened(datasets))
    whole = next(training_batches(data, 4, 3, 4, seed=1))
    parts = [next(training_batches(data, 4, 3, 4, 1, rank, 2)) for rank in (0, 1)]
    for a, b in zip(whole[0], parts[0][0] + parts[1][0], strict=True):
        assert torch.equal(a, b)


def test_a_flip_mirrors_image_boxes_and_masks(datasets):
    data = InstanceDataset(*opened(datasets))
    assert torch.equal(data.image(0, True), data.image(0).flip(2))
    plain, flipped = data.target(0), data.target(0, True)
    assert torch.equal(flipped['masks'], plain['masks'].flip(2))
    assert torch.equal(flipped['boxes'][:, 0], 96 - plain['boxes'][:, 2])
    mask = flipped['masks'][0]
    columns = mask.any(0).nonzero().flatten()
    assert flipped['boxes'][0, 0] == columns[0] and flipped['boxes'][0, 2] == columns[-1] + 1


@pytest.mark.parametrize('flip', [False, True])
def test_a_window_shows_its_part_of_image_and_objects(datasets, flip):
    data = InstanceDataset(*opened(datasets))
    places = np.random.default_rng(0).random((8, 2))
    counts = set()
    for place in places:
        window = data.window(0, (40, 56), place)
        top, left, bottom, right = window
        assert (bottom - top, right - left) == (40, 56) and bottom <= 96 and right <= 96
        image, target = data.image(0, flip, window), data.target(0, flip, window)
        part, masks = (x[:, top:bottom, left:right] for x in (data.image(0),
                                                              data.target(0)['masks']))
        masks = masks[masks.bool().flatten(1).any(1)]
        assert torch.equal(image, part.flip(2) if flip else part)
        assert torch.equal(target['masks'], masks.flip(2) if flip else masks)
        assert len(target['labels']) == len(target['boxes']) == len(masks)
        for mask, (x0, y0, x1, y1) in zip(target['masks'], target['boxes'].int().tolist()):
            inside = mask[y0:y1, x0:x1]
            assert inside.sum() == mask.sum()  # nothing outside, and no empty border inside
            assert all(inside.any(axis)[end] for axis in (0, 1) for end in (0, -1))
        counts.add(len(masks))
    assert len(counts) > 1  # some windows miss some objects
    assert data.window(0, (500, 20), places[0])[0::2] == (0, 96)


def test_batches_of_windows(datasets):
    data = InstanceDataset(*opened(datasets))
    images, targets = next(training_batches(data, 4, 0, 1, seed=1, crop=(48, 64)))
    assert all(i.shape == (3, 48, 64) for i in images)
    assert all(t['masks'].shape[1:] == (48, 64) for t in targets)
    assert len({tuple(i[:, 0, 0].tolist()) for i in images}) == 4


def test_interrupted_and_resumed_equals_uninterrupted(datasets, tmp_path):
    steps = ['SOLVER.MAX_ITER', '4', 'SOLVER.CHECKPOINT_PERIOD', '2', 'MODEL.FPN.NORM', 'BN']
    whole = backend(datasets, tmp_path / 'whole', *steps)
    whole.fit()
    again = backend(datasets, tmp_path / 'again', *steps)
    again.fit()
    # As if it had been killed after the second step.
    (tmp_path / 'again' / 'last_checkpoint').write_text('model_0000001.pth')
    (tmp_path / 'again' / 'model_final.pth').unlink()
    resumed = backend(datasets, tmp_path / 'again', *steps, resume=True)
    resumed.fit()
    assert resumed.trained['resumed_at'] == 2
    for (name, a), b in zip(whole.model.state_dict().items(),
                            resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    rows = [[json.loads(line)['iteration'] for line in (tmp_path / run / 'metrics.json'
                                                        ).read_text().splitlines()]
            for run in ('whole', 'again')]
    assert rows[0] == rows[1] == [4]


def test_a_finished_run_resumed_trains_nothing_and_keeps_its_figures(datasets, tmp_path, caplog,
                                                                   monkeypatch):
    monkeypatch.setattr(logging.getLogger('openselfsup'), 'propagate', True)
    caplog.set_level('INFO', 'openselfsup.transfer')
    first = backend(datasets, tmp_path, 'SOLVER.MAX_ITER', '2')
    first.fit()
    assert 'here it is BN, over 2 image(s) of each process' in caplog.text
    written = (tmp_path / 'model_final.pth').read_bytes()
    again = backend(datasets, tmp_path, 'SOLVER.MAX_ITER', '2', resume=True)
    again.fit()
    assert 'was finished' in caplog.text and again.trained == first.trained
    assert (tmp_path / 'model_final.pth').read_bytes() == written
    with pytest.raises(UserError, match='model_final.pth: SOLVER.MAX_ITER is 1, and this run was '
                       'trained for 2 iterations; expected 2 or more to --resume'):
        backend(datasets, tmp_path, 'SOLVER.MAX_ITER', '1', resume=True).fit()
    older = load(tmp_path / 'model_final.pth')
    del older['scaler']  # as earlier versions saved
    torch.save(older, tmp_path / 'model_final.pth')
    assert 'began with an earlier version' not in caplog.text
    further = backend(datasets, tmp_path, 'SOLVER.MAX_ITER', '3', resume=True)
    further.fit()
    assert further.trained['iterations'] == 3 and further.trained['resumed_at'] == 2
    assert count_told(caplog, 'began with an earlier version') == 1


def test_backbone_weights_arrive_and_nothing_starts_from_nothing(datasets, tmp_path):
    torch.manual_seed(5)
    body = ResNet(18)
    torch.save(dict(state_dict=body.state_dict()), tmp_path / 'backbone.pth')
    convert(tmp_path / 'backbone.pth', tmp_path / 'backbone.pkl')
    for name, count in (('backbone.pth', '120/120'), ('backbone.pkl', '100/100')):
        trained = backend(datasets, tmp_path / 'o', 'MODEL.WEIGHTS', str(tmp_path / name))
        assert count in trained.load_backbone()
        assert torch.equal(trained.model.backbone.body.layer4[1].conv2.weight,
                           body.layer4[1].conv2.weight)
    torch.save(dict(state_dict={'conv9.weight': torch.zeros(1)}), tmp_path / 'other.pth')
    with pytest.raises(UserError, match='no ResNet weights'):
        backend(datasets, tmp_path / 'o', 'MODEL.WEIGHTS', str(tmp_path / 'other.pth')
                ).load_backbone()
    moco = DETECTION / 'configs' / 'GlaS' / 'GlaS_R_18_FPN_1x_moco.yaml'
    with pytest.raises(UserError, match='none is given.*MODEL.WEIGHTS backbone.pkl'):
        backend(datasets, tmp_path / 'o', config=moco).load_backbone()
    assert 'random' in backend(datasets, tmp_path / 'o').load_backbone()
    for weights in ('', str(tmp_path / 'backbone.pkl')):
        with pytest.raises(UserError, match='no trained detector'):
            backend(datasets, tmp_path / 'o', 'MODEL.WEIGHTS', weights, eval_only=True
                    ).load_backbone()


@pytest.mark.parametrize(('given', 'said'), [
    ((), '"[178.5, 127.5, 153.0]" MODEL.PIXEL_STD "[51.0, 76.5, 25.5]"'),
    (('INPUT.FORMAT', 'BGR'), '"[153.0, 127.5, 178.5]" MODEL.PIXEL_STD "[25.5, 76.5, 51.0]"'),
    (('MODEL.PIXEL_MEAN', '[178.5, 127.5, 153.0]', 'MODEL.PIXEL_STD', '[51.0, 76.5, 25.5]'), '')])
def test_a_backbone_of_another_normalisation_says_so(datasets, tmp_path, caplog, given, said):
    record = BackboneRecord('', dict(type='ResNet', depth=18),
                            normalize=dict(mean=[0.7, 0.5, 0.6], std=[0.2, 0.3, 0.1]))
    path = tmp_path / 'own.pth'
    torch.save(dict(state_dict=ResNet(18).state_dict(), meta=dict(backbone=record.as_dict())), path)
    backend(datasets, tmp_path / 'o', 'MODEL.WEIGHTS', str(path), *given).load_backbone()
    told = list(dict.fromkeys(line for line in caplog.messages if 'normalised' in line))
    expected = (f'{path} wants images normalised otherwise, as in its training; '
                f'give MODEL.PIXEL_MEAN {said}')
    assert told == ([expected] if said else [])
    line, *told = convert(path, tmp_path / 'own.pkl').splitlines()  # pickles do not say so
    assert '100 tensors' in line and len(told) == 1 and '"[178.5, 127.5, 153.0]"' in told[0]


def test_a_loss_that_is_not_finite_stops_the_run_by_name(datasets, tmp_path):
    spoilt = backend(datasets, tmp_path, 'SOLVER.MAX_ITER', '2')
    with torch.no_grad():
        spoilt.model.roi_heads.mask_predictor.mask_fcn_logits.bias.fill_(torch.nan)
    with pytest.raises(UserError, match='iteration 1: loss_mask = nan is not finite.*'
                                        'nothing was saved yet, try'):
        spoilt.fit()


def test_amp_computes_layers_in_bfloat16_and_losses_in_float32(datasets, tmp_path):
    run = backend(datasets, tmp_path, amp='bf16')
    seen: dict = {}
    for name in ('backbone.body.layer1', 'rpn.head', 'roi_heads.box_predictor'):
        run.model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.setdefault(name, output))
    batch = next(run._batches(run._training_data(), 0, 1))
    step = OptimizerStep(build_optimizer(run.config, run.model), run.device, run.amp)
    losses = run._step(run.model.train(), step, batch, 0.01, 0)
    assert seen['backbone.body.layer1'].dtype is torch.bfloat16
    assert seen['rpn.head'][0][0].dtype is torch.float32
    assert seen['roi_heads.box_predictor'][0].dtype is torch.float32
    assert len(losses) == 5 and all(v.dtype is torch.float32 for v in losses.values())


@pytest.mark.parametrize('fast', [True, False])
def test_the_switch_computes_in_bf16_where_the_device_does(datasets, tmp_path, monkeypatch, fast):
    monkeypatch.setattr('openselfsup.training.precision.computes_in_bf16', lambda device: fast)
    run = backend(datasets, tmp_path, 'SOLVER.AMP.ENABLED', 'True')
    assert run.amp == ('bf16' if fast else 'off')
    assert not any('imitates' in note for note in run.notes)


@pytest.mark.parametrize('warmup, told', [('10', False), ('20', True), ('1000', True)])
def test_a_warm_up_that_does_not_end_is_told(datasets, tmp_path, warmup, told):
    options = 'SOLVER.WARMUP_ITERS', warmup, 'SOLVER.MAX_ITER', '20'
    run = backend(datasets, tmp_path, *options)
    assert any(f'the warm-up of {warmup} iterations does not end in this run of 20, whose '
               in note for note in run.notes) is told
    assert not any('warm-up' in note for note in backend(
        datasets, tmp_path, *options, eval_only=True).notes)


def test_the_command_lines_precision_counts_before_the_switch(datasets, tmp_path):
    switched = backend(datasets, tmp_path, 'SOLVER.AMP.ENABLED', 'True', amp='off')
    assert switched.amp == 'off' and switched.info()['precision'] == 'float32'
    assert backend(datasets, tmp_path, amp='bf16').info()['precision'] == 'bfloat16'
    with pytest.raises(UserError, match='--amp: fp16 needs a GPU'):
        backend(datasets, tmp_path, amp='fp16')


def test_sizes_are_drawn_in_training_and_fixed_in_testing(datasets, tmp_path):
    resize = backend(datasets, tmp_path).model.transform.train()
    torch.manual_seed(0)
    image = torch.rand(3, 64, 96)
    drawn = {tuple(resize.resize(image)[0].shape[1:]) for _ in range(300)}
    assert {h for h, _ in drawn} == set(range(64, 97))
    assert all(abs(w - 1.5 * h) <= 1 for h, w in drawn)
    assert {tuple(resize.eval().resize(image)[0].shape[1:]) for _ in range(5)} == {(64, 96)}
    masks = (torch.rand(3, 64, 96) > 0.5).to(torch.uint8)
    target = dict(boxes=torch.tensor([[0., 0., 9., 9.]]), masks=masks)
    resize.test_sizes = (71,)
    ours = resize.resize(image, dict(target))[1]
    theirs = GeneralizedRCNNTransform.resize(resize, image, dict(target))[1]
    assert torch.equal(ours['masks'], theirs['masks']) and ours['masks'].shape == (3, 71, 106)
    assert torch.equal(ours['boxes'], theirs['boxes'])
    assert resize.resize(image, dict(target, masks=masks[:0]))[1]['masks'].shape == (0, 71, 106)
    chosen = backend(datasets, tmp_path, 'INPUT.MIN_SIZE_TRAIN_SAMPLING', 'choice')
    resize = chosen.model.transform.train()
    assert {resize.resize(image)[0].shape[1] for _ in range(40)} == {64, 96}


def test_precise_bn_is_the_mean_over_batches():
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(2)
    norm.running_mean.fill_(9)
    batches = [torch.randn(4, 2, 3, 3) + i for i in range(3)]
    assert update_statistics(norm.train(), batches, norm) == 1
    torch.testing.assert_close(norm.running_mean,
                               torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack(
        [b.transpose(0, 1).flatten(1).var(1) for b in batches]).mean(0))
    assert norm.momentum == 0.1 and update_statistics(norm.eval(), batches, norm) == 0


def assert_close(first, second):
    """Two trees of scores are equal up to rounding."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_close(first[key], second[key])
    else:
        assert first == pytest.approx(second, rel=1e-5) if first is not None else second is None


def test_a_run_leaves_scores_pictures_and_a_model_that_scores_the_same(datasets, tmp_path):
    steps = ['SOLVER.MAX_ITER', '2', 'MODEL.ROI_HEADS.SCORE_THRESH_TEST', '0.0']
    first = backend(datasets, tmp_path / 'a', *steps)
    first.fit()
    outcome = evaluate(first)['GlaS_test']
    assert set(outcome['scores']) == {'all', 'testA', 'testB'}
    assert outcome == json.loads((tmp_path / 'a' / 'results.json').read_text())
    model = tmp_path / 'a' / 'model_final.pth'
    second = backend(datasets, tmp_path / 'b', *steps, 'MODEL.WEIGHTS', str(model), eval_only=True)
    second.load_backbone()
    again = evaluate(second, compare=[outcome])['GlaS_test']
    # One thread or two round differently.
    assert_close(again['scores'], outcome['scores'])
    assert_close(again['images'], outcome['images'])
    page = (tmp_path / 'b' / 'index.html').read_text()
    assert page.count('<img') == 3 and page.count('from random weights, 2 iterations') == 2
    worst = min(outcome['images'], key=lambda n: outcome['images'][n]['dice'])
    assert f'src="overlays/01_{worst.split(".")[0]}.png"' in page
    assert load(model)['iteration'] == 2


def test_a_detector_is_not_evaluated_on_images_normalised_otherwise(datasets, tmp_path):
    mean, words = '[178.5, 127.5, 153.0]', ('SOLVER.MAX_ITER', '1')
    backend(datasets, tmp_path / 'a', *words, 'MODEL.PIXEL_MEAN', mean).fit()
    model = str(tmp_path / 'a/model_final.pth')
    trained, other = (backend(datasets, tmp_path / 'b', *words, *given, 'MODEL.WEIGHTS', model,
                              eval_only=True) for given in (('MODEL.PIXEL_MEAN', mean), ()))
    assert f'of the detector {model}' in trained.load_backbone()
    with pytest.raises(UserError, match=r'model_final.pth: this detector was trained with another '
                                        r'MODEL.PIXEL_MEAN; expected MODEL.PIXEL_MEAN "\[178.5'):
        other.load_backbone()


def test_retinanet_finds_boxes(datasets, tmp_path):
    config = DETECTION / 'configs' / 'GlaS' / 'GlaS_R_18_RetinaNet_1x.yaml'
    retina = backend(datasets, tmp_path, 'SOLVER.MAX_ITER', '1', config=config)
    retina.fit()
    results = retina.predict('GlaS_test')
    assert all('segmentation' not in r and len(r['bbox']) == 4 for r in results)
    retina.predict = lambda name: []
    for _ in range(2):  # without detections, and with those it made
        scores = evaluate(retina)['GlaS_test']['scores']['all']
        assert scores['bbox']['AP'] is not None and set(scores) == {'bbox'}
        retina.predict = lambda name: results


def test_a_changed_config_is_told_and_used_when_a_run_goes_on(datasets, tmp_path, caplog,
                                                              monkeypatch):
    monkeypatch.setattr(logging.getLogger('openselfsup'), 'propagate', True)
    backend(datasets, tmp_path, 'SOLVER.MAX_ITER', '1').fit()
    again = backend(datasets, tmp_path, 'SOLVER.MAX_ITER', '2', 'SOLVER.WEIGHT_DECAY', '0.5',
                    resume=True)
    used = []
    monkeypatch.setattr(torch.optim.SGD, 'step', lambda self, *rest: used.append(
        [group['weight_decay'] for group in self.param_groups]))
    again.fit()
    assert used == [[0.5, 0.0]]
    assert 'SOLVER.WEIGHT_DECAY was 0.0001, is now 0.5' in caplog.text


@pytest.mark.slow
def test_learns_synthetic_glands_from_scratch(tmp_path):
    from openselfsup.datasets.prepare.glands import prepare_glas
    from openselfsup.datasets.prepare.report import Report
    from openselfsup.datasets.prepare.synthetic import write_glas_layout
    torch.set_num_threads(2)
    prepare_glas(write_glas_layout(tmp_path / 'src'), tmp_path / 'ds', Report('GlaS'))
    run = TorchvisionBackend(Job(str(SHORT), ['OUTPUT_DIR', str(tmp_path / 'o')],
                                 str(tmp_path / 'ds')))
    (tmp_path / 'o').mkdir()
    run.fit()
    assert evaluate(run)['GlaS_test']['scores']['all']['segm']['AP'] >= 0.6
