"""Say how well a classifier that was trained with labels knows other tiles.

Example:
    openselfsup test Classification/r18_bs256_ep100 OUT/latest.pth --data CRC-VAL-HE-7K
    openselfsup test PUBLISHED.py epoch_100.pth
    torchrun --nproc_per_node=4 -m openselfsup test CONFIG CKPT --data FOLDER

A published config names its validation tiles itself. Accuracy, F1 and others, with intervals, are
printed and written to test.json in --work_dir, which keeps those of other weights, tiles or
settings. To judge a pretrained backbone, use evaluate.
"""

import argparse
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import check_folder
from ..values import LAUNCHERS, Count
from .arguments import add_amp, add_config_arguments, checked

SHOWN = ('accuracy', 'top5', 'balanced_accuracy', 'macro_f1', 'auroc')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup test``."""
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='of the classifier, with its head')
    parser.add_argument('--data', metavar='FOLDER', help='class folders to test on')
    parser.add_argument('--patient_pattern', metavar='REGEX',
                        help='finds the patient in a path (default: TCGA barcodes): intervals '
                             'redraw patients where all paths tell theirs, else tiles')
    parser.add_argument('--size', type=checked(Count),
                        help='side of the input (default: that of the views)')
    parser.add_argument('--work_dir', '--work-dir', type=Path, metavar='DIR',
                        help='where test.json goes (default: the folder of the checkpoint)')
    add_amp(parser, 'precision (default: %(default)s)', 'off')
    parser.add_argument('--launcher', choices=LAUNCHERS,
                        help='how processes were started (default: found out)')
    parser.add_argument('--port', type=checked(Count),
                        help='where the processes of --launcher slurm meet')
    parser.add_argument('--local-rank', '--local_rank', type=int, help=argparse.SUPPRESS)


def main(args: argparse.Namespace) -> None:
    """Test, print the scores and write them."""
    folder = args.work_dir or Path(args.checkpoint).parent
    check_folder(folder)
    from ..lineage.configs import load_config
    from ..training import launch
    cfg = load_config(args.config, args.cfg_options)
    try:
        launch.use_port(args.launcher, args.port)
        where = launch.start(args.launcher)
        _test(args, cfg, folder, where.device)
    finally:
        launch.stop()


def _test(args: argparse.Namespace, cfg: Any, folder: Path, device: Any) -> None:
    from ..distributed import is_main
    from ..evaluation.data import paths_of
    from ..evaluation.networks import weights_hash
    from ..evaluation.ownership import digest
    from ..evaluation.patients import all_or_none, check_pattern, patients_of, redrawn
    from ..evaluation.table import heading, percent
    from ..evaluation.trained_classifier import (
        labels_as_trained,
        load_classifier,
        refuse_other_scores,
        score_classifier,
    )
    from ..files import write_json
    from ..models.algorithms.classification import Classification
    from ..registry import ALGORITHMS
    from ..training.precision import resolve
    source, size, resize = _tiles(args, cfg)
    model = ALGORITHMS.build(cfg.model)
    if not isinstance(model, Classification):
        raise UserError(f"'{cfg.model.type}' learns without labels and has no classes",
                        where=args.config, expected='a config of Classification; '
                        'openselfsup evaluate judges the backbones of others')
    loaded = load_classifier(model, args.checkpoint)
    labels = labels_as_trained(source, _trained_classes(cfg), int(model.head.num_classes))
    told = patients_of(paths := paths_of(source), args.patient_pattern)
    check_pattern(args.patient_pattern, told, paths)
    patients = redrawn(all_or_none(told))
    normalize = (cfg.normalize['mean'], cfg.normalize['std'])
    amp = resolve(args.amp, device, '--amp')
    inputs = dict(
        weights=weights_hash(model), model=cfg.model.to_dict(), tiles=digest(source),
        labels=sorted(set(labels.tolist())), size=size, resize=resize, normalize=normalize,
        amp=amp, patient_pattern=args.patient_pattern)
    path = folder / 'test.json'
    refuse_other_scores(path, inputs)
    found = score_classifier(model.to(device), source, labels, size, resize, normalize, amp,
                             folder, patients)
    if found is None or not is_main():
        return
    count = None if patients is None else len(set(patients.tolist()))
    print(f'{args.checkpoint}: {loaded}; {len(source)} tiles'
          + (f' of {count} patients' if count else ''))
    for head, scores in found.items():
        print(f'{head:<7}' + '  '.join(f"{heading(name)} {percent(scores[name]['value'])}"
                                       for name in SHOWN))
    if not count:
        print('intervals treat tiles as independent: no patients are told (--patient_pattern)')
    write_json(path, dict(
        config=str(args.config), checkpoint=str(args.checkpoint), tiles=len(source),
        patients=count, first=source.path(0), size=size, inputs=inputs, scores=found))
    print(f'scores: {path}')


def _tiles(args: argparse.Namespace, cfg: Any) -> tuple[Any, int, int | None]:
    """Return the tiles, the side of the input, and the short side before the crop."""
    from ..datasets import ImageFolder
    from ..datasets.recipes import view_recipes
    from ..lineage.validation import validation_of
    from ..shipped import find_config
    _, recipe = next(iter(view_recipes(cfg.dataset.recipe).values()))
    if args.data:
        size = args.size or recipe['size']
        return ImageFolder(args.data), size, round(size * 256 / 224)
    found = validation_of(find_config(args.config))
    if found is None:
        raise UserError('nothing says which tiles to test on', where='--data',
                        expected='a folder of class folders')
    size = args.size or found.size or recipe['size']
    return found.source, size, max(size, found.resize or size)


def _trained_classes(cfg: Any) -> list[str] | None:
    """Return the names of the classes that were trained, None where the tiles are not there."""
    from ..registry import SOURCES
    try:
        return SOURCES.build(cfg.dataset.source).classes
    except UserError:
        return None
