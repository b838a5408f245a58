"""NaN, infinity and numbers of the wrong kind are refused wherever weights are read."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from openselfsup.checkpoints import check_training_state, load_backbone_weights, refuse_spoilt
from openselfsup.errors import UserError
from openselfsup.transfer.instance.weights import convert, read_backbone

ROOT = Path(__file__).resolve().parents[2]


def body() -> torch.nn.Module:
    model = torchvision.models.resnet18()
    del model.fc
    return model


def spoil(state: dict, name: str, value: float) -> dict:
    state = dict(state)
    state[name] = state[name].clone()
    state[name].view(-1)[3] = value
    return state


SPOILT = [('layer2.1.conv1.weight', float('nan')), ('bn1.running_mean', float('inf')),
          ('layer4.0.bn2.running_var', float('-inf')), ('bn1.running_var', -1.0)]


@pytest.mark.parametrize('name, value', SPOILT)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_backbone_with_one_spoilt_value_is_refused_by_name(tmp_path, name, value, dtype):
    model = body()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state = spoil({key: tensor.to(dtype) if tensor.is_floating_point() else tensor
                   for key, tensor in body().state_dict().items()}, name, value)
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(UserError) as error:
        load_backbone_weights(model, tmp_path / 'a.pth')
    assert f'1 tensors hold NaN, infinity or a negative variance: {name} (1 of ' in str(error.value)
    assert str(tmp_path / 'a.pth') in str(error.value) and '\n' not in str(error.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_what_is_too_large_for_float32_is_refused():
    state = {key: tensor.double() for key, tensor in body().state_dict().items()}
    with pytest.raises(UserError, match='conv1.weight'):
        load_backbone_weights(body(), spoil(state, 'conv1.weight', 1e300))


@pytest.mark.parametrize('change, words', [
    (lambda v: v.to(torch.int8), 'bn1.weight (int8)'),
    (lambda v: v.to(torch.complex64), 'bn1.weight (complex64)'),
    (lambda v: v.to('meta'), 'bn1.weight (without values)'),
    (lambda v: v.to_sparse(), 'bn1.weight (sparse)'),
    (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8), 'bn1.weight (quantised)'),
    (lambda v: v[0], 'bn1.weight (scalar, the model has 64)'),
])
def test_numbers_of_another_kind_are_no_weights(change, words):
    state = body().state_dict()
    state['bn1.weight'] = change(state['bn1.weight'])
    with pytest.raises(UserError) as error:
        load_backbone_weights(body(), state)
    assert words in str(error.value)


def test_float8_weights_are_taken_as_what_they_say():
    state = body().state_dict()
    state['bn1.weight'] = torch.full((64,), 0.5).to(torch.float8_e4m3fn)
    model = body()
    load_backbone_weights(model, state)
    assert model.bn1.weight.tolist() == [0.5] * 64
    state['bn1.weight'] = torch.full((64,), float('nan')).to(torch.float8_e4m3fn)
    with pytest.raises(UserError, match=r'bn1.weight \(64 of 64 values\)'):
        load_backbone_weights(model, state)


@given(st.lists(st.sampled_from(['a', 'b', 'list', 'deep']), unique=True))
def test_every_place_is_looked_at(places):
    def value(name):
        return torch.tensor([1.0, float('nan') if name in places else 2.0])
    content = dict(a=value('a'), b=value('b'), n=3, many=[1, value('list')],
                   inner=dict(text='x', deep=(value('deep'),)))
    if not places:
        refuse_spoilt(content, None)
        return
    with pytest.raises(UserError, match=f'^{len(places)} tensors hold NaN'):
        refuse_spoilt(content, None)


@pytest.mark.parametrize('where', ['state_dict', 'optimizer'])
def test_no_run_goes_on_from_spoilt_numbers(where):
    model = torch.nn.Linear(2, 2)
    bad = torch.tensor([float('nan'), 1.0])
    checkpoint = dict(state_dict=dict(model.state_dict()), scaler={}, meta={},
                      optimizer=dict(state={0: dict(exp_avg=torch.zeros(2))}, param_groups=[]))
    check_training_state(checkpoint, model, 'a.pth')
    if where == 'state_dict':
        checkpoint['state_dict']['bias'] = bad
    else:
        checkpoint['optimizer']['state'][0]['exp_avg'] = bad
    with pytest.raises(UserError, match=rf'a.pth: 1 tensors .*{where}.* \(1 of 2 values\)'):
        check_training_state(checkpoint, model, 'a.pth')
    checkpoint['optimizer'] = []
    with pytest.raises(UserError, match='optimizer is no dict'):
        check_training_state(checkpoint, model, 'a.pth')


def test_the_tools_pass_no_spoilt_weights_on(tmp_path, tool):
    state = spoil(body().state_dict(), 'conv1.weight', float('nan'))
    torch.save(dict(state_dict={f'encoder_q.backbone.{k}': v for k, v in state.items()}),
               tmp_path / 'a.pth')
    done = tool('tools/extract_backbone_weights.py', tmp_path / 'a.pth', tmp_path / 'out.pth')
    assert done.returncode == 2 and 'conv1.weight (1 of 9,408 values)' in done.stderr
    with pytest.raises(UserError, match='conv1.weight'):
        convert(tmp_path / 'a.pth', tmp_path / 'out.pkl')
    assert not list(tmp_path.glob('out.*'))
    arrays = {'stem.conv1.weight': np.full((64, 3, 7, 7), np.nan, np.float32),
              'res2.0.conv1.weight': np.ones((64, 64, 3, 3), np.float32)}
    (tmp_path / 'd.pkl').write_bytes(pickle.dumps(dict(model=arrays)))
    with pytest.raises(UserError):
        load_backbone_weights(body(), read_backbone(tmp_path / 'd.pkl'), allow_partial=True)
