"""Mean and standard deviation of the scores of several fine-tunes.

    python summarize.py OUT/1 OUT/2 OUT/3 OUT/4 OUT/5 --out OUT/summary.json
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from openselfsup.cli.run import run
from openselfsup.files import write_json
from openselfsup.transfer.instance.scoring import mean_and_sd, read_outcomes, spread_table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', metavar='OUT', help='folders with results.json')
    parser.add_argument('--out', type=Path, help='JSON to write')
    parser.add_argument('--weights', metavar='BACKBONE',
                        help='refuse runs that started from another file than this')
    args = parser.parse_args()
    summary = mean_and_sd(read_outcomes(args.runs), args.weights)
    if args.out:
        write_json(args.out, summary)
    print(spread_table(summary), end='')
    return 0


if __name__ == '__main__':
    run(main)
