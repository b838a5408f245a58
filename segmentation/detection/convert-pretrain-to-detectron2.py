"""Convert a backbone to the pickle that detectron2 loads.

    python convert-pretrain-to-detectron2.py backbone.pth backbone.pkl

The input may be an extracted backbone, a training checkpoint of ours, or a published file of
PLM or CA2CL.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from openselfsup.cli.run import run
from openselfsup.transfer.instance.weights import convert


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('input', metavar='backbone.pth')
    parser.add_argument('output', metavar='backbone.pkl')
    args = parser.parse_args()
    print(convert(args.input, args.output))
    return 0


if __name__ == '__main__':
    run(main)
