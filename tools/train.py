"""Pretrain a backbone.

    python tools/train.py CONFIG                                       # CPU or one GPU
    torchrun --nproc_per_node=4 tools/train.py CONFIG                  # four GPUs
    srun python tools/train.py CONFIG --launcher slurm                 # many nodes
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from openselfsup.engine.cli import add_config_arguments, checked, run  # noqa: E402
from openselfsup.engine.config import load_config  # noqa: E402
from openselfsup.training import launch  # noqa: E402
from openselfsup.values import Seed  # noqa: E402


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument('--work-dir', '--work_dir', metavar='DIR',
                        help='where everything is written (default work_dirs/<config name>)')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CKPT',
                        help='go on from CKPT, or from latest.pth of the work directory')
    parser.add_argument('--pretrained', metavar='CKPT',
                        help='weights for the backbone: torchvision, timm, ours or published')
    parser.add_argument('--amp', choices=('auto', 'bf16', 'fp16', 'off'), help='precision')
    parser.add_argument('--seed', type=checked(Seed))
    parser.add_argument('--deterministic', action='store_true', default=None,
                        help='deterministic kernels only')
    parser.add_argument('--launcher', choices=launch.LAUNCHERS,
                        help='how processes were started (default: found out)')
    parser.add_argument('--local-rank', '--local_rank', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--dry-run', action='store_true',
                        help='build everything, run one batch, print what would run, and stop')
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    cfg = load_config(args.config, args.cfg_options)
    for name in ('pretrained', 'amp', 'seed', 'deterministic', 'work_dir'):
        if getattr(args, name) is not None:
            cfg[name] = getattr(args, name)
    cfg.work_dir = cfg.work_dir or str(Path('work_dirs') / Path(args.config).stem)
    # Imported late: a typo in the arguments should not wait for the whole library.
    from openselfsup.engine.train import dry_run, train
    try:
        where = launch.start(args.launcher)
        if args.dry_run:
            with tempfile.TemporaryDirectory() as scratch:
                dry_run(cfg, where, scratch)
            return 0
        return train(cfg, where, args.resume)
    finally:
        launch.stop()


if __name__ == '__main__':
    run(main)
