"""A fair share of a machine's cores, among ranks and beside other people's work."""

import os

import torch

# How launchers tell the number of ranks on this host: torchrun, Open MPI, MPICH and Intel MPI.
_LOCAL_SIZES = ('LOCAL_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_SIZE', 'MPI_LOCALNRANKS')


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ranks_on_this_host() -> int:
    """Return how many processes a launcher started on this host, 1 if none tells."""
    for name in _LOCAL_SIZES:
        if os.environ.get(name, '').isdecimal():
            return max(int(os.environ[name]), 1)
    # Slurm: '4', or '4(x2),3' for several hosts; the first is as good as another.
    tasks = os.environ.get('SLURM_STEP_TASKS_PER_NODE', '').partition('(')[0].partition(',')[0]
    return max(int(tasks), 1) if tasks.isdecimal() else 1


def share_cores() -> int:
    """Let the ranks of one host share its cores, unless the user or the launcher said how.

    Every rank would otherwise start as many threads as there are cores.

    Returns:
        Torch's threads in this process.
    """
    ranks, cores = ranks_on_this_host(), usable_cores()
    if ranks > 1 and 'OMP_NUM_THREADS' not in os.environ and cores == os.cpu_count():
        torch.set_num_threads(max(cores // ranks, 1))
    return torch.get_num_threads()


def overload() -> str | None:
    """Say how busy others keep this machine, None if they leave a core or more to us."""
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):  # Windows
        return None
    cores = os.cpu_count() or 1
    if load < cores:
        return None
    told = (f'this machine is busy: over the last minute {load:.1f} processes wanted its {cores} '
            'core(s), so the run gets a share of its usual speed')
    if torch.get_num_threads() == 1:
        return told
    return (f'{told}; fewer threads disturb others less, for instance '
            f'OMP_NUM_THREADS={max(usable_cores() // 2, 1)}')
