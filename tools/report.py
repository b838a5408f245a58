"""Write the report of one evaluation anew, or compare several on one page.

    python tools/report.py work_dirs/evaluation/plm                       # its report.html
    python tools/report.py work_dirs/evaluation/plm --work-dir work_dirs/plm
    python tools/report.py plm=work_dirs/evaluation/a densecl=work_dirs/evaluation/b --out all.html
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from openselfsup.cli.run import run
from openselfsup.errors import UserError


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', metavar='[NAME=]RUN',
                        help='folder of an evaluation (with results.json), with a name if you like')
    parser.add_argument('--out', type=Path, default=Path('comparison.html'),
                        help='page that compares several runs (default: %(default)s)')
    parser.add_argument('--work-dir', '--work_dir',
                        help='of one run: work directory of its pretraining, for its curves')
    return parser.parse_args()


def name_runs(runs: list[str]) -> dict[str, str]:
    """Name each run: as given before '=', else after its folder."""
    named: dict[str, str] = {}
    for text in runs:
        name, equals, path = text.partition('=')
        if not equals or Path(text).exists():
            name, path = Path(text).resolve().name, text
        if name in named:
            raise UserError(f"two runs are called '{name}'", where=text,
                            expected=f'a name for each: first={named[name]} second={path}')
        named[name] = path
    return named


def main() -> None:
    args = parse_arguments()
    from openselfsup.visualization.comparison import write_comparison
    from openselfsup.visualization.report import write_report
    runs = name_runs(args.runs)
    if len(runs) == 1:
        print(f'report: {write_report(*runs.values(), args.work_dir)}')
    else:
        print(f'comparison: {write_comparison(runs, args.out)}')


if __name__ == '__main__':
    run(main)
