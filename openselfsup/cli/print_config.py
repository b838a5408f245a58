"""Print a config as it will run: bases merged, overrides applied, defaults filled in.

Example:
    openselfsup print-config PLM_SSL/r18_bs256_ep200_lambda_1.0 --cfg-options optimizer.lr=0.1
"""

import argparse

from .arguments import add_config_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup print-config``."""
    add_config_arguments(parser)


def main(args: argparse.Namespace) -> None:
    """Read the config, check it, print it."""
    from ..engine.config_text import config_text
    from ..lineage.configs import load_config
    print(config_text(load_config(args.config, args.cfg_options)), end='')
