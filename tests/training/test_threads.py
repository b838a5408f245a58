import os
import subprocess
import sys

import pytest
import torch

from openselfsup.training import threads

LAUNCHERS = ('LOCAL_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_SIZE', 'MPI_LOCALNRANKS',
             'SLURM_STEP_TASKS_PER_NODE', 'OMP_NUM_THREADS')


@pytest.fixture
def alone(monkeypatch):
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    yield monkeypatch
    torch.set_num_threads(before)


@pytest.mark.parametrize('name, value, ranks', [
    (None, '', 1), ('LOCAL_WORLD_SIZE', '4', 4), ('OMPI_COMM_WORLD_LOCAL_SIZE', '3', 3),
    ('MPI_LOCALNRANKS', '2', 2), ('SLURM_STEP_TASKS_PER_NODE', '4(x2),3', 4),
    ('SLURM_STEP_TASKS_PER_NODE', '8', 8), ('LOCAL_WORLD_SIZE', 'many', 1)])
def test_ranks_on_this_host(alone, name, value, ranks):
    if name:
        alone.setenv(name, value)
    assert threads.ranks_on_this_host() == ranks


def test_ranks_share_the_cores_of_a_host(alone):
    alone.setattr(threads, 'usable_cores', lambda: 8)
    alone.setattr(threads.os, 'cpu_count', lambda: 8)
    alone.setenv('LOCAL_WORLD_SIZE', '4')
    assert threads.share_cores() == 2
    alone.setenv('LOCAL_WORLD_SIZE', '16')
    assert threads.share_cores() == 1


def test_what_the_user_or_the_launcher_said_stays(alone):
    torch.set_num_threads(3)
    alone.setattr(threads.os, 'cpu_count', lambda: 8)
    alone.setattr(threads, 'usable_cores', lambda: 2)  # bound to cores by the launcher
    alone.setenv('LOCAL_WORLD_SIZE', '4')
    assert threads.share_cores() == 3
    alone.setattr(threads, 'usable_cores', lambda: 8)
    alone.setenv('OMP_NUM_THREADS', '3')
    assert threads.share_cores() == 3


@pytest.mark.parametrize('load, said', [(0.3, None), (1.9, None), (5.2, '5.2 processes')])
def test_a_busy_machine_is_told(monkeypatch, load, said):
    monkeypatch.setattr(threads.os, 'cpu_count', lambda: 2)
    monkeypatch.setattr(threads.os, 'getloadavg', lambda: (load, 0, 0))
    told = threads.overload()
    assert (told is None) if said is None else said in told


@pytest.mark.parametrize('own, advised', [(1, False), (2, True)])
def test_fewer_threads_are_advised_where_there_are_several(alone, own, advised):
    alone.setattr(threads.os, 'getloadavg', lambda: (1000., 0, 0))
    torch.set_num_threads(own)
    told = threads.overload()
    assert ('OMP_NUM_THREADS' in told) == advised and not told.endswith(';')


@pytest.mark.parametrize('given, expected', [
    ({}, '1000 0'), ({'OMP_WAIT_POLICY': 'active'}, 'None None'),
    ({'GOMP_SPINCOUNT': '5'}, '5 0')])
def test_threads_do_not_spin_for_long_unless_the_user_says_so(given, expected):
    code = ('import openselfsup, os, sys; assert "torch" not in sys.modules; '
            'print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("KMP_BLOCKTIME"))')
    clean = {k: v for k, v in os.environ.items()
             if k not in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME')}
    done = subprocess.run([sys.executable, '-c', code], env=clean | given, capture_output=True,
                          text=True, check=True)
    assert done.stdout.split() == expected.split()
