"""Pretrain a backbone.

Example:
    openselfsup train PLM_SSL/r18_bs256_ep200_1gpu                     # CPU or one GPU
    torchrun --nproc_per_node=4 -m openselfsup train CONFIG            # four GPUs
    srun openselfsup train CONFIG --launcher slurm                     # many nodes
"""

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..values import LAUNCHERS, Count, Positive, Seed
from .arguments import add_amp, add_config_arguments, checked

if TYPE_CHECKING:
    from torch.distributed import Store

    from ..training.presence import Presence

DEV_BATCH = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup train``."""
    add_config_arguments(parser)
    parser.add_argument('--work-dir', '--work_dir', metavar='DIR',
                        help='where everything is written (default work_dirs/<config name>)')
    going_on = parser.add_mutually_exclusive_group()
    going_on.add_argument('--resume', nargs='?', const='auto', metavar='CKPT',
                          help='go on from CKPT, or from latest.pth of the work directory; a '
                          'published CKPT of this method gives all its weights to a new run')
    parser.add_argument('--pretrained', metavar='CKPT',
                        help='weights for the backbone: torchvision, timm, ours or published')
    add_amp(parser, 'precision')
    parser.add_argument('--seed', type=checked(Seed))
    parser.add_argument('--deterministic', action='store_true', default=None,
                        help='deterministic kernels only')
    parser.add_argument('--launcher', choices=LAUNCHERS,
                        help='how processes were started (default: found out)')
    parser.add_argument('--timeout', type=checked(Positive), default=1800., metavar='SECONDS',
                        help='after which a run of several processes whose step does not end says '
                             'who is missing, and leaves')
    parser.add_argument('--dry-run', action='store_true',
                        help='build everything, run one batch, print what would run, and stop')
    add = parser.add_argument_group('published flags').add_argument
    going_on.add_argument('--resume_from', dest='resume', metavar='CKPT', help='--resume CKPT')
    going_on.add_argument('-c', '--continue_training', dest='resume', action='store_const',
                          const='auto', help='--resume')
    add('-d', '--dev', action='store_true', help=f'{DEV_BATCH} tiles a process')
    add('--gpus', type=checked(Count), default=1, metavar='N',
        help='1, or the number of processes that the launcher has started')
    add('--port', type=checked(Count), help='where the processes of --launcher slurm meet')
    add('--local-rank', '--local_rank', type=int, help=argparse.SUPPRESS)


def main(args: argparse.Namespace) -> int:
    """Train, or try one batch; return the exit status."""
    from ..lineage.configs import load, remarks
    from ..training import launch
    found = load(args.config, args.cfg_options, launch.processes(args.launcher))
    cfg = found.cfg
    for name in ('pretrained', 'amp', 'seed', 'deterministic', 'work_dir'):
        if getattr(args, name) is not None:
            cfg[name] = getattr(args, name)
    cfg.work_dir = cfg.work_dir or str(Path('work_dirs') / Path(cfg.filename).stem)
    resume = args.resume or found.resume
    from ..engine.train import dry_run, train
    launch.use_port(args.launcher, args.port)
    try:
        # Who watches speaks before torch does.
        where = launch.start(args.launcher, args.timeout + 60)
        if args.gpus not in (1, where.world_size):
            raise UserError(f'{args.gpus} GPUs are asked for, {where.world_size} process(es) were '
                            'started, and each trains on one', where='--gpus',
                            expected=f'torchrun --nproc_per_node={args.gpus} tools/train.py ...')
        if args.dev:
            cfg.global_batch_size = DEV_BATCH * where.world_size * cfg.accumulate
        if args.dry_run:
            with tempfile.TemporaryDirectory() as scratch:
                dry_run(cfg, where, scratch, remarks(found), resume)
            return 0
        return train(cfg, where, resume, remarks(found), present(launch.connect(), args.timeout))
    finally:
        launch.stop()


def present(store: 'Store | None', patience: float) -> 'Presence | None':
    """Return what tells and watches who is there, None for one process."""
    if store is None:
        return None
    from ..training.presence import Presence
    from .tell import tell
    return Presence(store, patience, tell)
