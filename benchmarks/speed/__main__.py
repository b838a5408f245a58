"""Command line of the benchmarks: a table of ratios, and JSON."""

import argparse
import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from openselfsup.training.environment import describe_environment

from .groups import groups, run_afresh
from .timing import Result


def main() -> None:
    known = groups()
    parser = argparse.ArgumentParser(prog='python -m benchmarks.speed', description=__doc__)
    parser.add_argument('--only', metavar='A,B', help='of ' + ','.join(known))
    parser.add_argument('--repeats', type=int, default=7, help='interleaved repeats, at least 5')
    parser.add_argument('--json', metavar='OUT', help='write the figures here as well')
    args = parser.parse_args()
    chosen = args.only.split(',') if args.only else list(known)
    if unknown := set(chosen) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if args.repeats < 5:
        parser.error('a ratio needs at least 5 repeats')
    console = Console(width=150 if not sys.stdout.isatty() else None)
    environment = describe_environment(torch.device('cpu'), 1)
    console.print(f"{environment['processor']}, {environment['cores']} cores, torch "
                  f"{torch.__version__} with {torch.get_num_threads()} threads")
    for library in ('lightly', 'albumentations', 'webdataset', 'litdata'):
        if importlib.util.find_spec(library) is None:
            console.print(f'{library} is not installed: no row for it')
    results: list[Result] = []
    for group in chosen:
        results += run_afresh(group, args.repeats)
        if args.json:  # after every group: what is known is kept if the rest is interrupted
            rows = {r.name: dataclasses.asdict(r) for r in results}
            Path(args.json).write_text(
                json.dumps(dict(machine=environment, **rows), indent=2) + '\n')
    console.print(table(results))


def table(results: list[Result]) -> Table:
    """Return the results as a table for people."""
    out = Table(title='Ours against the published way: medians, ratios with their whole spread')
    for column in ('work', 'ours', 'published', 'others', 'ratio', 'spread', 'extra memory'):
        out.add_column(column, overflow='fold')
    for r in results:
        others = ', '.join(f'{name} {value:,.1f}' for name, value in r.others.items())
        spread = f'{r.spread[0]:.2f} - {r.spread[1]:.2f}' if r.spread else ''
        memory = f'{r.memory_mb[0]:.1f} / {r.memory_mb[1]:.0f} MB' if r.memory_mb else ''
        if r.microseconds:
            median, low, high = r.microseconds
            others += f'{median:+.0f} µs a step ({low:+.0f} to {high:+.0f})'
        out.add_row(f'{r.name}: {r.what}', f'{r.ours:,.1f} {r.unit}',
                    f'{r.published:,.1f}' if r.published else '', others, r.verdict, spread,
                    memory)
    return out


if __name__ == '__main__':
    main()
