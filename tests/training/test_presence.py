"""Ranks tell what they do; a run that hangs or loses a rank says which."""

import subprocess
import sys
import textwrap

import pytest
import torch.distributed as dist

from openselfsup.errors import UserError
from openselfsup.training import presence
from openselfsup.training.presence import HANGS, Presence, attending


@pytest.fixture
def ranks(monkeypatch):
    """Make ranks of one process, which tell each other ten times a second."""
    monkeypatch.setattr(presence, 'BEAT', 0.1)
    monkeypatch.setattr(presence.distributed, 'world_size', lambda: 3)
    store, made = dist.HashStore(), []

    def make(rank, patience=1000.):
        monkeypatch.setattr(presence.distributed, 'rank', lambda: rank)
        made.append(Presence(store, patience, lambda _: None))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_rank_that_is_not_heard_of_is_named_with_what_it_told_last(ranks):
    here, gone, never = ranks(0), ranks(1), 2
    gone.does('computed step 7')
    here.does('computed step 8')
    while 'computed step 7' not in str(here._heard()):
        pass
    gone.close()
    assert here.missing() == (
        f'not heard of any more: rank 1 on {presence.socket.gethostname()}, which last told that '
        f'it computed step 7; rank {never}, which never told anything')


def test_where_all_are_there_the_few_are_named_first(ranks):
    all_of_them = [ranks(rank) for rank in range(3)]
    for rank, what in enumerate(['computed step 3', 'computed step 3',
                                 'waited for the tiles of step 3']):
        all_of_them[rank].does(what)
    assert all_of_them[0].missing() == (
        f'rank 2 on {presence.socket.gethostname()} waited for the tiles of step 3; '
        'ranks 0, 1 computed step 3')


def test_an_exchange_that_fails_is_a_sentence_and_other_errors_are_not(ranks):
    here = ranks(0)
    with pytest.raises(UserError, match='Connection reset by peer: an exchange.*rank 1, which n'):
        with attending(here):
            raise RuntimeError('[/x/gloo/pair.cc:5] Read error: Connection reset by peer. More.')
    with pytest.raises(RuntimeError, match='of our own'), attending(here):
        raise RuntimeError('a mistake of our own')
    with pytest.raises(RuntimeError, match='gloo'), attending(None):
        raise RuntimeError('gloo')


def test_a_step_that_does_not_end_ends_the_process():
    code = textwrap.dedent('''
        import time
        import torch.distributed as dist
        from openselfsup.training import presence
        presence.BEAT = 0.05
        here = presence.Presence(dist.HashStore(), 0.3, print)
        here.does('was in its hooks')
        time.sleep(1)
        print('hooks may take their time', flush=True)
        here.does('computed step 5', watched=True)
        time.sleep(60)
        ''')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert done.returncode == HANGS, done.stderr
    told = done.stdout.splitlines()
    assert told[0] == 'hooks may take their time'
    assert told[1].startswith('no step has ended for 0.3 s; rank 0 on ')
    assert 'computed step 5' in told[1]
