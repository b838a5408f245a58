"""Who am I among the processes: launchers, devices and the process group.

The backend follows the device: gloo on CPU, nccl on GPUs.
"""

import dataclasses
import datetime
import gc
import os
import re
import socket
import subprocess

import torch
import torch.distributed as dist

from ..errors import UserError
from ..values import LAUNCHERS

DEFAULT_PORT = '29500'
PATIENCE = 1800  # seconds


@dataclasses.dataclass(frozen=True)
class Launch:
    """What one process knows of the run: its rank, the world and its device."""

    rank: int
    world_size: int
    device: torch.device


def start(launcher: str | None = None, patience: float = PATIENCE) -> Launch:
    """Find out ranks and device, and join the process group if there are several processes.

    Args:
        launcher: 'none', 'pytorch' (torchrun, torch.distributed.launch), 'slurm' (srun) or
            'mpi' (mpirun). None takes 'pytorch' under torchrun, else 'none'.
        patience: seconds that ranks wait for each other in one exchange.

    Raises:
        UserError: the launcher's environment variables are missing, the port is in use, or
            processes would share a GPU.
    """
    launcher = launcher or _found_launcher()
    if launcher == 'none' and int(os.environ.get('WORLD_SIZE', 1)) > 1:
        raise UserError(f"{os.environ['WORLD_SIZE']} processes were started, each would train "
                        'alone and overwrite the others', where='--launcher none',
                        expected='--launcher pytorch')
    rank, local_rank, world_size = _READ[launcher]()
    device = _device(local_rank)
    if world_size > 1:
        store = _meet(rank, world_size)
        if device.type == 'cuda':
            check_own_devices(store, rank, world_size,
                              f'{socket.gethostname()} {_identity(device)}')
        dist.init_process_group('nccl' if device.type == 'cuda' else 'gloo', store=store,
                                rank=rank, world_size=world_size,
                                timeout=datetime.timedelta(seconds=patience),
                                device_id=device if device.type == 'cuda' else None)
    return Launch(rank, world_size, device)


def processes(launcher: str | None = None) -> int:
    """Return how many processes :func:`start` will find.

    Raises:
        UserError: the launcher's environment variables are missing.
    """
    return _READ[launcher or _found_launcher()]()[2]


def _found_launcher() -> str:
    return 'pytorch' if 'LOCAL_RANK' in os.environ else 'none'


def use_port(launcher: str | None, port: int | None) -> None:
    """Let the processes of Slurm meet at a port, as the published flag ``--port`` does."""
    if port and launcher == 'slurm':
        os.environ['MASTER_PORT'] = str(port)


def _meet(rank: int, world_size: int) -> dist.Store:
    """Return the store in which the processes find each other; rank 0 opens its port."""
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', DEFAULT_PORT)
    address, port = os.environ['MASTER_ADDR'], os.environ['MASTER_PORT']
    try:
        store, _, _ = next(dist.rendezvous('env://', rank, world_size))
    except dist.DistNetworkError as error:
        if 'EADDRINUSE' in str(error):
            raise UserError(f'port {port} of this host is in use', where='MASTER_PORT',
                            expected='the number of a free port, the same for all processes: '
                                     f'MASTER_PORT={_free_port()}') from error
        raise UserError(f'rank 0 cannot be reached at {address}, port {port}',
                        where='MASTER_ADDR, MASTER_PORT',
                        expected='the host of rank 0 and a port that is open between '
                                 'hosts') from error
    return store


def connect() -> dist.Store | None:
    """Return a further connection to the store where the ranks have met, None for one process."""
    if not dist.is_initialized():
        return None
    return dist.TCPStore(os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']),
                         is_master=False, wait_for_workers=False,
                         timeout=datetime.timedelta(seconds=20))


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(('', 0))
        return s.getsockname()[1]


def _identity(device: torch.device) -> str:
    """Return what tells one GPU of a host from another, whatever number a process knows it by."""
    return str(torch.cuda.get_device_properties(device).uuid)


def check_own_devices(store: dist.Store, rank: int, world_size: int, device: str) -> None:
    """See that no two processes compute on one device, which would be slow and is never meant.

    Args:
        store: common to all processes, all of which call this.
        rank: of this process.
        world_size: number of processes.
        device: what names the device of this process, of all devices of all hosts.

    Raises:
        UserError: some share a device; the same sentence on all of them.
    """
    store.set(f'device/{rank}', device)
    users: dict[str, list[int]] = {}
    for other in range(world_size):
        users.setdefault(store.get(f'device/{other}').decode(), []).append(other)
    shared = [ranks for ranks in users.values() if len(ranks) > 1]
    if shared:
        raise UserError('; '.join(f"ranks {', '.join(map(str, ranks))} would share one GPU"
                                  for ranks in shared),
                        where='--launcher', expected=f'at most {len(users)} processes, one for '
                        'each GPU (Slurm: --gpus-per-task=1)')


def stop() -> None:
    """Leave the process group, if there is one, and let its threads end."""
    if dist.is_initialized():
        # DistributedDataParallel, in a cycle of references, keeps the group's threads alive; one
        # of them asking for the interpreter while that shuts down would abort the process.
        gc.collect()
        dist.destroy_process_group()


def _device(local_rank: int) -> torch.device:
    """Return the GPU of a process: the one of its number, or among those that it sees.

    A launcher may show each process all GPUs of the host or its own alone (Slurm's
    --gpus-per-task=1). :func:`check_own_devices` finds those who share one all the same.
    """
    if not torch.cuda.is_available():
        return torch.device('cpu')
    device = torch.device('cuda', local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _read_none() -> tuple[int, int, int]:
    return 0, 0, 1


def _read_pytorch() -> tuple[int, int, int]:
    return _from_environment('pytorch', 'RANK', 'LOCAL_RANK', 'WORLD_SIZE',
                             'torchrun --nproc_per_node=N -m openselfsup train ...')


def _read_slurm() -> tuple[int, int, int]:
    ranks = _from_environment('slurm', 'SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS',
                              'srun openselfsup train ... --launcher slurm')
    if 'MASTER_ADDR' not in os.environ and 'SLURM_NODELIST' in os.environ:
        os.environ['MASTER_ADDR'] = first_slurm_host(os.environ['SLURM_NODELIST'])
    # Two jobs on one node must not meet on one port.
    port = 20000 + int(os.environ.get('SLURM_JOB_ID', 0)) % 20000
    os.environ.setdefault('MASTER_PORT', str(port))
    return ranks


def _read_mpi() -> tuple[int, int, int]:
    if 'PMI_RANK' in os.environ:  # MPICH, Intel MPI
        names = ('PMI_RANK', 'MPI_LOCALRANKID', 'PMI_SIZE')
    else:
        names = ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE')
    return _from_environment('mpi', *names, 'mpirun -n N openselfsup train ... --launcher mpi')


_READ = dict(zip(LAUNCHERS, (_read_none, _read_pytorch, _read_slurm, _read_mpi), strict=True))


def _from_environment(launcher: str, rank: str, local_rank: str, world: str,
                      command: str) -> tuple[int, int, int]:
    missing = [name for name in (rank, local_rank, world) if name not in os.environ]
    if missing:
        raise UserError(f"the environment lacks {', '.join(missing)}",
                        where=f'--launcher {launcher}', expected=f'a start by: {command}')
    return int(os.environ[rank]), int(os.environ[local_rank]), int(os.environ[world])


def first_slurm_host(nodelist: str) -> str:
    """Return the first host of a Slurm node list such as 'gpu[003-005,9],login1'."""
    try:
        answer = subprocess.run(['scontrol', 'show', 'hostnames', nodelist],
                                capture_output=True, text=True, check=True)
        return answer.stdout.split()[0]
    except (FileNotFoundError, subprocess.CalledProcessError):  # no Slurm client in a container
        found = re.match(r'([^\[,]+)(?:\[(\d+)[^\]]*\])?', nodelist)
        return found[1] + (found[2] or '') if found else nodelist
