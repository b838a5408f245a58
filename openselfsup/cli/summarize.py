"""Mean and standard deviation of the scores of several fine-tunes.

Example:
    openselfsup summarize OUT/1 OUT/2 OUT/3 OUT/4 OUT/5 --out OUT/summary.json
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup summarize``."""
    parser.add_argument('runs', nargs='+', metavar='OUT', help='folders with results.json')
    parser.add_argument('--out', type=Path, help='JSON to write')
    parser.add_argument('--weights', metavar='BACKBONE',
                        help='refuse runs that started from another file than this')


def main(args: argparse.Namespace) -> None:
    """Print the table and write the summary."""
    from ..files import write_json
    from ..transfer.instance.scoring import mean_and_sd, read_outcomes, spread_table
    summary = mean_and_sd(read_outcomes(args.runs), args.weights)
    if args.out:
        write_json(args.out, summary)
    print(spread_table(summary), end='')
