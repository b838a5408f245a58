"""Training steps of the published implementations, reproduced from their initial state."""

from pathlib import Path

import numpy as np
import pytest
import torch
from methods import toy
from toy_model import maps_of_boxes, train_step

GOLDEN = Path(__file__).parents[1] / 'data/golden'
CASES = {'plm_step_linear_lambda0.5': ('PLM', {}),
         'plm_step_attention_lambda0.5': ('PLM', dict(attention=True)),
         'plm_step_queue_wraps': ('PLM', dict(queue_len=8, loss_lambda=0.25)),
         'densecl_step': ('DenseCL', {})}


PARTS = {'0': 'backbone', '1': 'neck', '2': 'matching_neck'}
QUEUES = {'queue': 'queue.vectors', 'queue_ptr': 'queue.pointer',
          'queue2': 'queue_dense.vectors', 'queue2_ptr': 'queue_dense.pointer'}


def golden_part(golden, prefix):
    """Return the arrays under a prefix with our names; published queues are D x K."""
    part = {}
    for key in golden.files:
        if key.startswith(prefix):
            name, value = key[len(prefix):], torch.from_numpy(golden[key])
            if name in QUEUES:
                part[QUEUES[name]] = value.T if value.ndim == 2 else value
            else:
                encoder, number, rest = name.split('.', 2)
                part[f'{encoder}.{PARTS[number]}.{rest}'] = value
    return part


def assert_close(ours, golden, what):
    atol = 1e-5 if what.endswith('attention.2.bias') else 1e-6  # zero but for rounding
    torch.testing.assert_close(ours, golden, rtol=1e-5, atol=atol, msg=lambda m: f'{what}: {m}')


@pytest.mark.parametrize('case', CASES)
def test_losses_gradients_and_final_state_are_the_published_ones(case):
    name, arguments = CASES[case]
    golden = np.load(GOLDEN / f'{case}.npz')
    algorithm = toy(name, **arguments)
    loaded = algorithm.load_state_dict(golden_part(golden, 'state/'), strict=False)
    assert not loaded.unexpected_keys
    assert all(key.endswith('filled') for key in loaded.missing_keys)  # not published
    optimizer = torch.optim.SGD(algorithm.encoder_q.parameters(), lr=0.1)
    steps = len([key for key in golden.files if key.endswith('/img')])
    assert steps >= 2
    for step in range(steps):
        images = torch.from_numpy(golden[f'step{step}/img'])
        outputs, gradients = train_step(algorithm, [images[:, 0], images[:, 1]],
                                        maps_of_boxes(golden[f'step{step}/boxes']))
        for loss in ('loss_contra_single', 'loss_contra_dense'):
            assert_close(outputs[loss], torch.from_numpy(golden[f'step{step}/{loss}']), loss)
        published = golden_part(golden, f'step{step}/grad/')
        assert gradients.keys() == published.keys()
        for key, gradient in gradients.items():
            assert_close(gradient, published[key], f'step {step} gradient of {key}')
        assert algorithm.queue.pointer.item() == golden[f'step{step}/queue_ptr']
        optimizer.step()
    state = algorithm.state_dict()
    for key, value in golden_part(golden, 'final/').items():
        assert_close(state[key], value, f'final {key}')
