"""Plot the curves of one run, or of several beside each other.

Example:
    openselfsup analyze work_dirs/plm work_dirs/densecl --out curves.png
    openselfsup analyze small=work_dirs/a/metrics.jsonl large=work_dirs/b --keys loss lr
"""

import argparse
from pathlib import Path

from ..values import Fraction
from .arguments import checked, name_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup analyze``."""
    parser.add_argument('runs', nargs='+', metavar='[NAME=]RUN',
                        help='a work directory or a metrics.jsonl, with a name if you like')
    parser.add_argument('--out', type=Path, default=Path('curves.png'),
                        help='the picture to write (default: %(default)s)')
    parser.add_argument('--keys', nargs='+', help='what to plot (default: everything)')
    parser.add_argument('--smooth', type=checked(Fraction), default=0.02,
                        help='width of the smoothing window as a fraction of a curve '
                             '(default: %(default)s, 0 for none)')


def main(args: argparse.Namespace) -> None:
    """Draw the curves and print where they begin and end."""
    from ..visualization import plot_curves, read_metrics
    runs = name_runs(args.runs)
    plot_curves(runs, args.out, keys=args.keys, smooth=args.smooth)
    for name, path in runs.items():
        curves = read_metrics(path)
        ends = [f'{key} {curve.values[0]:.4g} -> {curve.values[-1]:.4g}'
                for key, curve in curves.items() if key.startswith('loss')]
        last = max(int(curve.steps[-1]) for curve in curves.values())
        print(f"{name}: {last} steps  {'  '.join(ends)}")
    print(f'curves: {args.out}')
