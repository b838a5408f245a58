"""Write the report of one evaluation anew, or compare several on one page.

Example:
    openselfsup report work_dirs/evaluation/plm                       # its report.html
    openselfsup report work_dirs/evaluation/plm --work-dir work_dirs/plm
    openselfsup report plm=work_dirs/evaluation/a densecl=work_dirs/evaluation/b --out all.html
"""

import argparse
from pathlib import Path

from .arguments import name_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup report``."""
    parser.add_argument('runs', nargs='+', metavar='[NAME=]RUN',
                        help='folder of an evaluation (with results.json), with a name if you like')
    parser.add_argument('--out', type=Path, default=Path('comparison.html'),
                        help='page that compares several runs (default: %(default)s)')
    parser.add_argument('--work-dir', '--work_dir',
                        help='of one run: work directory of its pretraining, for its curves')


def main(args: argparse.Namespace) -> None:
    """Write the page and print its path."""
    from ..visualization.comparison import write_comparison
    from ..visualization.report import write_report
    runs = name_runs(args.runs)
    if len(runs) == 1:
        run, = runs.values()
        print(f'report: {write_report(run, args.work_dir)}')
    else:
        print(f'comparison: {write_comparison(runs, args.out)}')
