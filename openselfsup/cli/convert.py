"""Convert a backbone to the pickle that detectron2 loads.

Example:
    openselfsup convert backbone.pth backbone.pkl

The input may be an extracted backbone, a training checkpoint of ours, or a published file of
PLM or CA2CL.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup convert``."""
    parser.add_argument('input', metavar='backbone.pth')
    parser.add_argument('output', metavar='backbone.pkl')


def main(args: argparse.Namespace) -> None:
    """Convert and say what was written."""
    from ..transfer.instance.weights import convert
    print(convert(args.input, args.output))
