"""Fine-tune a pretrained backbone into an instance segmentation model, and evaluate it.

Example:
    openselfsup segment instance --config-file GlaS/GlaS_R_18_FPN_1x_moco --num-gpus 4 \\
        --datasets-folder DIR MODEL.WEIGHTS backbone.pkl SOLVER.IMS_PER_BATCH 16 OUTPUT_DIR OUT
    openselfsup segment instance --config-file YAML --num-gpus 0              # on the CPU
    openselfsup segment instance --config-file YAML --eval-only MODEL.WEIGHTS OUT/model_final.pth

DIR is what `openselfsup prepare` wrote. OUT/index.html shows the scores and the images.
"""

import argparse
from pathlib import Path

from ..errors import UserError
from ..shipped import find_config
from ..values import BACKENDS, Count, Whole
from .arguments import add_amp, checked

CONFIGS = 'segmentation/detection/configs'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup segment instance``."""
    parser.add_argument('--config-file', required=True, metavar='YAML',
                        help='config file, or the name of one of ours: GlaS/GlaS_R_18_FPN_1x_moco')
    parser.add_argument('--num-gpus', type=checked(Whole),
                        help='GPUs of this machine; 0 runs on the CPU (default: 1 if there is one)')
    parser.add_argument('--cpu-processes', type=checked(Count), default=1,
                        help='processes with --num-gpus 0, for tests of several processes')
    parser.add_argument('--datasets-folder', default='datasets', metavar='DIR')
    parser.add_argument('--backend', default='auto', metavar='|'.join(BACKENDS))
    add_amp(parser, 'precision, in place of SOLVER.AMP.ENABLED')
    parser.add_argument('--resume', action='store_true',
                        help='go on from the last checkpoint in OUTPUT_DIR')
    parser.add_argument('--eval-only', action='store_true')
    # One folder each: an option that takes several would take KEY VALUE too.
    parser.add_argument('--compare', action='append', default=[], metavar='OUT',
                        help='a finished run to show beside this one; may be given several times')
    parser.add_argument('opts', nargs=argparse.REMAINDER, metavar='KEY VALUE',
                        help='override keys of the YAML, as detectron2 does')


def main(args: argparse.Namespace) -> None:
    """Check the arguments, train and score."""
    if stray := [word for word in args.opts if word.startswith('--')]:
        raise UserError(f'{stray[0]} stands behind KEY VALUE', where='command line',
                        expected='options first, then KEY VALUE KEY VALUE ...')
    if args.compare and args.opts and Path(args.opts[0]).is_dir():
        raise UserError(f'{args.opts[0]} is a folder where KEY VALUE is expected',
                        where='--compare', expected='--compare OUT --compare OUT, one each')
    from ..transfer.instance.fine_tuning import FineTuning, fine_tune
    from ..transfer.instance.job import Job
    job = Job(str(find_config(args.config_file, CONFIGS, '.yaml')), args.opts,
              args.datasets_folder, resume=args.resume, eval_only=args.eval_only, amp=args.amp)
    fine_tune(FineTuning(job, args.num_gpus, args.cpu_processes, args.backend, args.compare))
