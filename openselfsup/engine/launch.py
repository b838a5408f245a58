"""Who am I among the processes: launchers, devices and the process group.

mmengine's own set-up takes a CUDA device for granted; here the backend follows the
device: gloo on CPU, nccl on GPUs.
"""

import dataclasses
import gc
import os
import re
import subprocess

import torch
import torch.distributed as dist

from ..errors import UserError

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
DEFAULT_PORT = '29500'


@dataclasses.dataclass(frozen=True)
class Launch:
    """What one process knows of the run: its ranks, the world and its device."""

    launcher: str
    rank: int
    local_rank: int
    world_size: int
    device: torch.device


def start(launcher: str | None = None) -> Launch:
    """Find out ranks and device, and join the process group if there are several processes.

    Args:
        launcher: 'none', 'pytorch' (torchrun, torch.distributed.launch), 'slurm' (srun) or
            'mpi' (mpirun). None takes 'pytorch' under torchrun, else 'none'.

    Raises:
        UserError: the launcher's environment variables are missing.
    """
    if launcher is None:
        launcher = 'pytorch' if 'LOCAL_RANK' in os.environ else 'none'
    if launcher == 'none' and int(os.environ.get('WORLD_SIZE', 1)) > 1:
        raise UserError(f"{os.environ['WORLD_SIZE']} processes were started, each would train "
                        'alone and overwrite the others', where='--launcher none',
                        expected='--launcher pytorch')
    rank, local_rank, world_size = _READ[launcher]()
    device = _device(local_rank)
    if world_size > 1:
        os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
        os.environ.setdefault('MASTER_PORT', DEFAULT_PORT)
        dist.init_process_group('nccl' if device.type == 'cuda' else 'gloo', init_method='env://',
                                rank=rank, world_size=world_size,
                                device_id=device if device.type == 'cuda' else None)
    return Launch(launcher, rank, local_rank, world_size, device)


def stop() -> None:
    """Leave the process group, if there is one, and let its threads end."""
    if dist.is_initialized():
        # DistributedDataParallel, in a cycle of references, keeps the group's threads alive; one
        # of them asking for the interpreter while that shuts down would abort the process.
        gc.collect()
        dist.destroy_process_group()


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device('cpu')
    if local_rank >= torch.cuda.device_count():
        raise UserError(f'local rank {local_rank} has no GPU of its own',
                        expected=f'at most {torch.cuda.device_count()} processes on this node')
    torch.cuda.set_device(local_rank)
    return torch.device('cuda', local_rank)


def _read_none() -> tuple[int, int, int]:
    return 0, 0, 1


def _read_pytorch() -> tuple[int, int, int]:
    return _from_environment('pytorch', 'RANK', 'LOCAL_RANK', 'WORLD_SIZE',
                             'torchrun --nproc_per_node=N tools/train.py ...')


def _read_slurm() -> tuple[int, int, int]:
    ranks = _from_environment('slurm', 'SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS',
                              'srun python tools/train.py ... --launcher slurm')
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
    return _from_environment('mpi', *names, 'mpirun -n N python tools/train.py ... --launcher mpi')


_READ = dict(none=_read_none, pytorch=_read_pytorch, slurm=_read_slurm, mpi=_read_mpi)


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
        return found.group(1) + (found.group(2) or '')
