"""What holds for every method, whatever it computes."""

import pytest
import torch
from methods import CASES, METHODS, build
from toy_model import asked_for, batch_for, train_step

from openselfsup.checkpoints import backbone_state_dict, describe_backbone, load, save
from openselfsup.checkpoints.counts import tensors_of, tensors_of_checkpoint
from openselfsup.errors import UserError
from openselfsup.models.method import Progress, check_method
from openselfsup.models.norm import SplitBN
from openselfsup.models.parts import total_loss
from openselfsup.registry import ALGORITHMS
from openselfsup.training.optimizers import build_optimizer

ROWS = 8
# Those that need to know where views lie.
LOCATED = 'PLM', 'ConCL', 'PLMConCL', 'VICRegL', 'PLMVICRegL', 'PLMSimCLR'


def test_every_registered_method_has_a_row():
    registered = {ALGORITHMS.get(name) for name in ALGORITHMS.names()
                  if ALGORITHMS.get(name).__module__.startswith('openselfsup.')}
    assert registered == {ALGORITHMS.get(row['type']) for row in METHODS.values()}, (
        'tests/models/methods.py needs one row for each method')


@pytest.mark.parametrize('name', METHODS)
def test_it_has_what_training_asks_for(name):
    method = build(METHODS[name])
    check_method(method)
    assert method.features is None and method.backbone.out_channels[-1] == 24
    assert method.needs_geometry == (name in LOCATED)
    views, maps = batch_for(method, ROWS)
    asked = asked_for(method, ROWS)
    if method.needs_geometry:
        with pytest.raises(UserError, match='view_to_tile'):
            method(views, None, **asked)
    else:
        assert method(views, None, **asked).keys() == method(views, maps, **asked).keys()


@pytest.mark.parametrize('name', METHODS)
def test_monitors_are_plain_numbers_and_losses_are_not(name):
    method = build(METHODS[name])
    views, maps = batch_for(method, ROWS)
    outputs = method(views, maps, **asked_for(method, ROWS))
    assert any(key.startswith('loss') for key in outputs)
    for key, value in outputs.items():
        assert value.shape == () and value.dtype == torch.float32 and value.isfinite(), key
        assert value.requires_grad == key.startswith('loss'), key
    assert 0 < outputs['feature_std'] < 1.1
    if method.features is not None:
        assert method.features.shape in ((ROWS, 16), (ROWS, 24))
        assert not method.features.requires_grad


@pytest.mark.parametrize('name', METHODS)
def test_every_parameter_that_is_trained_has_a_gradient(name):
    method = build(METHODS[name])
    views, maps = batch_for(method, ROWS)
    _, gradients = train_step(method, views, maps)
    assert gradients.keys() == {key for key, value in method.named_parameters()
                                if value.requires_grad}


@pytest.mark.parametrize('name', METHODS)
def test_losses_stay_in_float32_under_autocast(name):
    torch.manual_seed(2)
    views, maps = batch_for(build(METHODS[name]), ROWS)
    # Tiles and places in them that differ, so that a gradient is no noise.
    tiles = 3 * (torch.randn(ROWS, 3, 1, 1) + torch.randn(ROWS, 3, 4, 4).repeat_interleave(
        14, 2).repeat_interleave(14, 3))
    views = [view + tiles[..., :view.shape[-2], :view.shape[-1]] for view in views]
    exact, half = build(METHODS[name]), build(METHODS[name])
    half.load_state_dict(exact.state_dict())
    torch.manual_seed(3)  # what a method draws is the same in both
    expected, gradients = train_step(exact, views, maps)
    torch.manual_seed(3)
    with torch.autocast('cpu', torch.bfloat16):
        outputs, half_gradients = train_step(half, views, maps)
    for key, value in outputs.items():
        assert value.dtype == torch.float32
        if key.startswith('loss'):
            torch.testing.assert_close(value, expected[key], rtol=0.03, atol=0)
    ours, theirs = (torch.cat([gradient.flatten() for gradient in found.values()])
                    for found in (half_gradients, gradients))
    assert (ours - theirs).norm() < 0.1 * theirs.norm()
    assert not any(value.dtype == torch.bfloat16 for value in half.state_dict().values())


@pytest.mark.parametrize('name', METHODS)
def test_evaluation_changes_nothing(name):
    method = build(METHODS[name], SplitBN(16, 2)).eval()
    views, maps = batch_for(method, ROWS)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    with torch.no_grad():
        outputs = method(views, maps, **asked_for(method, ROWS))
    assert all(value.isfinite() for value in outputs.values())
    for key, value in method.state_dict().items():
        assert torch.equal(value, before[key]), key


def steps(method, optimizer, numbers):
    """Take the steps of these numbers, each seeded as a run seeds it; return the last outputs."""
    for number in numbers:
        views, maps = batch_for(method, ROWS, number)
        torch.manual_seed(100 + number)
        optimizer.zero_grad()
        method.begin_step(Progress(0, number, 8, 8))
        outputs = method(views, maps, **asked_for(method, ROWS, number))
        total_loss(outputs).backward()
        optimizer.step()
        method.end_step()
    return outputs


@pytest.mark.parametrize('case', CASES)
def test_a_checkpoint_holds_all_that_the_next_step_needs(case, tmp_path):
    def start(seed):
        torch.manual_seed(seed)
        method = build(CASES[case], SplitBN(16, 2))
        trained = [p for p in method.parameters() if p.requires_grad]
        return method, torch.optim.SGD(trained, lr=0.1, momentum=0.9)

    through, optimizer = start(0)
    steps(through, optimizer, [0, 1])
    save(dict(state_dict=through.state_dict(), optimizer=optimizer.state_dict()),
         tmp_path / 'step2.pth')
    resumed, its_optimizer = start(1)
    found = load(tmp_path / 'step2.pth')
    resumed.load_state_dict(found['state_dict'])
    its_optimizer.load_state_dict(found['optimizer'])
    ours, theirs = (steps(*run, [2, 3]) for run in ((through, optimizer),
                                                    (resumed, its_optimizer)))
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert value.equal(theirs[key]), key
    for key, value in through.state_dict().items():
        assert value.equal(resumed.state_dict()[key]), key


@pytest.mark.parametrize('optimizer_names', [True, False])
@pytest.mark.parametrize('name', METHODS)
def test_its_checkpoint_is_counted_as_it_is_itself(name, optimizer_names):
    method = build(METHODS[name], torch.nn.BatchNorm2d(16))
    checkpoint = dict(state_dict=method.state_dict())
    if optimizer_names:
        checkpoint['optimizer'] = build_optimizer(method, dict(type='SGD'), 0.1).state_dict()
    ours, theirs = ([sum(entry.size for entry in entries if getattr(entry, kind))
                     for kind in ('is_parameter', 'trainable', 'size')]
                    for entries in (tensors_of(method), tensors_of_checkpoint(checkpoint)))
    assert ours[::2] == theirs[::2] and ours[1] > 0
    # Without the optimiser nothing tells that the norms of prototypes are not trained.
    assert ours[1] == theirs[1] or not optimizer_names and METHODS[name]['type'] in (
        'DINO', 'iBOT', 'DINOv2') and ours[1] < theirs[1] < theirs[0]


@pytest.mark.parametrize('name', METHODS)
def test_its_checkpoint_says_where_the_backbone_is(name):
    method = build(METHODS[name])
    cfg = dict(model=dict(dict(backbone=dict(type='ToyBackbone')), **METHODS[name]))
    record = describe_backbone(method, cfg)
    assert record['config'] == cfg['model']['backbone']
    assert record['out_channels'] == method.backbone.out_channels
    state, _ = backbone_state_dict(dict(state_dict=method.state_dict(),
                                        meta=dict(backbone=record)))
    own = method.backbone.state_dict()
    assert state.keys() == own.keys() and all(own[key].equal(state[key]) for key in own)


WITH_DENSE_NECK = [name for name, row in METHODS.items()
                   if row.get('neck', {}).get('type') == 'DenseCLNeck']
WITH_NECK = [name for name, row in METHODS.items()
             if row.get('neck', {}).get('type', '').startswith('NonLinear')]


@pytest.mark.parametrize('name', WITH_DENSE_NECK + WITH_NECK)
def test_a_neck_of_the_wrong_kind_is_named(name):
    dense = name in WITH_DENSE_NECK
    wrong = dict(type='NonLinearNeck' if dense else 'DenseCLNeck', in_channels=24,
                 hid_channels=24, out_channels=METHODS[name]['neck']['out_channels'])
    method = build(METHODS[name] | dict(neck=wrong))
    views, maps = batch_for(method, ROWS)
    with pytest.raises(UserError, match='does not project cells' if dense else 'more than one'):
        method(views, maps, **asked_for(method, ROWS))


@pytest.mark.parametrize('name', ('PLM', 'PLMConCL', 'PLMVICRegL', 'PLMSimCLR'))
@pytest.mark.parametrize('neck', (dict(type='MatchingNeck', channels=8), dict(
    type='AttentionMatchingNeck', channels=8, mid_channels=4)))
def test_a_matching_neck_of_another_size_is_named(name, neck):
    with pytest.raises(UserError, match='takes 8 channels, cells are projected to 16'):
        build(METHODS[name] | dict(matching_neck=neck))
