import math
from pathlib import Path

import numpy as np
import pytest
import torch

from openselfsup.errors import UserError
from openselfsup.registry import SCHEDULES
from openselfsup.training.schedules import cosine, cosine_with_restarts, endless_warm_up


def build(**cfg):
    return SCHEDULES.build({'base_lr': 0.3, 'epochs': 10, 'steps_per_epoch': 7, **cfg})


def test_cosine_follows_the_formula_and_can_hold_for_epochs():
    rates = build(type='Cosine')
    assert rates.shape == (70,)
    assert rates[0] == pytest.approx(0.3) and rates[35] == pytest.approx(0.15)
    assert rates[-1] == pytest.approx(0.15 * (1 + math.cos(math.pi * 69 / 70)))
    held = build(type='Cosine', by='epoch')
    assert len(np.unique(held)) == 10 and (held[:7] == 0.3).all()


def test_warm_up_rises_in_a_line_to_the_base_rate():
    rates = build(type='Cosine', warmup_epochs=2, warmup_start=0.0)
    np.testing.assert_allclose(rates[:14], 0.3 * np.arange(14) / 14)
    assert rates[14] == pytest.approx(0.3) == rates.max()
    assert len(build(type='Constant', warmup_epochs=100)) == 70


@pytest.mark.parametrize('cfg', [
    dict(type='Cosine'), dict(type='Cosine', warmup='within'),
    dict(type='Cosine', warmup='inclusive'), dict(type='Constant'), dict(type='Step', gamma=1.)])
def test_a_warm_up_that_the_run_does_not_outlast_is_told(cfg):
    def told(warmup_epochs, epochs=10):
        rates = build(**cfg, epochs=epochs, warmup_epochs=warmup_epochs)
        return endless_warm_up(rates, 0.3, epochs, warmup_epochs), rates.max()

    said, most = told(20)
    assert said.startswith(f'the warm-up of 20 epochs does not end in this run of 10: the learning '
                           f'rate is {most:.3g} at most and never 0.3; expected '
                           'schedule.warmup_epochs below 10, such as 1,')
    assert (told(10)[0] is None) == (cfg.get('warmup') == 'inclusive')  # whose last step has it
    assert told(0)[0] is told(9)[0] is told(0.5, epochs=1)[0] is None
    assert 'such as 0.1,' in told(5, epochs=1)[0]


def test_step_drops_at_fractions_or_epochs():
    by_fraction, by_epoch = build(type='Step'), build(type='Step', milestones=(6, 8))
    np.testing.assert_array_equal(by_fraction, by_epoch)
    np.testing.assert_allclose(by_epoch[[0, 41, 42, 55, 56, 69]],
                               [0.3, 0.3, 0.03, 0.03, 0.003, 0.003])


def test_min_lr_is_where_the_cosine_ends():
    assert build(type='Cosine', min_lr=0.1, epochs=1000)[-1] == pytest.approx(0.1, abs=1e-4)


def test_unknown_unit_is_refused():
    with pytest.raises(UserError, match="'iteration' or 'epoch'"):
        build(type='Cosine', by='steps')


def test_restarts_are_those_of_torch():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 5, eta_min=4e-8)
    rates = []
    for _ in range(13):
        rates.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    np.testing.assert_allclose(cosine_with_restarts(0.3, 13, 5, 4e-8), rates, rtol=1e-12)


def test_the_last_step_of_an_inclusive_warm_up_has_the_full_rate_unless_it_is_the_first():
    """As numpy.linspace(start, base, steps), which DINO calls."""
    cfg = dict(type='Cosine', warmup_start=0., warmup='inclusive')
    np.testing.assert_allclose(build(**cfg, warmup_epochs=3 / 7)[:4], [0, 0.15, 0.3, 0.3])
    np.testing.assert_allclose(build(**cfg, warmup_epochs=1 / 7)[:2], [0, 0.3])


@pytest.mark.parametrize('name, cfg', [
    ('cosine_by_epoch', dict(type='Cosine', by='epoch')),
    ('cosine_by_epoch_linear_warmup', dict(type='Cosine', by='epoch', warmup_epochs=2,
                                           warmup_start=1e-4, warmup='within')),
    ('cosine_by_iter', dict(type='Cosine', min_lr=1e-3)),
    ('step', dict(type='Step', milestones=(3, 6))),
    ('step_linear_warmup', dict(type='Step', milestones=(3, 6), gamma=0.4, warmup_epochs=2,
                                warmup_start=0.1))])
def test_rates_are_those_of_openselfsup(name, cfg):
    golden = np.load(Path(__file__).parents[1] / 'data/golden/lr_schedules.npz')
    rates = build(**cfg, base_lr=float(golden[f'meta/base_lr/{name}']), epochs=8,
                  steps_per_epoch=5)
    np.testing.assert_allclose(rates.reshape(8, 5), golden[name], rtol=1e-12, atol=1e-15)


def test_a_warm_up_of_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match="'before', 'within' or 'inclusive'"):
        build(type='Cosine', warmup='after')


def test_rates_and_decays_of_dinov2_are_the_published_ones():
    golden = np.load(Path(__file__).parents[1] / 'data/golden/schedules.npz')
    epochs, per_epoch, warmup, _, base, batch = golden['settings']
    rates = build(type='Cosine', base_lr=base * np.sqrt(batch / 1024), epochs=int(epochs),
                  steps_per_epoch=int(per_epoch), min_lr=1e-6, warmup_epochs=float(warmup),
                  warmup_start=0., warmup='inclusive')
    np.testing.assert_allclose(rates, golden['lr'], rtol=1e-12, atol=1e-16)
    steps = int(epochs * per_epoch)
    np.testing.assert_allclose(cosine(0.04, 0.4, steps), golden['weight_decay'], rtol=1e-12)
    np.testing.assert_allclose(cosine(0.992, 1., steps), golden['teacher_momentum'], rtol=1e-12)
