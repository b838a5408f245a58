"""NPID: the published steps, its memory, its draws."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_zoo import ZooBackbone, assert_golden
from methods import METHODS, build, with_options
from toy_model import TILES, random_batch

from openselfsup.errors import UserError
from openselfsup.models.algorithms.npid import NPID
from openselfsup.models.losses import sampled_info_nce
from openselfsup.models.memories import SimpleMemory
from openselfsup.models.memories.simple import draw_rows, last_of_each

GOLDEN = Path(__file__).parents[1] / 'data/golden'


@pytest.mark.parametrize('case', ['npid_ensure_neg_step', 'npid_plain_step'])
def test_losses_gradients_bank_and_final_state_are_the_published_ones(case, monkeypatch):
    golden = np.load(GOLDEN / f'{case}.npz')
    method = NPID(ZooBackbone(), dict(type='LinearNeck', in_channels=12, out_channels=12),
                  length=20, feat_dim=12, neg_num=16, memory_momentum=0.3,
                  ensure_neg='ensure' in case)
    state = {key[6:]: torch.from_numpy(golden[key]) for key in golden.files if key[:6] == 'state/'}
    state['memory_bank.feature_bank'] = state.pop('feature_bank')
    loaded = method.load_state_dict(state, strict=False)
    assert loaded.missing_keys == ['memory_bank.written', 'memory_bank.updates']
    assert not loaded.unexpected_keys
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for step in range(3):
        read = {key: torch.from_numpy(golden[f'step{step}/{key}'])
                for key in ('img', 'idx', 'neg_idx', 'loss', 'feature_bank')}
        monkeypatch.setattr(method, 'draw_negatives', lambda index, rows=read['neg_idx']: rows)
        optimizer.zero_grad()
        outputs = method([read['img']], index=read['idx'])
        outputs['loss_contra'].backward()
        assert_golden(outputs['loss_contra'], read['loss'], 'loss')
        assert_golden(method.memory_bank.feature_bank, read['feature_bank'], 'feature bank')
        for key, parameter in method.named_parameters():
            assert_golden(parameter.grad, golden[f'step{step}/grad/{key}'], key)
        optimizer.step()
    for key, parameter in method.named_parameters():
        assert_golden(parameter, golden[f'final/{key}'], f'final {key}')


@pytest.mark.parametrize('count', [3, 40])  # drawn rows are fewer numbers than the bank, or more
def test_the_loss_is_the_cross_entropy_over_positive_and_negatives(count):
    q, positive, bank = (F.normalize(torch.randn(n, 5, dtype=torch.float64), dim=1)
                         for n in (4, 4, 30))
    q.requires_grad_()
    negatives = torch.randint(30, (4, count))
    loss, accuracy = sampled_info_nce(q, positive, bank, negatives, 0.1)
    logits = torch.cat([(q * positive).sum(1, keepdim=True),
                        torch.einsum('bd,bkd->bk', q, bank[negatives])], 1) / 0.1
    expected = F.cross_entropy(logits, torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, q)[0] for x in (loss, expected)))
    assert accuracy == (logits.argmax(1) == 0).float().mean()


def test_a_bank_that_is_overwritten_before_backward_changes_no_gradient():
    q, positive, bank = (F.normalize(torch.randn(n, 5), dim=1) for n in (4, 4, 30))
    q.requires_grad_()
    negatives, found = torch.randint(30, (4, 8)), []
    for overwrite in (False, True):
        loss, _ = sampled_info_nce(q, positive, bank, negatives, 0.1)
        if overwrite:
            bank.zero_()
        found.append(torch.autograd.grad(loss, q)[0])
    assert found[0].equal(found[1])


def test_a_tile_that_is_twice_in_a_batch_is_moved_once_by_its_last_vector():
    assert last_of_each(torch.tensor([5, 2, 5, 7, 2])).tolist() == [2, 4, 2, 3, 4]
    memory = SimpleMemory(6, 4, momentum=0.25)
    before = memory.feature_bank.clone()
    vectors = F.normalize(torch.randn(3, 4), dim=1)
    memory.update(torch.tensor([1, 4, 1]), vectors)
    expected = before.clone()
    for row, vector in ((4, vectors[1]), (1, vectors[2])):
        expected[row] = F.normalize(0.75 * before[row] + 0.25 * vector, dim=0)
    torch.testing.assert_close(memory.feature_bank, expected)
    assert memory.filled_fraction() == pytest.approx(2 / 6) and memory.age() == 0
    memory.update(torch.tensor([4]), vectors[:1])
    assert memory.written.tolist() == [0, 1, 0, 0, 2, 0] and memory.age() == 0.5


def test_every_row_but_the_own_is_drawn_equally_often():
    index, key = torch.tensor([0, 3, 4]), torch.tensor([123456789])
    for leave_out in (True, False):
        drawn = draw_rows(key, 20_000, 5, index, leave_out)
        counts = torch.stack([(drawn == row).sum(1) for row in range(5)], 1)
        expected = torch.full((3, 5), 20_000 / (5 - leave_out))
        if leave_out:
            expected[range(3), index] = 0
            assert not counts[range(3), index].any()
        assert (counts - expected).abs().max() < 5 * (20_000 / 5) ** 0.5
    assert not drawn[0].equal(drawn[1])
    assert not drawn.equal(draw_rows(key + 1, 20_000, 5, index, False))


def test_the_memory_takes_its_length_from_the_data_set():
    assert len(build(METHODS['NPID']).memory_bank) == TILES
    with pytest.raises(UserError, match=r'model.length: the memory is to hold 19 tiles, the data '
                                        'set has 20; expected 20, or nothing at all'):
        build(with_options('NPID', length=19))
    method = build(METHODS['NPID'])
    with pytest.raises(UserError, match='one tile has no other'):
        method.set_data(1, None)


def test_monitors_follow_the_memory():
    method, (views, _) = build(METHODS['NPID']), random_batch(4)
    outputs = method(views, index=torch.tensor([0, 1, 2, 3]))
    assert outputs['memory_filled'] == 0 and outputs['memory_age'] == 0
    method(views, index=torch.tensor([4, 5, 6, 7]))
    outputs = method(views, index=torch.tensor([0, 1, 2, 3]))
    assert outputs['memory_filled'] == pytest.approx(8 / TILES) and outputs['memory_age'] == 0.5
