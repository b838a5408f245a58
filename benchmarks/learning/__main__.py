"""Command line of the learning study: pretrain, evaluate, compare; what is finished is kept."""

import argparse
import hashlib
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from openselfsup import __version__
from openselfsup.cli.arguments import add_overrides, checked
from openselfsup.engine.config import load_config
from openselfsup.engine.config_text import config_text
from openselfsup.errors import UserError
from openselfsup.evaluation.comparison import lone_classes
from openselfsup.evaluation.dense.data import DenseData
from openselfsup.evaluation.ownership import digest
from openselfsup.files import read_json, write_json
from openselfsup.values import Count, Whole

from . import dense, glands, supervised, table
from .classification import COLOURS, answers_file
from .networks import Network, check_starts, find_networks
from .pretraining import (
    CONFIGS,
    METHODS,
    Budget,
    Start,
    check_tiles,
    config_path,
    find_configs,
    find_starts,
    pretrain,
)
from .study import Study
from .tissue import CASE, Tiles, parts

# What the study calls its own tiles, their cells, and the images of --glas.
GLANDS, GLAS = 'glands of the tiles', 'GlaS'
OURS = ('tiles', GLANDS, GLAS)


def main() -> None:
    """Run what is missing of the study and write its tables."""
    args = parse()
    budget, configs = Budget.of(args.budget), find_configs(args.methods, args.config)
    starts = find_starts(args.after, configs)
    out, seeds = args.out, list(range(args.seeds))
    tiles = parts(args.data, args.final, args.patient_pattern)
    own_tiles = [f"dataset.source.root={args.data / 'train'}"]
    options = {name: [*(own_tiles if name in args.methods else []), *args.cfg_options]
               for name in configs}
    networks = find_networks(configs, options, args.size)
    check_starts(starts, networks)
    check_tiles({name: config for name, config in configs.items() if name not in args.methods},
                options)
    known = settle(args, configs, starts)
    study = Study(out / ('final' if args.final else 'choosing'), tiles, args.size, networks,
                  image_sets(args, out), tuple(args.dense_layers), args.supervised,
                  detection(args, out, networks), args.gland_iterations, args.device,
                  args.seeds)
    baselines = [*COLOURS, *study.cells,
                 *([supervised.name_of(args.supervised)] if args.supervised else [])]
    check_names(configs, baselines)
    note(out, known, contents(configs, tiles, study.images, study.folder.name))
    about = described(args, tiles)
    print(f"{about['learn']} learn, {about['test']} are tested", flush=True)

    runs: list[tuple[str, Path | None, int]] = [(name, None, seed) for name in baselines
                                                for seed in seeds]
    # One seed of all methods, then the next: an interrupted study can be read.
    for seed in seeds:
        done: dict[str, Path] = {}
        for name, config in configs.items():
            start = starts.get(name)
            own = start.budget if start and start.budget else budget
            checkpoint = pretrain(config, out / 'runs' / f'{name}_{seed}', seed, own,
                                  options[name], args.device,
                                  done[start.method] if start else None)
            done[name] = checkpoint
            runs.append((name, checkpoint, seed))
            answer(study, runs, baselines, list(configs), about)
    if not configs:
        answer(study, runs, baselines, [], about)
    print(f"tables: {study.folder / 'tables.md'}, {study.folder / 'index.html'}")


def answer(study: Study, runs: list[tuple[str, Path | None, int]], baselines: list[str],
           methods: list[str], about: dict[str, str]) -> None:
    """Evaluate every run that has not been, and write the tables of what there is."""
    for run in runs:
        study.evaluate(*run)
    table.write(study.folder, study.estimates([*baselines, *methods]), baselines, about)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.learning', description=__doc__)
    add = parser.add_argument
    add('--data', type=Path, required=True, metavar='DIR',
        help='train/CLASS and test/CLASS of tiles, and masks/train/CLASS, masks/test/CLASS')
    add('--patient_pattern', default=CASE, metavar='REGEX',
        help='finds the case (patient) of a tile in its path, the first group; without it that of '
             'EBHI-SEG, ' + CASE)
    add('--glas', type=Path, metavar='DIR',
        help='the official GlaS images: cells are probed there and glands segmented')
    add('--images', type=named_folder, action='append', default=[], metavar='NAME=DIR',
        help='more images whose cells are probed: DIR/train and DIR/masks/train, and for --final '
             'DIR/test and DIR/masks/test if there are; masks are binary or ids of instances')
    add('--methods', type=lambda text: text.split(',') if text else [],
        default=list(METHODS), metavar='A,B',
        help=f"of {','.join(CONFIGS)}; without it {','.join(METHODS)}")
    add('--config', action='append', default=[], metavar='NAME=CONFIG', help='a method of your own')
    add('--after', action='append', default=[], metavar='NAME=METHOD[:BUDGET]',
        help='NAME starts from the backbone of METHOD of the same seed, with a budget on top')
    add('--seeds', type=checked(Count), default=3, help='pretraining runs of each method')
    add('--budget', default='40min', help='of each run: minutes, or tiles such as 100000tiles')
    add('--supervised', type=checked(Whole), nargs='?', const=supervised.EPOCHS, default=0,
        metavar='EPOCHS', help='also train from random weights with the labels, so many epochs of '
                               f'all of them (without a number: {supervised.EPOCHS})')
    add('--gland-iterations', type=checked(Whole), default=200, metavar='N',
        help='of a Mask R-CNN from each backbone, with --glas and --final; 0 leaves it out')
    add('--dense-layers', nargs='+', type=dense.choice, default=list(dense.LAYERS),
        metavar='LAYERS', help='feature maps whose cells are probed: last2, all, or numbers such '
                               'as 3 or 3+4; the nearest where a backbone has fewer')
    add('--device', choices=('cpu', 'cuda'), default='cpu', help='of training and of features')
    add('--size', type=checked(Count), default=224,
        help='side of the tiles that are evaluated, in pixels')
    add('--final', action='store_true', help='test on the test cases; without it a third of the '
                                             'training cases is held out, to choose by')
    add('--out', type=Path, default=Path('work_dirs/learning'))
    add_overrides(parser, 'fields of all configs')
    return parser.parse_args()


def settle(args: argparse.Namespace, configs: dict[str, str], starts: dict[str, Start]
           ) -> dict[str, Any]:
    """Return what the study in ``--out`` is of with this call, for :func:`note`.

    More methods, more seeds and more images may join; before anything was planned another budget
    may replace the first.

    Raises:
        UserError: the folder holds a study of other tiles, another budget or another config.
    """
    path = args.out / 'study.json'
    images = {name: str(folder.resolve()) for name, folder in args.images}
    configs = {name: config + (f', {starts[name]}' if name in starts else '')
               for name, config in configs.items()}
    settings = dict(data=str(args.data.resolve()), glas=args.glas and str(args.glas.resolve()),
                    budget=args.budget, size=args.size, layers=args.dense_layers,
                    options=args.cfg_options, patient_pattern=args.patient_pattern)
    known = read_json(path) if path.exists() else dict(settings=settings, configs={})
    known['settings'].setdefault('patient_pattern', CASE)  # the one that there was
    known.setdefault('images', {})  # there were none
    if not any(args.out.glob('runs/*/plan.json')):
        known['settings']['budget'] = None
    differing = [f'{key} was {value}, is now {settings[key]}'
                 for key, value in known['settings'].items()
                 if value != settings[key] and None not in (value, settings[key])]
    differing += [f'the config of {name} was {known["configs"][name]}, is now {config}'
                  for name, config in configs.items()
                  if known['configs'].get(name, config) != config]
    differing += [f'{name} was {known["images"][name]}, is now {folder}'
                  for name, folder in images.items()
                  if known['images'].get(name, folder) != folder]
    if differing:
        raise another_study(args.out, differing)
    settings['glas'] = settings['glas'] or known['settings']['glas']
    return dict(settings=settings, configs=known['configs'] | configs,
                images=known['images'] | images, contents=known.get('contents', {}))


def contents(configs: Mapping[str, str], tiles: tuple[Tiles, Tiles],
             images: Mapping[str, DenseData], kind: str) -> dict[str, str]:
    """Return a digest of what lies behind each name: configs as they are resolved, tiles, masks.

    Args:
        configs: path or name of a config by method.
        tiles: that learn and that are tested.
        images: with masks, by name.
        kind: 'choosing' or 'final', which hold out other images.
    """
    found = {f'the config of {name}': hashlib.sha256(
        config_text(load_config(config_path(config))).encode()).hexdigest()
        for name, config in configs.items()}
    for part in tiles:  # both are of the training tiles where cases are held out
        found[f'the tiles of {part.source.name}'] = digest(part.source)
    for name, data in images.items():
        found[f'the images of {name} ({kind})'] = digest(data.train, data.test, data.train.masks,
                                                         data.test.masks)
    return found


def note(out: Path, known: dict[str, Any], now: dict[str, str]) -> None:
    """Write what the study in a folder is of, so that no answer of another is taken for its own.

    Args:
        out: the folder.
        known: of :func:`settle`.
        now: of :func:`contents`.

    Raises:
        UserError: a config, or tiles, were changed since they were trained on or tested.
    """
    old = known['contents']
    if changed := [name for name, said in now.items() if old.get(name, said) != said]:
        raise another_study(out, [f'{name} changed since' for name in changed])
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / 'study.json', known | dict(contents=old | now), indent=1)


def another_study(out: Path, differing: list[str]) -> UserError:
    """Return the error of a folder whose answers are not of this study."""
    return UserError('another study is in this folder: ' + '; '.join(differing), where=str(out),
                     expected='an --out of its own')


def check_names(methods: Iterable[str], baselines: Iterable[str]) -> None:
    """Refuse methods whose answers would lie where those of a baseline, or another, do.

    Raises:
        UserError: there is such a method.
    """
    taken = {answers_file(Path(), name, 0): name for name in baselines}
    for method in methods:
        other = taken.setdefault(answers_file(Path(), method, 0), method)
        if other != method:
            raise UserError(f"a method called '{method}' would have the answers of '{other}'",
                            where='--config', expected='another NAME')


def image_sets(args: argparse.Namespace, out: Path) -> dict[str, dense.DenseData]:
    """Return the images with masks whose cells are probed."""
    sets = {}
    if (args.data / 'masks').is_dir():
        sets[GLANDS] = dense.find_masks(args.data, args.final, args.patient_pattern)
    if args.glas:
        sets[GLAS] = dense.find_images(dense.official_glas(args.glas, out / 'glas'), args.final)
    for name, folder in args.images:
        if name in (*sets, *OURS):
            raise UserError(f"'{name}' is the name of other images", where='--images',
                            expected='another NAME')
        sets[name] = dense.find_masks(folder, args.final and (folder / 'test').is_dir(), None)
    return sets


def named_folder(text: str) -> tuple[str, Path]:
    """Return name and folder of a NAME=DIR on a command line."""
    name, equals, folder = text.partition('=')
    if not (re.fullmatch(r'\w[\w .-]*', name) and equals and folder):
        raise argparse.ArgumentTypeError(f"'{text}' is no NAME=DIR with a NAME of letters, digits, "
                                         'dots, hyphens, underscores and spaces')
    return name, Path(folder)


def detection(args: argparse.Namespace, out: Path, networks: dict[str, Network]) -> Path | None:
    """Return GlaS as detectors train on it, or None where no glands are segmented."""
    if not (args.glas and args.gland_iterations):
        return None
    if not args.final:
        print('glands are segmented with --final only: their test images are not for choosing')
        return None
    if without := [name for name, one in networks.items() if not glands.detector_of(one)]:
        print('no glands are segmented with ' + ', '.join(without) + ': we have detectors for '
              'ResNet-18s and ViTs only')
    return glands.prepare(args.glas, out / 'datasets')


def described(args: argparse.Namespace, tiles: tuple[Tiles, Tiles]) -> dict[str, str]:
    """Return what a reader of the tables must know."""
    learn, test = (f'{len(part.indices)} tiles of {len(set(part.cases))} cases' for part in tiles)
    if not args.final:
        test += ', held out of the training part'
    if lone := lone_classes(next(iter(tiles[1].labels.values())), tiles[1].cases):
        test += (f', {len(lone)} classes of a single case, whose intervals say nothing of other '
                 'cases')
    return dict(learn=learn, test=test, size=f'{args.size} px',
                budget=f'{Budget.of(args.budget)} a run', seeds=str(args.seeds),
                version=__version__)


if __name__ == '__main__':
    try:
        main()
    except UserError as error:
        sys.exit(f'error: {error}')
