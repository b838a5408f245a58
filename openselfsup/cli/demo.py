"""Pretrain PLM on the tiles that come with the project, evaluate it, and show what happened.

Example:
    openselfsup demo --work-dir work_dirs/demo

The commands it runs are printed, so that they can be run again one by one.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from .. import claims, shipped
from ..claims import claimed
from ..errors import UserError
from ..files import write_text
from .arguments import add_overrides

CONFIG = 'demo/plm_r18'
CONFIG_FILE = 'GlaS/GlaS_R_18_FPN_demo'
EVALUATION_SIZE = 96
SEEDS = range(5)
IN_USE, MARKER = '.demo_in_use', '.demo'
# What a demo leaves together and nothing else does; earlier versions wrote no marker.
LEFT = ('config.py', 'summary.json', 'backbone.pth', 'glands_plm')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup demo``."""
    parser.add_argument('--work-dir', default='work_dirs/demo', help='is emptied first')
    add_overrides(parser, 'override single fields of the config')


def main(args: argparse.Namespace) -> None:
    """Run the demo in its own folder."""
    work_dir = Path(args.work_dir)
    # Not the claim of the tools that write there, each for itself.
    with claimed(work_dir, 'the demo', name=IN_USE):
        with claimed(work_dir, 'emptying the folder of a demo'):
            empty(work_dir)
        demonstrate(work_dir, args.cfg_options)


def demonstrate(work_dir: Path, cfg_options: list[str]) -> None:
    """Pretrain, evaluate and tell."""
    began = time.perf_counter()
    options = ['--cfg-options', *cfg_options] if cfg_options else []
    command('train', CONFIG, '--work-dir', work_dir, *options)
    minutes = (time.perf_counter() - began) / 60
    command('extract-backbone', work_dir / 'latest.pth', work_dir / 'backbone.pth')

    summary = summarise(work_dir, minutes)
    summary['knn'] = nearest_neighbours(work_dir / 'backbone.pth')
    summary['classification'] = classify(work_dir)
    summary['segmentation'] = segment(work_dir)
    write_text(work_dir / 'summary.json', json.dumps(summary, indent=2) + '\n')
    from ..visualization import plot_curves, write_run_page
    plot_curves({'demo': work_dir / 'metrics.jsonl'}, work_dir / 'curves.png')
    page = write_run_page(work_dir, summary)
    tell(summary, page, (time.perf_counter() - began) / 60)


def empty(work_dir: Path) -> None:
    """Remove an earlier demo, but nothing else."""
    left = [path for path in work_dir.iterdir() if path.name not in (IN_USE, claims.IN_USE)]
    if left and not (work_dir / MARKER).exists() and not all(
            (work_dir / name).exists() for name in LEFT):
        raise UserError('not the folder of an earlier demo', where=str(work_dir),
                        expected='an empty or a new folder')
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    (work_dir / MARKER).write_text('openselfsup demo empties this folder when it starts anew.\n')


def command(name: str, *words: str | Path | int) -> None:
    """Run one of our commands as a user would; its mistakes are its own to explain."""
    arguments = [*name.split(), *map(str, words)]
    print('\n$ openselfsup ' + shlex.join(arguments), flush=True)
    environment = dict(os.environ)
    if not shipped.INSTALLED:  # a checkout need not be installed
        environment['PYTHONPATH'] = os.pathsep.join(
            [str(shipped.ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
    if status := subprocess.run([sys.executable, '-m', 'openselfsup', *arguments],
                                env=environment).returncode:
        sys.exit(status)


def labeled_tiles() -> Path:
    """Return the folder of the bundled tiles that have labels, as short as it can be named."""
    folder, here = shipped.ROOT / 'data/demo/kather2016', Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def summarise(work_dir: Path, minutes: float) -> dict:
    """Return the facts of the run from its own files."""
    rows = [json.loads(line) for line in (work_dir / 'metrics.jsonl').read_text().splitlines()]
    environment = json.loads((work_dir / 'environment.json').read_text())
    # A contrastive loss rises while random vectors in the queue give way to real keys.
    full = [row for row in rows if row['queue_filled'] == 1] or rows
    few = max(len(full) // 10, 1)

    return dict(title='PLM on bundled tiles', config=CONFIG, method='PLM, ResNet-18',
                epochs=rows[-1]['epoch'], steps=rows[-1]['step'], minutes=minutes,
                tiles_per_s=statistics.fmean(row['tiles_per_s'] for row in rows),
                loss_start=statistics.fmean(row['loss'] for row in full[:few]),
                loss_end=statistics.fmean(row['loss'] for row in full[-few:]),
                device=environment['processor'])


def nearest_neighbours(weights: Path) -> dict:
    """Score the backbone against itself before training and against colour alone."""
    import torch

    from .. import load_backbone
    from ..datasets import ImageFolder, LabeledTileDataset
    from ..evaluation.knn import leave_one_out_accuracy
    from ..models.backbones.resnet import ResNet
    from ..training.features import extract_features

    source = ImageFolder(str(labeled_tiles()))
    tiles = LabeledTileDataset(source, size=EVALUATION_SIZE)
    labels = tiles.labels

    def score(backbone) -> float:
        return leave_one_out_accuracy(extract_features(backbone, tiles), labels, k=3)

    before = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        before.append(score(ResNet(18)))
    pixels = torch.stack([tiles[i][0] for i in range(len(tiles))]).float() / 255
    colour = torch.cat([pixels.mean((2, 3)), pixels.std((2, 3))], 1)
    colour = (colour - colour.mean(0)) / colour.std(0)
    chance = float(torch.bincount(labels).max() / len(labels))
    rows = [
        dict(name='the largest class, always', accuracy=chance),
        dict(name='mean and deviation of the colours', accuracy=leave_one_out_accuracy(
            colour, labels, k=3)),
        dict(name=f'ResNet-18 before training, {len(SEEDS)} seeds',
             accuracy=statistics.fmean(before), sd=statistics.stdev(before)),
        dict(name='ResNet-18 after PLM', accuracy=score(load_backbone(weights)), strong=True)]
    return dict(rows=rows, protocol=(
        f'Leave-one-out accuracy of the 3 nearest neighbours (cosine) among {len(labels)} tiles '
        f'of {len(source.require_classes())} classes, which the run saw without their labels. One '
        f'tile is {100 / len(labels):.1f} points, and the settings of this run were chosen by '
        'looking at these same tiles: this shows that features form, not how good a method is.'))


def classify(work_dir: Path) -> dict:
    """Run the linear evaluation on held-out tiles, several draws of them."""
    out = work_dir / 'evaluation'
    command('evaluate', '--train', labeled_tiles(), '--holdout', '0.4', '--model_path',
            work_dir / 'latest.pth', '--labeled_train', '1.0', '--seeds', '1', '2', '3',
            '--image_size', EVALUATION_SIZE, '--default_device', 'cpu', '--work_dir', work_dir,
            '--out', out)
    results = json.loads((out / 'results.json').read_text())
    found = [s for s in results['summary'] if s['protocol'].startswith('linear')]
    rows = [dict(name='PLM' if s['features'] == 'checkpoint' else s['features'],
                 accuracy=s['scores']['accuracy']['mean'], sd=s['scores']['accuracy']['sd'],
                 strong=s['features'] == 'checkpoint') for s in found]
    return dict(rows=rows, report='evaluation/report.html', protocol=(
        'linear-v1: 40 % of the 51 labelled tiles are held out, mean and deviation over three '
        'seeds. The run saw all tiles without their labels. The intervals are wide; the report '
        'gives them.'))


def segment(work_dir: Path) -> dict:
    """Fine-tune Mask R-CNN on drawn glands, from random weights and from the backbone."""
    data, runs = work_dir / 'glands', (work_dir / 'glands_random', work_dir / 'glands_plm')
    command('prepare', 'glas', data / 'official', data / 'datasets', '--demo', '--demo-count',
            24, 6, 4, '--demo-size', 128)
    options = ('--config-file', CONFIG_FILE, '--num-gpus', 0, '--backend', 'torchvision',
               '--datasets-folder', data / 'datasets')
    command('segment instance', *options, 'MODEL.WEIGHTS', '', 'OUTPUT_DIR', runs[0])
    command('segment instance', '--compare', runs[0], *options, 'MODEL.WEIGHTS',
            work_dir / 'backbone.pth', 'OUTPUT_DIR', runs[1])
    rows = []
    for run_dir, name in zip(runs, ('random weights', 'backbone after PLM')):
        results = json.loads((run_dir / 'results.json').read_text())
        rows.append(dict(name=name, accuracy=results['scores']['all']['segm']['AP'],
                         strong='PLM' in name))
    worst = sorted((runs[1] / 'overlays').glob('*.png'))[0]
    return dict(rows=rows, picture=str(worst.relative_to(work_dir)),
                caption='The image that went worst: what is there, and what was found.',
                report='glands_plm/index.html', protocol=(
                    'Mask R-CNN, a reduced config of 40 steps of 4 drawn images at 128 px '
                    f'({CONFIG_FILE}). Drawn glands are easy: this shows that the way from a '
                    'checkpoint to masks works, not which backbone is better.'))


def tell(summary: dict, page: Path, minutes: float) -> None:
    """Print the result and where to look."""
    print(f"\nPLM: {summary['steps']} steps in {summary['minutes']:.1f} min, "
          f"{summary['tiles_per_s']:.0f} tiles/s, loss {summary['loss_start']:.2f} -> "
          f"{summary['loss_end']:.2f}")
    for row in summary['knn']['rows']:
        spread = f" ± {100 * row['sd']:.1f}" if 'sd' in row else ''
        print(f"  3-NN accuracy, {row['name']}: {100 * row['accuracy']:.1f}{spread} %")
    for key, score in (('classification', 'linear accuracy'), ('segmentation', 'mask AP')):
        for row in summary[key]['rows']:
            print(f"  {score}, {row['name']}: {100 * row['accuracy']:.1f} %")
    print(f"\nDone in {minutes:.1f} min. Open {page.resolve()}\n"
          f"  views.png, matches.png, curves.png, train.log and backbone.pth lie beside it.\n"
          f"  The config is {CONFIG}: `openselfsup print-config {CONFIG} > mine.py`, change a\n"
          '  line and run `openselfsup train mine.py`.')
