"""Fine-tune a pretrained backbone into an instance segmentation model, and evaluate it.

Example:
    openselfsup segment instance --config-file GlaS/GlaS_R_18_FPN_1x_moco --num-gpus 4 \\
        --datasets-folder DIR MODEL.WEIGHTS backbone.pkl SOLVER.IMS_PER_BATCH 16 OUTPUT_DIR OUT
    openselfsup segment instance --config-file YAML --num-gpus 0              # on the CPU
    openselfsup segment instance --config-file YAML --eval-only MODEL.WEIGHTS OUT/model_final.pth

DIR is what `openselfsup prepare` wrote. OUT/index.html shows the scores and the images.
"""

import argparse
import contextlib
import logging
import os
import socket
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing

from .. import distributed
from ..claims import claimed
from ..errors import UserError
from ..shipped import find_config
from ..training import launch
from ..training.logs import build_logger
from ..transfer.instance import backends
from ..transfer.instance import job as jobs
from .arguments import add_amp

CONFIGS = 'segmentation/detection/configs'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup segment instance``."""
    parser.add_argument('--config-file', required=True, metavar='YAML',
                        help='config file, or the name of one of ours: GlaS/GlaS_R_18_FPN_1x_moco')
    parser.add_argument('--num-gpus', type=int, default=None,
                        help='GPUs of this machine; 0 runs on the CPU (default: 1 if there is one)')
    parser.add_argument('--cpu-processes', type=int, default=1,
                        help='processes with --num-gpus 0, for tests of several processes')
    parser.add_argument('--datasets-folder', default='datasets', metavar='DIR')
    parser.add_argument('--backend', default='auto', metavar='|'.join(backends.BACKENDS))
    add_amp(parser, 'precision, in place of SOLVER.AMP.ENABLED')
    parser.add_argument('--resume', action='store_true',
                        help='go on from the last checkpoint in OUTPUT_DIR')
    parser.add_argument('--eval-only', action='store_true')
    # One folder each: an option that takes several would take KEY VALUE too.
    parser.add_argument('--compare', action='append', default=[], metavar='OUT',
                        help='a finished run to show beside this one; may be given several times')
    parser.add_argument('opts', nargs=argparse.REMAINDER, metavar='KEY VALUE',
                        help='override keys of the YAML, as detectron2 does')


def work(rank: int, processes: int, port: int, backend_name: str,
         args: argparse.Namespace) -> None:
    """Run one process of the job."""
    if processes > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes),
                          MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    if args.num_gpus == 0:
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    from ..transfer.instance.scoring import evaluate, read_outcomes
    where = launch.start('pytorch' if processes > 1 else 'none')
    try:
        compare = read_outcomes(args.compare)
        config = str(find_config(args.config_file, CONFIGS, '.yaml'))
        job = jobs.Job(config, args.opts, args.datasets_folder, where.device, args.resume,
                       args.eval_only, args.amp)
        backend = backends.build_backend(backend_name, job)
        # Held by rank 0; the others wait, and are ended with it where another process writes there.
        with (claimed(backend.output_dir, 'fine-tuning a detector') if rank == 0
              else contextlib.nullcontext()) as claim:
            distributed.barrier()
            train(backend, backend_name, rank, args)
            if claim:
                claim.check()
            evaluate(backend, compare)
        logging.getLogger('openselfsup').info(
            'scores: %s; pictures: %s', backend.output_dir / 'results.json',
            backend.output_dir / 'index.html')
    finally:
        launch.stop()


def train(backend: jobs.Backend, backend_name: str, rank: int,
          args: argparse.Namespace) -> None:
    """See whose results are in the folder, load the weights and train."""
    if not args.resume:
        scores = [f'{name}/results.json' for name in backend.test_sets] + ['results.json']
        jobs.refuse_to_overwrite(
            backend.output_dir, *scores, *([] if args.eval_only else [jobs.LAST]))
    if not args.eval_only:
        jobs.refuse_other_inputs(backend, args.resume)
    log = build_logger(backend.output_dir / 'log.txt')
    if backend_name == 'torchvision' and args.backend == 'auto':
        log.info('detectron2 is not installed: torchvision trains the same config. '
                 'To install detectron2: %s', backends.INSTALL)
    if rank == 0:
        for note in backend.notes:
            log.warning('data: %s', note)
    log.info('%s', backend.load_backbone())
    if not args.eval_only:
        backend.fit()


def main(args: argparse.Namespace) -> int:
    """Check the arguments and start one process for each GPU."""
    if stray := [word for word in args.opts if word.startswith('--')]:
        raise UserError(f'{stray[0]} stands behind KEY VALUE', where='command line',
                        expected='options first, then KEY VALUE KEY VALUE ...')
    if args.compare and args.opts and Path(args.opts[0]).is_dir():
        raise UserError(f'{args.opts[0]} is a folder where KEY VALUE is expected',
                        where='--compare', expected='--compare OUT --compare OUT, one each')
    there = torch.cuda.device_count()
    if args.num_gpus is None:
        args.num_gpus = min(1, there)
    if args.num_gpus > there:
        raise UserError(f'{args.num_gpus} GPUs are asked for, this machine has {there}',
                        where='--num-gpus', expected=f'at most {there}; 0 runs on the CPU')
    backend_name = backends.choose_backend(args.backend)
    processes = args.num_gpus or args.cpu_processes
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    if processes == 1:
        work(0, 1, port, backend_name, args)
    else:
        errors = torch.multiprocessing.get_context('spawn').SimpleQueue()
        try:
            torch.multiprocessing.start_processes(
                entry, (errors, processes, port, backend_name, args), processes)
        except torch.multiprocessing.ProcessExitedException:
            if errors.empty():
                raise
            raise UserError(errors.get()) from None
    return 0


def entry(rank: int, errors: Any, *rest: object) -> None:
    """Start of a spawned process: a user's mistake goes to the first one, which ends the others."""
    try:
        work(rank, *rest)
    except UserError as error:
        errors.put(str(error))
        os._exit(2)
