"""Fine-tuning a detector from the command line to its scores, in one process or several."""

import contextlib
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.multiprocessing

from ... import distributed
from ...claims import claimed
from ...errors import UserError
from ...training import launch
from ...training.logs import build_logger
from . import backends
from . import job as jobs
from .scoring import evaluate, read_outcomes


@dataclass(frozen=True)
class FineTuning:
    """What a fine-tuning is asked to do.

    Attributes:
        job: what every process runs; each finds its own device.
        num_gpus: GPUs of this machine, one process for each; 0 runs on the CPU, None on a GPU if
            there is one.
        cpu_processes: processes without GPUs.
        backend: 'auto', 'detectron2' or 'torchvision'.
        compare: finished runs to show beside this one.
    """

    job: jobs.Job
    num_gpus: int | None = None
    cpu_processes: int = 1
    backend: str = 'auto'
    compare: Sequence[str] = ()


def fine_tune(task: FineTuning) -> None:
    """Train and score, in one process for each GPU.

    Raises:
        UserError: a mistake in what is asked for; of several processes, that of the first.
    """
    there = torch.cuda.device_count()
    if task.num_gpus is None:
        task = replace(task, num_gpus=min(1, there))
    elif task.num_gpus > there:
        raise UserError(f'{task.num_gpus} GPUs are asked for, this machine has {there}',
                        where='--num-gpus', expected=f'at most {there}; 0 runs on the CPU')
    backend_name = backends.choose_backend(task.backend)
    processes = task.num_gpus or task.cpu_processes
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    if processes == 1:
        _work(0, 1, port, backend_name, task)
        return
    errors = torch.multiprocessing.get_context('spawn').SimpleQueue()
    try:
        torch.multiprocessing.start_processes(
            _entry, (errors, processes, port, backend_name, task), processes)
    except torch.multiprocessing.ProcessExitedException:
        if errors.empty():
            raise
        raise UserError(errors.get()) from None


def _entry(rank: int, errors: Any, processes: int, port: int, backend_name: str,
           task: FineTuning) -> None:
    """Start of a spawned process: a user's mistake goes to the first one, which ends the others."""
    try:
        _work(rank, processes, port, backend_name, task)
    except UserError as error:
        errors.put(str(error))
        os._exit(2)


def _work(rank: int, processes: int, port: int, backend_name: str, task: FineTuning) -> None:
    """Run one process of the job."""
    if processes > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes),
                          MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    if task.num_gpus == 0:
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    where = launch.start('pytorch' if processes > 1 else 'none')
    try:
        backend = backends.build_backend(backend_name, replace(task.job, device=where.device))
        compare = read_outcomes(task.compare, backend.test_sets)
        # Held by rank 0; the others wait, and are ended with it where another process writes there.
        with (claimed(backend.output_dir, 'fine-tuning a detector') if rank == 0
              else contextlib.nullcontext()) as claim:
            distributed.barrier()
            _train(backend, backend_name, rank, task)
            if claim:
                claim.check()
            evaluate(backend, compare)
        logging.getLogger('openselfsup').info(
            'scores: %s; pictures: %s', backend.output_dir / 'results.json',
            backend.output_dir / 'index.html')
    finally:
        launch.stop()


def _train(backend: jobs.Backend, backend_name: str, rank: int, task: FineTuning) -> None:
    """See whose results are in the folder, load the weights and train."""
    job = task.job
    if not job.resume:
        scores = [f'{name}/results.json' for name in backend.test_sets] + ['results.json']
        jobs.refuse_to_overwrite(
            backend.output_dir, *scores, *([] if job.eval_only else [jobs.LAST]))
    if not job.eval_only:
        jobs.refuse_other_inputs(backend, job.resume)
    log = build_logger(backend.output_dir / 'log.txt')
    if backend_name == 'torchvision' and task.backend == 'auto':
        log.info('detectron2 is not installed: torchvision trains the same config. '
                 'To install detectron2: %s', backends.INSTALL)
    if rank == 0:
        for note in backend.notes:
            log.warning('%s', note)
    log.info('%s', backend.load_backbone())
    if not job.eval_only:
        backend.fit()
