"""Print a config as it will run: bases merged, overrides applied, defaults filled in."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from openselfsup.cli.arguments import add_config_arguments
from openselfsup.cli.run import run
from openselfsup.engine.config import load_config
from openselfsup.engine.config_text import config_text


def main() -> None:
    """Read the config, check it, print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    args = parser.parse_args()
    print(config_text(load_config(args.config, args.cfg_options)), end='')


if __name__ == '__main__':
    run(main)
