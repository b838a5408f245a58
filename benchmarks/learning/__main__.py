"""Command line of the learning study: pretrain, evaluate, compare; what is finished is kept."""

import argparse
import json
import sys
from pathlib import Path

from openselfsup.cli.arguments import add_overrides, checked
from openselfsup.errors import UserError
from openselfsup.evaluation.baselines import COLOUR_HISTOGRAM, COLOUR_STATISTICS, RANDOM_INIT
from openselfsup.files import read_json, write_text
from openselfsup.values import Count

from . import classification, dense, results, table
from .pretraining import CONFIGS, Budget, find_configs, pretrain
from .tissue import parts

BASELINES = [COLOUR_STATISTICS, COLOUR_HISTOGRAM, RANDOM_INIT]


def main() -> None:
    """Run what is missing of the study and write its tables."""
    args = parse()
    budget, configs = Budget.of(args.budget), find_configs(args.methods, args.config)
    out, seeds = args.out, list(range(args.seeds))
    learn, test = tiles = parts(args.data, args.final)
    settle(args, configs)
    folder = out / ('final' if args.final else 'choosing')
    sets = image_sets(args, out)
    print(f'{len(learn.indices)} tiles of {len(set(learn.cases))} cases learn, '
          f'{len(test.indices)} of {len(set(test.cases))} are tested', flush=True)

    runs: list[tuple[str, Path | None, int]] = [(name, None, seed) for name in BASELINES
                                                for seed in seeds]
    # One seed of all methods, then the next: an interrupted study can be read.
    for seed in seeds:
        for name, config in configs.items():
            print(f'{name}, seed {seed}: pretraining, {budget}', flush=True)
            tiles_of = [f"dataset.source.root={args.data / 'train'}"] if name in CONFIGS else []
            checkpoint = pretrain(config, out / 'runs' / f'{name}_{seed}', seed, budget,
                                  [*tiles_of, *args.cfg_options], args.device)
            runs.append((name, checkpoint, seed))
            evaluate(runs, tiles, sets, args.size, folder)
            write(folder, list(configs), test, sets, budget)
    if not configs:
        evaluate(runs, tiles, sets, args.size, folder)
        write(folder, [], test, sets, budget)
    print(f"tables: {folder / 'tables.md'}, {folder / 'index.html'}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.learning', description=__doc__)
    add = parser.add_argument
    add('--data', type=Path, required=True, metavar='DIR',
        help='train/CLASS and test/CLASS of tiles, and masks/train/CLASS, masks/test/CLASS')
    add('--glas', type=Path, metavar='DIR', help='the official GlaS images: cells are probed there')
    add('--methods', type=lambda text: text.split(',') if text else [],
        default=list(CONFIGS), metavar='A,B', help='of ' + ','.join(CONFIGS))
    add('--config', action='append', default=[], metavar='NAME=CONFIG', help='a method of your own')
    add('--seeds', type=checked(Count), default=3, help='pretraining runs of each method')
    add('--budget', default='40min', help='of each run: minutes, or tiles such as 100000tiles')
    add('--device', choices=('cpu', 'cuda'), default='cpu')
    add('--size', type=checked(Count), default=224,
        help='side of the tiles that are evaluated, in pixels')
    add('--final', action='store_true', help='test on the test cases; without it a third of the '
                                             'training cases is held out, to choose by')
    add('--out', type=Path, default=Path('work_dirs/learning'))
    add_overrides(parser, 'fields of all configs')
    return parser.parse_args()


def settle(args: argparse.Namespace, configs: dict[str, str]) -> None:
    """Note what the study in ``--out`` is of, so that no answer of another is taken for its own.

    More methods and more seeds may join.

    Raises:
        UserError: the folder holds a study of other tiles, another budget or another config.
    """
    path = args.out / 'study.json'
    settings = dict(data=str(args.data.resolve()), glas=args.glas and str(args.glas.resolve()),
                    budget=args.budget, size=args.size, options=args.cfg_options)
    known = read_json(path) if path.exists() else dict(settings=settings, configs={})
    differing = [f'{key} was {value}, is now {settings[key]}'
                 for key, value in known['settings'].items() if value != settings[key]]
    differing += [f'the config of {name} was {known["configs"][name]}, is now {config}'
                  for name, config in configs.items()
                  if known['configs'].get(name, config) != config]
    if differing:
        raise UserError('another study is in this folder: ' + '; '.join(differing),
                        where=str(args.out), expected='an --out of its own')
    args.out.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(dict(settings=settings, configs=known['configs'] | configs),
                                indent=1) + '\n')


def image_sets(args: argparse.Namespace, out: Path) -> dict[str, dense.DenseData]:
    """Return the images with masks whose cells are probed."""
    sets = {}
    if (args.data / 'masks').is_dir():
        sets['glands of the tiles'] = dense.find_masks(args.data, args.final)
    if args.glas:
        sets['GlaS'] = dense.find_images(dense.official_glas(args.glas, out / 'glas'), args.final)
    return sets


def evaluate(runs: list[tuple[str, Path | None, int]], tiles: tuple, sets: dict, size: int,
             folder: Path) -> None:
    """Evaluate every run that has not been."""
    (folder / 'tiles').mkdir(parents=True, exist_ok=True)
    for name, checkpoint, seed in runs:
        classification.evaluate(name, checkpoint, seed, tiles, size, folder / 'tiles')
        for key, data in sets.items():
            (folder / key).mkdir(exist_ok=True)
            dense.evaluate(name, checkpoint, seed, data, folder / key)


def write(folder: Path, methods: list[str], test, sets: dict, budget: Budget) -> None:
    """Compare what has been answered so far, and write the tables."""
    names = [*BASELINES, *methods]
    values = {f'tiles: {question}': found for question, found in results.classification(
        test, results.by_name(folder / 'tiles', names)).items()}
    for key, data in sets.items():
        values |= {f'{key}: {probe}': found for probe, found in results.dense(
            data.cases('test'), results.by_name(folder / key, names)).items()}
    found = {question: results.estimates(by_name, names) for question, by_name in values.items()}
    table.write(folder, found, BASELINES, budget)


if __name__ == '__main__':
    try:
        main()
    except UserError as error:
        sys.exit(f'error: {error}')
