import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openselfsup.checkpoints import training_state_from_published, training_state_to_published
from openselfsup.errors import UserError
from openselfsup.registry import ALGORITHMS


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_published_state_becomes_ours(plm_state):
    ours = training_state_from_published(plm_state)
    assert torch.equal(ours['queue.vectors'], plm_state['queue'].T)
    assert torch.equal(ours['queue_dense.vectors'], plm_state['queue2'].T)
    assert ours['queue.vectors'].is_contiguous()
    assert torch.equal(ours['queue_dense.pointer'], plm_state['queue2_ptr'])
    for theirs, name in (('encoder_q.0.layer4.1.conv2.weight',
                          'encoder_q.backbone.layer4.1.conv2.weight'),
                         ('encoder_k.1.mlp2.0.bias', 'encoder_k.neck.mlp2.0.bias'),
                         ('encoder_q.2.fc.weight', 'encoder_q.matching_neck.fc.weight')):
        assert ours[name] is plm_state[theirs]
    backbone = sum(name.startswith('backbone.') for name in plm_state)
    assert len(ours) == len(plm_state) - backbone + 2  # two queues say how full they are


def test_ours_becomes_published_again(plm_state):
    assert equal(training_state_to_published(training_state_from_published(plm_state)), plm_state)


@settings(max_examples=25)
@given(st.sets(st.sampled_from(('backbone', 'neck', 'matching_neck')), min_size=1),
       st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_both_directions_are_inverse(parts, length, dim, dense):
    ours = {f'encoder_{side}.{part}.a.0.weight': torch.rand(2, 3)
            for side in 'qk' for part in sorted(parts | {'backbone'})}
    for queue in ('queue', 'queue_dense')[:1 + dense]:
        ours |= {f'{queue}.vectors': torch.rand(length, dim),
                 f'{queue}.filled': torch.tensor([length]),
                 f'{queue}.pointer': torch.tensor([length - 1])}
    theirs = training_state_to_published(ours)
    assert theirs['queue'].shape == (dim, length)
    assert equal(training_state_from_published(theirs), ours)


@pytest.mark.parametrize('attention', [False, True])
def test_it_is_the_state_of_our_plm(plm_state, attention):
    neck = dict(type='AttentionMatchingNeck', channels=128, mid_channels=64) if attention else \
        dict(type='MatchingNeck', channels=128)
    model = ALGORITHMS.build(dict(
        type='PLM', backbone=dict(type='ResNet', depth=18), matching_neck=neck,
        neck=dict(type='DenseCLNeck', in_channels=512, hid_channels=512, out_channels=128)))
    theirs = dict(plm_state)
    if attention:
        for side in ('encoder_q', 'encoder_k'):
            theirs |= {f'{side}.2.attention.0.weight': torch.rand(64, 128, 1),
                       f'{side}.2.attention.0.bias': torch.rand(64),
                       f'{side}.2.attention.2.weight': torch.rand(1, 64, 1),
                       f'{side}.2.attention.2.bias': torch.rand(1)}
    model.load_state_dict(training_state_from_published(theirs), strict=True)
    assert equal(training_state_to_published(model.state_dict()), theirs)
    assert model.queue_dense.filled_fraction() == 1


def test_copies_of_the_backbone_that_differ_are_reported(plm_state, caplog):
    with caplog.at_level(logging.WARNING):
        training_state_from_published(plm_state)
        assert not caplog.messages
        changed = plm_state | {'backbone.bn1.bias': plm_state['backbone.bn1.bias'] + 1}
        ours = training_state_from_published(changed)
    assert 'differ' in caplog.text and 'bn1.bias' in caplog.text
    assert torch.equal(ours['encoder_q.backbone.bn1.bias'], plm_state['encoder_q.0.bn1.bias'])


@pytest.mark.parametrize('state, word', [
    ({'encoder_q.0.a': torch.ones(1), 'stranger': torch.ones(1)}, "'stranger'"),
    ({'encoder_q.3.a': torch.ones(1)}, "'encoder_q.3.a'"),
    ({'queue': torch.ones(1, 2)}, 'no query encoder'),
])
def test_a_state_of_another_kind_is_refused(state, word):
    with pytest.raises(UserError, match=word):
        training_state_from_published(state)


def test_what_has_no_published_place_is_refused():
    with pytest.raises(UserError, match="no place for 'prototypes.weight'"):
        training_state_to_published({'prototypes.weight': torch.ones(1)})
