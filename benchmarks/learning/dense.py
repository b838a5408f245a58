"""Frozen cells against masks: linear and kNN probes of patches, on gland and nuclear masks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from openselfsup import load_backbone
from openselfsup.errors import UserError
from openselfsup.evaluation.baselines import RANDOM_INIT
from openselfsup.evaluation.dense.data import DenseData, find_dense_data
from openselfsup.evaluation.dense.features import LAST_TWO, NO_NORM, find_layers, patch_colours
from openselfsup.evaluation.dense.measure import measure
from openselfsup.training.normalization import IMAGENET_MEAN, IMAGENET_STD

from .classification import answers_file, save, untrained
from .tissue import CASE

#: The second stage of a ResNet (stride 8), where it says more of glands in tiles of 224 px than the
#: last two together (stride 16) in docs/learning.md; and these.
LAYERS = ('2', LAST_TWO)


def find_images(folder: Path, final: bool) -> DenseData:
    """Return images with masks: NAME and NAME_anno in ``train`` and ``test`` of a folder.

    Without ``final`` a third of the training cases is held out and ``test`` is not read.
    """
    train, test = str(folder / 'train'), str(folder / 'test') if final else None
    return find_dense_data(train, train, test, test, None if final else 1 / 3, instances=True)


def find_masks(data: Path, final: bool) -> DenseData:
    """Return the tiles of a study with their masks, ``masks/train`` and ``masks/test`` beside."""
    parts = [str(data / part) for part in ('train', 'masks/train', 'test', 'masks/test')]
    return find_dense_data(*parts[:2], *(parts[2:] if final else (None, None)),
                           share=None if final else 1 / 3, instances=True, patient_pattern=CASE)


def official_glas(folder: Path, out: Path) -> Path:
    """Link the official GlaS images into ``train`` and ``test`` (A and B), and return the folder.

    Raises:
        UserError: they are not there.
    """
    images = sorted(folder.glob('*.bmp'))
    if not images:
        raise UserError('there are no GlaS images', where=str(folder), expected='train_1.bmp, '
                        'train_1_anno.bmp ..., testA_1.bmp ... as published')
    for image in images:
        link = out / ('train' if image.name.startswith('train') else 'test') / image.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(image.resolve())
    return out


def evaluate(name: str, checkpoint: Path | None, seed: int, data: DenseData, out: Path,
             wanted: Sequence[str]) -> None:
    """Probe the patches of one backbone or baseline; what was probed before is kept.

    Args:
        name: of a method, or a baseline.
        checkpoint: of a method's run.
        seed: of the run, of random weights and of the patches.
        data: images with masks that learn and that are tested.
        out: folder of the confusion matrices (M, C, C) of each test image, ``NAME_SEED.npz``.
        wanted: choices of feature maps, see :func:`find_layers`.
    """
    path = answers_file(out, name, seed)
    if path.exists():
        return
    reference = untrained(seed)
    layers, norm = find_layers(reference, wanted), (IMAGENET_MEAN, IMAGENET_STD)
    colours, own = patch_colours(layers)
    if name in colours:
        backbone, layers, norm = colours[name], own, NO_NORM
    else:
        backbone = reference if name == RANDOM_INIT else load_backbone(str(checkpoint))
    found: dict[str, np.ndarray] = {}
    for one in measure(backbone, data, layers, seed=seed, mean=norm[0], std=norm[1],
                       colours=name in colours):
        found[f'{one.protocol}, {one.layers.name}'] = one.confusions
    save(path, found)
