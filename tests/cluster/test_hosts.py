"""A run over hosts that fail: ranks are killed, stopped and cut off, and it goes on.

Two hosts made of network namespaces. Run it as root: ``pytest -m slow tests/cluster``.
"""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from hosts import Hosts, can_make_hosts

pytestmark = pytest.mark.slow

STEPS = 36
TRAIN = ['configs/demo/plm_r18.py', '--resume', '--timeout', '20', '--cfg-options',
         'dataset.source.root=data/demo/kather2016', 'dataset.recipe.size=64',
         'global_batch_size=16', 'model.queue_len=48', 'epochs=12', 'log_interval=1', 'workers=1',
         'schedule.warmup_epochs=1', 'save_every=1', 'amp=off',
         # Batch norm's statistics are those of a rank.
         'model.backbone.norm_cfg={"type": "GN", "num_groups": 16}']


@pytest.fixture(scope='module', autouse=True)
def possible():
    if not can_make_hosts():
        pytest.skip('network namespaces need root and iproute2')


@pytest.fixture
def hosts(possible):
    made = Hosts(2)
    yield made
    made.close()


@pytest.fixture(scope='module')
def alone(possible, tmp_path_factory):
    """Losses of one process with the same global batch."""
    hosts, folder = Hosts(1), tmp_path_factory.mktemp('alone')
    try:
        assert hosts.start(0, folder / 'log', [TRAIN[0], '--work-dir', str(folder / 'run'),
                                               *TRAIN[1:]]).wait(timeout=600) == 0
    finally:
        hosts.close()
    return losses(folder / 'run')


def losses(run: Path) -> dict[int, float]:
    """Return the loss of each step; what a restart did again counts as it was the last time."""
    lines = (run / 'metrics.jsonl').read_text().splitlines()
    return {line['step']: line['loss'] for line in map(json.loads, lines) if 'loss' in line}


def wait_for(what, seconds: float = 240.) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, 'nothing came of it'
        time.sleep(0.5)


def begin(hosts, folder):
    """Start the run on both hosts and wait for some steps."""
    train = [TRAIN[0], '--work-dir', str(folder / 'run'), *TRAIN[1:]]
    for host in range(2):
        hosts.start(host, folder / f'log{host}', train)
    wait_for(lambda: (folder / 'run/metrics.jsonl').exists() and len(losses(folder / 'run')) >= 4)
    return train


def check_end(hosts, folder, alone):
    """See that the run ends with all steps of one process, and the same losses."""
    assert hosts.agents[0].wait(timeout=400) == 0, (folder / 'log0').read_text()[-3000:]
    found = losses(folder / 'run')
    assert list(found) == list(range(1, STEPS + 1))
    assert [found[step] for step in found] == pytest.approx([alone[step] for step in found],
                                                            rel=1e-3)


def test_a_rank_that_is_killed_is_started_again(hosts, tmp_path, alone):
    begin(hosts, tmp_path)
    os.kill(hosts.ranks(1)[0], signal.SIGKILL)
    check_end(hosts, tmp_path, alone)
    said = (tmp_path / 'log0').read_text()
    assert 'resumed' in said and said.count('2 rank(s)') == 2


def test_a_rank_that_hangs_is_named_and_all_start_again(hosts, tmp_path, alone):
    begin(hosts, tmp_path)
    os.kill(hosts.ranks(1)[0], signal.SIGSTOP)
    check_end(hosts, tmp_path, alone)
    said = (tmp_path / 'log0').read_text()
    assert 'no step has ended for 20 s; not heard of any more: rank 1' in said
    assert 'resumed' in said


def test_a_host_that_is_cut_off_is_done_without_and_taken_back(hosts, tmp_path, alone):
    train = begin(hosts, tmp_path)
    hosts.cut(1)
    wait_for(lambda: '= 1 rank(s) x 16' in (tmp_path / 'log0').read_text())
    hosts.kill(1)
    hosts.mend(1)
    hosts.start(1, tmp_path / 'log1', train)  # as whoever looks after the hosts would
    check_end(hosts, tmp_path, alone)
    said = (tmp_path / 'log0').read_text()
    assert 'no step has ended for 20 s; not heard of any more: rank' in said
    assert said.count('2 rank(s)') == 2
