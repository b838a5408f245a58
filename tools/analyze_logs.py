"""Plot the curves of one run, or of several beside each other.

    python tools/analyze_logs.py work_dirs/plm work_dirs/densecl --out curves.png
    python tools/analyze_logs.py small=work_dirs/a/metrics.jsonl large=work_dirs/b --keys loss lr
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from openselfsup.cli.arguments import checked
from openselfsup.cli.run import run
from openselfsup.errors import UserError
from openselfsup.values import Fraction
from openselfsup.visualization import plot_curves, read_metrics


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', metavar='[NAME=]RUN',
                        help='a work directory or a metrics.jsonl, with a name if you like')
    parser.add_argument('--out', type=Path, default=Path('curves.png'),
                        help='the picture to write (default: %(default)s)')
    parser.add_argument('--keys', nargs='+', help='what to plot (default: everything)')
    parser.add_argument('--smooth', type=checked(Fraction), default=0.02,
                        help='width of the smoothing window as a fraction of a curve '
                             '(default: %(default)s, 0 for none)')
    return parser.parse_args()


def name_runs(runs: list[str]) -> dict[str, Path]:
    """Name each run: as given before '=', else after its work directory."""
    named: dict[str, Path] = {}
    for text in runs:
        name, equals, path = text.partition('=')
        if not equals or Path(text).exists():
            path = text
            folder = Path(path).parent if Path(path).suffix == '.jsonl' else Path(path)
            name = folder.resolve().name
        if name in named:
            raise UserError(f"two runs are called '{name}'", where=text,
                            expected=f'a name for each: first={named[name]} second={path}')
        named[name] = Path(path)
    return named


def main() -> None:
    args = parse_arguments()
    runs = name_runs(args.runs)
    plot_curves(runs, args.out, keys=args.keys, smooth=args.smooth)
    for name, path in runs.items():
        curves = read_metrics(path)
        ends = [f'{key} {curve.values[0]:.4g} -> {curve.values[-1]:.4g}'
                for key, curve in curves.items() if key.startswith('loss')]
        last = max(int(curve.steps[-1]) for curve in curves.values())
        print(f"{name}: {last} steps  {'  '.join(ends)}")
    print(f'curves: {args.out}')


if __name__ == '__main__':
    run(main)
