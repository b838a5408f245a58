"""Frozen cells against masks: linear and kNN probes of patches, on masks of glands."""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from openselfsup.errors import UserError
from openselfsup.evaluation.dense.data import DenseData, find_dense_data
from openselfsup.evaluation.dense.features import ALL, LAST_TWO, NO_NORM, Layers, patch_colours
from openselfsup.evaluation.dense.measure import measure
from openselfsup.evaluation.settings import DENSE_PROTOCOLS

from .classification import answers_file, save
from .networks import Network
from .tissue import CASE

#: The second stage of a ResNet (stride 8), where it says more of glands in tiles of 224 px than the
#: last two together (stride 16) in docs/learning.md; and these.
LAYERS = ('2', LAST_TWO)


def choice(text: str) -> str:
    """Return a choice of feature maps on a command line, as long as it is one."""
    if not re.fullmatch(rf'{LAST_TWO}|{ALL}|[1-9]\d*(\+[1-9]\d*)*', text):
        raise argparse.ArgumentTypeError(f"'{text}' names no feature maps; expected {LAST_TWO}, "
                                         f"{ALL}, or numbers from 1 such as '3' or '3+4'")
    return text


def find_images(folder: Path, final: bool) -> DenseData:
    """Return images with masks: NAME and NAME_anno in ``train`` and ``test`` of a folder.

    Without ``final`` a third of the training cases is held out and ``test`` is not read.
    """
    train, test = str(folder / 'train'), str(folder / 'test') if final else None
    return find_dense_data(train, train, test, test, None if final else 1 / 3, instances=True)


def find_masks(data: Path, final: bool, pattern: str | None = CASE) -> DenseData:
    """Return the tiles of a study with their masks, ``masks/train`` and ``masks/test`` beside.

    A pattern finds the case of each, see :func:`.tissue.read_tiles`; without one TCGA barcodes do.
    """
    parts = [str(data / part) for part in ('train', 'masks/train', 'test', 'masks/test')]
    return find_dense_data(*parts[:2], *(parts[2:] if final else (None, None)),
                           share=None if final else 1 / 3, instances=True, patient_pattern=pattern)


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


def questions(cells: Sequence[Mapping[str, Layers]]) -> list[str]:
    """Return every probe of some networks' cells, see :meth:`.networks.Network.cells`."""
    return list(dict.fromkeys(f'{protocol}, {which}' for asked in cells for which in asked
                              for protocol in DENSE_PROTOCOLS))


def evaluate(name: str, network: Network | None, checkpoint: Path | None, seed: int,
             data: DenseData, cells: Sequence[Mapping[str, Layers]], out: Path,
             device: str = 'cpu') -> dict[str, np.ndarray]:
    """Probe the patches of one backbone or baseline; what was probed before is kept.

    Args:
        name: of a method, or a baseline.
        network: kind of its backbone, None for colours.
        checkpoint: of a method's run; None stands for random weights.
        seed: of the run, of random weights and of the patches.
        data: images with masks that learn and that are tested.
        cells: of the network; of colours those of all networks, whose patches they take.
        out: folder of the answers, ``NAME_SEED.npz``.
        device: of the backbone, 'cpu', or 'cuda' for a GPU if there is one.

    Returns:
        Confusion matrices (M, C, C) of each test image, by question.
    """
    path = answers_file(out, name, seed)
    found = dict(np.load(path)) if path.exists() else {}
    for asked in cells:
        missing = {which: layers for which, layers in asked.items()
                   if not set(questions([{which: layers}])) <= set(found)}
        if missing:
            found |= _probe(name, network, checkpoint, seed, data, missing, device)
            save(path, found)
    return {question: found[question] for question in questions(cells)}


def _probe(name: str, network: Network | None, checkpoint: Path | None, seed: int,
           data: DenseData, cells: Mapping[str, Layers], device: str) -> dict[str, np.ndarray]:
    layers = list(cells.values())
    norm: tuple[Sequence[float], Sequence[float]]
    if network is None:
        colours, layers = patch_colours(layers)
        backbone, norm = colours[name], NO_NORM
    else:
        backbone, wanted = (network.backbone(checkpoint, seed, device),
                            network.normalization(checkpoint))
        norm = wanted.mean, wanted.std
    named = dict(zip(layers, cells))
    return {f'{one.protocol}, {named[one.layers]}': one.confusions for one in measure(
        backbone, data, layers, seed=seed, mean=norm[0], std=norm[1], colours=network is None)}
