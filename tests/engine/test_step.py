import math

import pytest
import torch
from torch import nn

from openselfsup.engine.preprocessor import Preprocessor
from openselfsup.engine.step import LateFlag, TrainStep, total_loss

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


class Regression(nn.Module):
    """Two loss terms, one monitor; remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.update_keys, self.moved, self.dtypes = True, [], []

    def forward(self, views, view_to_tile=None, mode='loss'):
        a, b = (self.conv(view).mean((2, 3)) for view in views)
        self.moved.append(self.update_keys)
        self.dtypes.append(a.dtype)
        return dict(loss_fit=(a.float() - b.float().detach() - 1).square().mean(),
                    loss_size=0.1 * a.float().square().mean(), size=a.detach().abs().mean())


def batch(n: int, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randint(0, 256, (n, 3, 9, 9), dtype=torch.uint8, generator=generator)
             for _ in range(2)]
    return dict(views=views, view_to_tile=None)


def make(amp='off', clip=None, lr=0.5):
    torch.manual_seed(0)
    model = Regression()
    step = TrainStep(model, Preprocessor(MEAN, STD), torch.optim.SGD(model.parameters(), lr=lr),
                     amp, clip)
    return model, step


def test_preprocessor_normalises_as_written():
    preprocessor = Preprocessor(MEAN, STD)
    data = batch(2)
    views, maps = preprocessor(data)
    expected = (data['views'][0].double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(
        STD).view(3, 1, 1)
    torch.testing.assert_close(views[0].double(), expected, atol=1e-5, rtol=1e-5)
    assert maps is None and views[0].is_contiguous(memory_format=torch.channels_last)


def test_accumulated_batches_make_the_step_of_their_union():
    whole, parts = batch(8), [batch(8), batch(8)]
    for i, part in enumerate(parts):
        part['views'] = [v[4 * i:4 * i + 4] for v in whole['views']]
    one, step_one = make()
    two, step_two = make()
    out_one = step_one(iter([whole]), 1, lr=0.25)
    out_two = step_two(iter(parts), 2, lr=0.25)
    torch.testing.assert_close(one.conv.weight, two.conv.weight)
    torch.testing.assert_close(out_one['loss'], out_two['loss'])
    assert two.moved == [True, False] and one.moved == [True]
    assert step_two.optimizer.param_groups[0]['lr'] == 0.25
    assert out_one['loss'] == pytest.approx(float(out_one['loss_fit'] + out_one['loss_size']))


def test_bf16_computes_in_bf16_with_float32_weights():
    model, step = make('bf16')
    step(iter([batch(4)]), 1, lr=0.1)
    assert model.dtypes == [torch.bfloat16] and model.conv.weight.dtype == torch.float32


def test_clipping_bounds_the_update():
    model, step = make(clip=1e-3, lr=1.0)
    before = [p.detach().clone() for p in model.parameters()]
    step(iter([batch(4)]), 1, lr=1.0)
    moved = math.sqrt(sum((p - b).square().sum().item()
                          for p, b in zip(model.parameters(), before)))
    assert moved == pytest.approx(1e-3, rel=1e-3)


def test_gradients_are_gone_after_a_step():
    model, step = make()
    step(iter([batch(4)]), 1, lr=0.1)
    assert all(p.grad is None for p in model.parameters())


def test_late_flag_is_read_once():
    flag = LateFlag()
    assert flag.take() is None
    flag.put(torch.tensor([1.0, 0.0]))
    assert flag.take() == [1.0, 0.0] and flag.take() is None


def test_total_loss_sums_terms_only():
    out = dict(loss_a=torch.tensor(1.0), loss_b=torch.tensor(2.0), acc=torch.tensor(9.0))
    assert total_loss(out) == 3
