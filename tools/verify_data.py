"""Check tiles before training: print what is there, and leave with 1 if any is unusable.

    python tools/verify_data.py configs/PLM_SSL/r18_bs256_ep200_lambda_1.0.py
    python tools/verify_data.py data/demo/kather2016 --full
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from openselfsup.cli.run import run
from openselfsup.datasets.sources import ImageFolder, Source, build_source
from openselfsup.datasets.verify import verify
from openselfsup.engine.config import load_config
from openselfsup.errors import UserError


def sources(target: str, labels: bool) -> Iterator[tuple[str, Source]]:
    """Yield (name, source) of a folder, or of every ``source`` that a config describes."""
    if Path(target).suffix != '.py':
        yield target, ImageFolder(target, labels=labels)
        return
    found = list(_described(load_config(target).to_dict(), ''))
    if not found:
        raise UserError('this config describes no source of tiles', where=target)
    for key, source in found:
        yield key, build_source(source)


def _described(value: object, key: str) -> Iterator[tuple[str, dict]]:
    items = (value.items() if isinstance(value, dict)
             else enumerate(value) if isinstance(value, (list, tuple)) else ())
    for name, item in items:
        path = f'{key}.{name}' if key else str(name)
        if name == 'source' and isinstance(item, dict):
            yield path, item
        else:
            yield from _described(item, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('target', metavar='CONFIG_OR_FOLDER')
    parser.add_argument('--full', action='store_true',
                        help='decode every tile (minutes for 100,000) instead of its header')
    parser.add_argument('--no-labels', action='store_true',
                        help='take no labels from the names of the folders')
    args = parser.parse_args()
    bad = 0
    for name, source in sources(args.target, labels=not args.no_labels):
        summary = verify(source, full=args.full)
        print(f'{name}\n{summary}')
        bad += len(summary.bad)
    return 1 if bad else 0


if __name__ == '__main__':
    run(main)
