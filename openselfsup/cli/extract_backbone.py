"""Extract the backbone of a training checkpoint of ours, or of a published one.

Example:
    openselfsup extract-backbone work_dirs/demo/latest.pth backbone.pth

The result holds the query encoder's backbone under 'state_dict', without any prefix: what
torchvision's ResNets load strictly once their fc is left out. Of a checkpoint of ours it also says,
under 'meta', how the backbone is built and the normalisation of the images it was trained on.
Published checkpoints are those of PLM, ConCL, OpenSelfSup, CA2CL, VICRegL, DINO (its teacher) and
MoCo.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup extract-backbone``."""
    parser.add_argument('checkpoint', help='e.g. work_dirs/demo/latest.pth')
    parser.add_argument('out', help='file to write, e.g. work_dirs/demo/backbone.pth; '
                                    'one that holds something else is refused')


def main(args: argparse.Namespace) -> None:
    """Read, refuse or extract, write, and say what was done."""
    from ..checkpoints.extracting import extract_backbone
    print(extract_backbone(Path(args.checkpoint), Path(args.out)))
