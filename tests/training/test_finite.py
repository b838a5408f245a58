"""What is not finite is told by name and place, late, on all ranks."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from openselfsup.training.finite import FiniteCheck, LateFlag, NotFinite

NAN, ONE = torch.tensor(torch.nan), torch.tensor(1.0)


def test_late_flag_is_read_once():
    flag = LateFlag()
    assert flag.take() is None
    flag.put(torch.tensor([1.0, 0.0]))
    assert flag.take() == [1.0, 0.0] and flag.take() is None


def test_a_step_is_looked_at_when_the_next_one_is_under_way():
    check = FiniteCheck(lambda: 'a lower lr')
    check.watch(dict(loss_a=ONE, loss_b=NAN), 'step 1')
    with pytest.raises(NotFinite, match='^step 1: loss_b = nan is not finite; expected a lower lr'):
        check.watch(dict(loss_a=ONE, loss_b=ONE), 'step 2')
    check.check()  # nothing is told twice
    check.watch(dict(loss_a=-ONE / 0, loss_b=ONE), 'step 3')
    with pytest.raises(NotFinite, match='step 3: loss_a = -inf is'):
        check.check()


def test_alone_a_wish_to_stop_is_heard_at_once():
    check = FiniteCheck(str)
    check.watch(dict(loss=ONE), '', stop=False)
    assert not check.stopped
    check.watch(dict(loss=ONE), '', stop=True)
    assert check.stopped


def _rank(rank: int, folder: str) -> None:
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    check = FiniteCheck(str)
    check.watch(dict(loss_a=ONE, loss_b=ONE), 'step 1', stop=rank == 1)
    check.check()
    told = f'{check.stopped}'
    check.watch(dict(loss_a=ONE, loss_b=NAN if rank else ONE), 'step 2')
    try:
        check.check()
    except NotFinite as error:
        told += f' {error.what}'
    with open(f'{folder}/{rank}', 'w', encoding='utf-8') as file:
        file.write(told)
    dist.destroy_process_group()


def test_all_ranks_learn_of_one_of_them(tmp_path):
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), 2)
    assert (tmp_path / '0').read_text() == 'True loss_b on another rank is not finite'
    assert (tmp_path / '1').read_text() == 'True loss_b = nan is not finite'
