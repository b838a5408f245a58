"""Pretrain on the tiles that come with the project, evaluate it, and show what happened.

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

# SimCLR learns most in a few minutes; PLM goes on from it (docs/learning.md).
FIRST, CONFIG, METHOD = 'demo/simclr_r18', 'demo/plm_r18_continue', 'SimCLR, then PLM'
START = 'simclr'  # folder of the first run
CONFIG_FILE = 'GlaS/GlaS_R_18_FPN_demo'
EVALUATION_SIZE = 96
SEEDS = range(1, 6)
TRAIN, TEST = 'data/demo/kather2016', 'data/demo/kather2016_test'
IN_USE, MARKER = '.demo_in_use', '.demo'
# What demos of earlier versions, which wrote no marker, left together and nothing else does.
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
    command('train', FIRST, '--work-dir', work_dir / START, *options)
    command('train', CONFIG, '--pretrained', work_dir / START / 'latest.pth', '--work-dir',
            work_dir, *options)
    minutes = (time.perf_counter() - began) / 60
    command('extract-backbone', work_dir / 'latest.pth', work_dir / 'backbone.pth')

    from .demo_results import results
    summary = summarise(work_dir, minutes) | results(
        work_dir, {'SimCLR': work_dir / START / 'latest.pth', METHOD: work_dir / 'latest.pth'})
    summary['classification'] = classify(work_dir)
    summary['segmentation'] = segment(work_dir)
    write_text(work_dir / 'summary.json', json.dumps(summary, indent=2) + '\n')
    from ..visualization import plot_curves, write_run_page
    plot_curves({'SimCLR': work_dir / START / 'metrics.jsonl',
                 'PLM': work_dir / 'metrics.jsonl'}, work_dir / 'curves.png')
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


def bundled(name: str) -> Path:
    """Return a folder of bundled tiles, as short as it can be named."""
    folder, here = shipped.ROOT / name, Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def summarise(work_dir: Path, minutes: float) -> dict:
    """Return the facts of both runs from their own files."""
    runs = {'SimCLR': _logged(work_dir / START), 'PLM': _logged(work_dir)}
    environment = json.loads((work_dir / 'environment.json').read_text())
    return dict(title=f'{METHOD} on bundled tiles', config=f'{FIRST}, then {CONFIG}',
                method=f'{METHOD}, ResNet-18', minutes=minutes, device=environment['processor'],
                facts={f'{fact} of {name}': value for name, rows in runs.items()
                       for fact, value in _facts(rows).items()})


def _logged(run: Path) -> list[dict]:
    """Return the lines of a run's metrics that tell its loss; a probe's do not."""
    return [row for row in map(json.loads, (run / 'metrics.jsonl').read_text().splitlines())
            if 'loss' in row]


def _facts(rows: list[dict]) -> dict[str, str]:
    """Return steps, speed and loss of a run in words."""
    from ..training.progress import pace
    # A contrastive loss rises while random vectors in a queue give way to real keys.
    full = [row for row in rows if row.get('queue_filled', 1) == 1] or rows
    few = max(len(full) // 10, 1)
    first, last = (statistics.fmean(row['loss'] for row in part)
                   for part in (full[:few], full[-few:]))
    speed = statistics.fmean(row['tiles_per_s'] for row in rows)
    return {'Steps': f"{rows[-1]['step']:,}, {pace(speed)}",
            'Loss': f'{first:.2f} → {last:.2f}'}


def classify(work_dir: Path) -> dict:
    """Run the linear evaluation on the tiles of the test folder."""
    out = work_dir / 'evaluation'
    command('evaluate', '--train', bundled(TRAIN), '--test', bundled(TEST), '--model_path',
            work_dir / 'latest.pth', '--labeled_train', '1.0', '--seeds', *SEEDS,
            '--image_size', EVALUATION_SIZE, '--default_device', 'cpu', '--work_dir', work_dir,
            '--out', out)
    results = json.loads((out / 'results.json').read_text())
    rows = []
    for line in results['summary']:
        accuracy, own = line['scores']['accuracy'], line['features'] == 'checkpoint'
        if line['protocol'].startswith('linear'):
            rows.append(dict(name=METHOD if own else line['features'], accuracy=accuracy['mean'],
                             interval=(accuracy['low'], accuracy['high']), strong=own))
    return dict(rows=rows, report='evaluation/report.html', protocol=(
        f"linear-v1: learnt from {results['data']['train']['tiles']} tiles, tested on "
        f"{results['data']['test']['tiles']} others; mean of {len(SEEDS)} seeds and, in brackets, "
        'the 95 % interval over test tiles. Where intervals overlap widely, nothing is shown to '
        'be better. The run saw all tiles without their labels.'))


def segment(work_dir: Path) -> dict:
    """Fine-tune Mask R-CNN on drawn glands, from random weights and from the backbone."""
    data, runs = work_dir / 'glands', (work_dir / 'glands_random', work_dir / 'glands_pretrained')
    command('prepare', 'glas', data / 'official', data / 'datasets', '--demo', '--demo-count',
            24, 6, 4, '--demo-size', 128)
    options = ('--config-file', CONFIG_FILE, '--num-gpus', 0, '--backend', 'torchvision',
               '--datasets-folder', data / 'datasets')
    command('segment instance', *options, 'MODEL.WEIGHTS', '', 'OUTPUT_DIR', runs[0])
    command('segment instance', '--compare', runs[0], *options, 'MODEL.WEIGHTS',
            work_dir / 'backbone.pth', 'OUTPUT_DIR', runs[1])
    rows = []
    for run_dir, name in zip(runs, ('random weights', f'backbone after {METHOD}')):
        results = json.loads((run_dir / 'results.json').read_text())
        rows.append(dict(name=name, accuracy=results['scores']['all']['segm']['AP'],
                         strong=METHOD in name))
    worst = sorted((runs[1] / 'overlays').glob('*.png'))[0]
    return dict(rows=rows, picture=str(worst.relative_to(work_dir)),
                caption='The image that went worst: what is there, and what was found.',
                report='glands_pretrained/index.html', protocol=(
                    'Mask R-CNN, a reduced config of 40 steps of 4 drawn images at 128 px '
                    f'({CONFIG_FILE}). Drawn glands are easy: this shows that the way from a '
                    'checkpoint to masks works, not which backbone is better.'))


def tell(summary: dict, page: Path, minutes: float) -> None:
    """Print the result and where to look."""
    print(f"\n{METHOD}: {summary['minutes']:.1f} min")
    for name, value in summary['facts'].items():
        print(f'  {name}: {value}')
    for row in summary['knn']['rows']:
        spread = f" ± {100 * row['sd']:.1f}" if 'sd' in row else ''
        print(f"  3-NN accuracy, {row['name']}: {100 * row['accuracy']:.1f}{spread} %")
    for sentence in summary['knn']['said']:
        print(f'  {sentence}')
    for key, score in (('classification', 'linear accuracy'), ('segmentation', 'mask AP')):
        for row in summary[key]['rows']:
            print(f"  {score}, {row['name']}: {100 * row['accuracy']:.1f} %")
    print(f"\nDone in {minutes:.1f} min. Open {page.resolve()}\n"
          f"  all pictures, train.log and backbone.pth lie beside it.\n"
          f"  The configs are {FIRST} and {CONFIG}:\n"
          f'  `openselfsup print-config {FIRST} > mine.py`, change a line and run '
          '`openselfsup train mine.py`.')
