import socket
import threading

import pytest
import torch

from openselfsup.errors import UserError
from openselfsup.training import launch

NAMES = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS',
         'SLURM_NODELIST', 'SLURM_JOB_ID', 'MASTER_ADDR', 'MASTER_PORT', 'PMI_RANK',
         'OMPI_COMM_WORLD_RANK', 'TORCHELASTIC_USE_AGENT_STORE')


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_alone_is_rank_zero_of_one_without_a_process_group():
    here = launch.start(None)
    assert (here.rank, here.world_size) == (0, 1)
    assert not launch.dist.is_initialized()


def test_many_processes_without_a_launcher_are_refused(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '4')
    with pytest.raises(UserError, match='--launcher pytorch'):
        launch.start('none')


@pytest.mark.parametrize('name, missing', [('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID'),
                                           ('mpi', 'OMPI_COMM_WORLD_RANK')])
def test_a_launcher_without_its_environment_says_how_to_start(name, missing):
    with pytest.raises(UserError, match=missing):
        launch.start(name)


def test_slurm_takes_the_first_host_and_a_port_of_the_job(monkeypatch):
    for key, value in dict(SLURM_PROCID='5', SLURM_LOCALID='1', SLURM_NTASKS='8',
                           SLURM_NODELIST='gpu[003-005,9],login1', SLURM_JOB_ID='123').items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv('PATH', '')
    assert launch._READ['slurm']() == (5, 1, 8)
    assert launch.os.environ['MASTER_ADDR'] == 'gpu003'
    assert launch.os.environ['MASTER_PORT'] == '20123'


@pytest.mark.parametrize('nodes, first', [('a1,a2', 'a1'), ('node-7', 'node-7'),
                                          ('n[08,11-12]', 'n08'), ('', '')])
def test_first_host_of_a_node_list(nodes, first, monkeypatch):
    monkeypatch.setenv('PATH', '')
    assert launch.first_slurm_host(nodes) == first


def test_a_process_that_sees_one_gpu_takes_that_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'set_device', lambda device: None)
    for count, ranks, expected in ((1, [0, 1, 3], [0, 0, 0]),  # --gpus-per-task=1
                                   (4, [0, 1, 3], [0, 1, 3])):
        monkeypatch.setattr(torch.cuda, 'device_count', lambda count=count: count)
        assert [launch._device(rank).index for rank in ranks] == expected


def say_devices(devices):
    """Let each of some processes say its device; return what each of them is told, or None."""
    store, told = launch.dist.HashStore(), [None] * len(devices)

    def say(rank):
        try:
            launch.check_own_devices(store, rank, len(devices), devices[rank])
        except UserError as error:
            told[rank] = str(error)

    threads = [threading.Thread(target=say, args=(rank,)) for rank in range(len(devices))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def test_only_processes_that_would_share_a_gpu_are_refused():
    # One visible device for each, of different identity, also where hosts have the same names.
    assert say_devices(['a GPU-1', 'a GPU-2', 'b GPU-1', 'b GPU-2']) == [None] * 4
    told = say_devices(['a GPU-1', 'a GPU-1', 'a GPU-2', 'a GPU-2', 'b GPU-1'])
    assert len(set(told)) == 1  # the same sentence, which is told once
    assert 'ranks 0, 1 would share one GPU; ranks 2, 3 would' in told[0]
    assert 'at most 3 processes' in told[0] and '--gpus-per-task=1' in told[0]


@pytest.mark.parametrize('names', [
    ('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS'),
    ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE'),
    ('RANK', 'LOCAL_RANK', 'WORLD_SIZE')])
def test_a_port_in_use_is_named_with_a_free_one(names, monkeypatch):
    for name, value in zip(names, ('0', '0', '2')):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with socket.create_server(('', 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv('MASTER_PORT', str(port))
        launcher = {'S': 'slurm', 'O': 'mpi', 'R': 'pytorch'}[names[0][0]]
        with pytest.raises(UserError, match=rf'port {port} of this host is in use.*MASTER_PORT='):
            launch.start(launcher)
    assert not launch.dist.is_initialized()


@pytest.mark.parametrize('launcher, names, count', [
    (None, {}, 1), (None, dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='4'), 4),
    ('slurm', dict(SLURM_PROCID='1', SLURM_LOCALID='1', SLURM_NTASKS='3', MASTER_ADDR='x'), 3)])
def test_processes_are_counted_before_they_meet(launcher, names, count, monkeypatch):
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('MASTER_PORT', '1')  # so that it is set back
    assert launch.processes(launcher) == count
