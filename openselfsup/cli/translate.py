"""Translate a published config (PLM_SSL, ConCL, OpenSelfSup) into one of ours.

It prints our config, with a comment at each line that is not one to one: repaired, ignored and
why, differs and how, or kept as published where our own configs do otherwise. `openselfsup train`
takes the published config itself and does the same.

Example:
    openselfsup translate PLM_SSL/configs/PLM_SSL/r18_bs256_ep200_lambda_1.0.py -o mine.py
"""

import argparse
from pathlib import Path

from ..values import Count
from .arguments import checked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup translate``."""
    parser.add_argument('config', help='published config file')
    parser.add_argument('-o', '--out', type=Path, metavar='OURS.py',
                        help='write it there instead of printing it')
    parser.add_argument('--processes', type=checked(Count), metavar='N',
                        help='how many will train, by which imgs_per_gpu is multiplied (default: '
                             'as many as the config means)')


def main(args: argparse.Namespace) -> None:
    """Translate, check, and print or write."""
    from ..errors import UserError
    from ..files import write_text
    from ..lineage.configs import load, translate
    from ..lineage.text import translated_text
    from ..shipped import find_config
    path = find_config(args.config)
    text = translated_text(translate(path, args.processes), path)
    load(path, processes=args.processes)  # what we cannot run is not written
    if args.out is None:
        print(text, end='')
        return
    if args.out.exists():
        raise UserError('this file is there already', where=str(args.out),
                        expected='a new name')
    write_text(args.out, text)
    print(args.out)
