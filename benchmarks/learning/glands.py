"""Glands of GlaS, found by a detector that is fine-tuned from a backbone, by the users' commands.

Its test images are not for choosing: a study asks this at its end only.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

from openselfsup.files import read_json, write_json, write_text
from openselfsup.training.normalization import Wanted
from openselfsup.transfer.instance.resampled import Matches, matches

from .classification import answers_file, save
from .networks import RESNET18, Network
from .pretraining import command

#: What the glands that a detector finds are called, by its config.
DETECTORS = {'GlaS/GlaS_R_18_FPN_short': 'glands of GlaS',
             'GlaS/GlaS_ViT_short': 'glands of GlaS, ViTs'}


def detector_of(network: Network) -> str | None:
    """Return the config of a detector that takes such a backbone, None if we have none."""
    of_resnet, of_vit = DETECTORS
    return of_vit if network.is_vit else of_resnet if network.kind == RESNET18.kind else None


def prepare(official: Path, out: Path) -> Path:
    """Bring the official images into the form that detectors train on, once; return its folder.

    Raises:
        UserError: the command failed; its output is in the folder.
    """
    if not (out / 'done').exists():
        out.mkdir(parents=True, exist_ok=True)
        command([sys.executable, '-m', 'openselfsup', 'prepare', 'glas', str(official), str(out)],
                out / 'prepare.log', 'cpu')
        write_text(out / 'done', '')
    return out


def pixels(wanted: Wanted) -> list[str]:
    """Return what is to be overridden in a detector's config for the images of a backbone."""
    if (wanted.mean, wanted.std) == (Wanted.mean, Wanted.std):
        return []
    mean, std = ([round(255 * value, 3) for value in values]
                 for values in (wanted.mean, wanted.std))
    return ['MODEL.PIXEL_MEAN', str(mean), 'MODEL.PIXEL_STD', str(std)]


def evaluate(name: str, network: Network, checkpoint: Path | None, seed: int, datasets: Path,
             iterations: int, out: Path, device: str = 'cpu') -> None:
    """Fine-tune from one backbone and score it; what was finished before is kept.

    Args:
        name: of a method, or of random weights.
        network: kind of its backbone, one that :func:`detector_of` has a detector for.
        checkpoint: of a method's run; None starts from random weights.
        seed: of the run, and of what the fine-tuning draws.
        datasets: of :func:`prepare`.
        iterations: of the fine-tuning; its rate falls after 75 and 90 % of them.
        out: folder of the answers, ``NAME_SEED.npz``; all scores of a run are in
            ``NAME_SEED.json``. The detector itself is removed.
        device: 'cpu', or 'cuda' for a GPU if there is one.
    """
    path, config = answers_file(out, name, seed), detector_of(network)
    work, start = path.with_suffix(''), checkpoint
    if not path.exists():
        print(f'{name}, seed {seed}: glands, {iterations} iterations', flush=True)
        steps = (round(0.75 * iterations), round(0.9 * iterations))
        if network.is_vit and checkpoint is None:  # a detector tells its ViT from the weights
            start = path.with_suffix('.pth')
            network.write_untrained(start, seed)
        command([sys.executable, '-m', 'openselfsup', 'segment', 'instance',
                 '--config-file', str(config), '--backend', 'torchvision',
                 *(['--num-gpus', '0'] if device == 'cpu' else []),
                 '--datasets-folder', str(datasets), '--resume', 'SEED', str(seed),
                 *(['MODEL.WEIGHTS', str(start)] if start else []),
                 *pixels(network.normalization(checkpoint)),
                 'SOLVER.MAX_ITER', str(iterations), 'SOLVER.STEPS', str(steps),
                 'OUTPUT_DIR', str(work)], path.with_suffix('.log'), device)
        outcome = read_json(work / 'results.json')
        write_json(path.with_suffix('.json'),
                   {key: outcome[key] for key in ('protocol', 'scores', 'images', 'run')})
        save(path, answers(read_json(datasets / 'GlaS/annotations/test.json'), outcome,
                           read_json(work / 'coco_instances_results.json')))
    shutil.rmtree(work, ignore_errors=True)
    path.with_suffix('.pth').unlink(missing_ok=True)


def answers(truth: dict, outcome: dict, results: list[dict]) -> dict[str, np.ndarray]:
    """Return what every score of resampled images needs.

    Args:
        truth: content of a COCO JSON of one category, M images.
        outcome: content of ``results.json``.
        results: COCO results.

    Returns:
        ``dice`` and ``pq`` of each image, float64 (M,), and the fields of
        :class:`~openselfsup.transfer.instance.resampled.Matches` of its masks.
    """
    by_file = [outcome['images'][image['file_name']] for image in truth['images']]
    masks, = matches(truth, results, 'segm', outcome['max_detections'])
    return dict(masks._asdict(), **{key: np.array([image[key] for image in by_file])
                                    for key in ('dice', 'pq')})


def masks_of(run: dict[str, np.ndarray]) -> Matches:
    """Return the matches in what :func:`answers` returned."""
    return Matches(*(run[field] for field in Matches._fields))
