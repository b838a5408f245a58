import pytest

from openselfsup.engine import launch
from openselfsup.errors import UserError

NAMES = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS',
         'SLURM_NODELIST', 'SLURM_JOB_ID', 'MASTER_ADDR', 'MASTER_PORT', 'PMI_RANK',
         'OMPI_COMM_WORLD_RANK')


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_alone_is_rank_zero_of_one_without_a_process_group():
    here = launch.start(None)
    assert (here.launcher, here.rank, here.world_size) == ('none', 0, 1)
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
                                          ('n[08,11-12]', 'n08')])
def test_first_host_of_a_node_list(nodes, first, monkeypatch):
    monkeypatch.setenv('PATH', '')
    assert launch.first_slurm_host(nodes) == first
