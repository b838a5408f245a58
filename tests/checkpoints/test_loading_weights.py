import pytest
import torch
import torchvision

from openselfsup.checkpoints import (
    backbone_state_dict,
    check_training_state,
    load_backbone_weights,
    save,
)
from openselfsup.errors import UserError


def body(name: str = 'resnet18') -> torch.nn.Module:
    model = torchvision.models.get_model(name)
    del model.fc
    return model


def test_everything_matches_and_is_loaded(tmp_path, plm_state):
    path = tmp_path / 'plm.pth'
    save(dict(state_dict=plm_state, meta=dict(epoch=200)), path)
    model = body()
    report = load_backbone_weights(model, path)
    assert str(report) == f'120/120 tensors matched (published PLM checkpoint {path})'
    assert (report.matched, report.expected, report.missing, report.unexpected) == (120, 120,
                                                                                    [], [])
    for name, value in model.state_dict().items():
        assert torch.equal(value, plm_state[f'encoder_q.0.{name}'])


def test_the_names_of_the_kinds_read_well(ca2cl_state):
    assert str(load_backbone_weights(body(), dict(net=ca2cl_state))) == (
        '120/120 tensors matched (CA2CL checkpoint)')
    ours = {f'encoder_q.backbone.{name}': v for name, v in body().state_dict().items()}
    assert '(our checkpoint)' in str(load_backbone_weights(body(), ours))


def test_old_files_without_batch_counts_are_complete():
    state = {name: value for name, value in body().state_dict().items()
             if not name.endswith('num_batches_tracked')}
    assert str(load_backbone_weights(body(), state)).startswith('100/100 tensors matched')


def test_batch_counts_that_the_model_lacks_do_not_matter():
    model = torchvision.models.resnet18(norm_layer=lambda n: torch.nn.BatchNorm2d(
        n, track_running_stats=False))
    del model.fc
    with pytest.raises(UserError, match='unexpected: bn1.running_mean, bn1.running_var, '
                                        'layer1.0.bn1.running_mean and 37 more'):
        load_backbone_weights(model, body().state_dict())


@pytest.mark.parametrize('theirs, ours, words', [
    ('resnet18', 'resnet50', ['of a ResNet-18, the model is a ResNet-50', 'missing: layer1']),
    ('resnet50', 'resnet18', ['of a ResNet-50, the model is a ResNet-18',
                              'layer1.0.conv1.weight (64x64x1x1, the model has 64x64x3x3)']),
    ('resnet34', 'resnet18', ['of a ResNet-34, the model is a ResNet-18']),
    ('resnet50', 'resnext50_32x4d', ['of a ResNet-50, the model is a ResNeXt-50 (32x4d)']),
])
def test_another_depth_is_named_and_nothing_is_changed(theirs, ours, words):
    with torch.device('meta'):
        state = {name: torch.empty_like(value, device='cpu')
                 for name, value in body(theirs).state_dict().items()}
    model = body(ours)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_backbone_weights(model, state)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_nothing_matched_is_an_error_whatever_is_allowed():
    model = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match='nothing in these weights fits'):
        load_backbone_weights(model, body().state_dict(), strict_shapes=False,
                              allow_partial=True)


def test_missing_and_left_over_tensors_have_to_be_allowed():
    state = body().state_dict()
    state['extra.weight'] = state.pop('layer4.1.bn2.weight')
    with pytest.raises(UserError, match='119/120 tensors matched.*missing: layer4.1.bn2.weight; '
                                        'unexpected: extra.weight'):
        load_backbone_weights(body(), state)
    report = load_backbone_weights(body(), state, allow_partial=True)
    assert report.missing == ['layer4.1.bn2.weight'] and report.unexpected == ['extra.weight']


def test_other_shapes_have_to_be_allowed():
    state = body().state_dict()
    state['conv1.weight'] = torch.randn(64, 4, 7, 7)
    model = body()
    first = model.conv1.weight.clone()
    with pytest.raises(UserError, match=r'mismatched: conv1.weight \(64x4x7x7, the model has '
                                        r'64x3x7x7\)'):
        load_backbone_weights(model, state)
    report = load_backbone_weights(model, state, strict_shapes=False)
    assert report.matched == 119 and len(report.mismatched) == 1
    assert torch.equal(model.conv1.weight, first)
    assert torch.equal(model.bn1.weight, state['bn1.weight'])


def test_what_torch_loads_strictly_is_what_is_extracted(plm_state):
    state, _ = backbone_state_dict(dict(state_dict=plm_state))
    body().load_state_dict(state, strict=True)


def test_a_shortened_model_takes_the_layers_it_has():
    model = body()
    del model.layer4
    assert str(load_backbone_weights(model, body().state_dict())).startswith('90/90 tensors')
    with pytest.raises(UserError, match='unexpected: layer1.2.conv1.weight'):
        load_backbone_weights(model, body('resnet34').state_dict())


def training_checkpoint(model: torch.nn.Module) -> dict:
    return dict(state_dict=model.state_dict(), optimizer={}, scaler={}, meta={})


def test_a_training_checkpoint_of_the_same_model_passes():
    check_training_state(training_checkpoint(torch.nn.Linear(2, 3)), torch.nn.Linear(2, 3), 'a')


@pytest.mark.parametrize('other, words', [
    (torch.nn.Linear(2, 4), ['mismatched: weight (4x2, the model has 3x2)']),
    (torch.nn.Linear(2, 3, bias=False), ['missing: bias']),
    (torch.nn.Bilinear(2, 2, 3), ['mismatched: weight (3x2x2, the model has 3x2)']),
    (torch.nn.BatchNorm1d(3), ['unexpected: running_mean, running_var']),
])
def test_one_of_another_model_is_refused(other, words):
    with pytest.raises(UserError) as error:
        check_training_state(training_checkpoint(other), torch.nn.Linear(2, 3), 'a.pth')
    assert str(error.value).startswith('a.pth: this is a checkpoint of another model; ')
    assert all(word in str(error.value) for word in words)


def test_weights_that_no_run_can_go_on_from_are_refused(plm_state):
    with pytest.raises(UserError, match='lacks optimizer, scaler; found top-level keys: '
                                        'state_dict, meta; first tensors: queue '):
        check_training_state(dict(state_dict=plm_state, meta={}), torch.nn.Linear(1, 1), 'a.pth')
