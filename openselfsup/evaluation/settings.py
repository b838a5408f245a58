"""What to evaluate, and how."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError, nearest
from .classifier import TrainSettings

LINEAR, KNN, AUGMENTED, FINETUNE = 'linear-v1', 'knn-v1', 'linear-augmented-v1', 'finetune-v1'
STAGES, SVM, LOW_SHOT, SEMI = 'linear-stages-v1', 'svm-v1', 'svm-low-shot-v1', 'semi-v1'
PROTOCOLS = (LINEAR, KNN, AUGMENTED, FINETUNE, STAGES, SVM, LOW_SHOT, SEMI)
DENSE_LINEAR, DENSE_KNN = 'dense-linear-v2', 'dense-knn-v1'
DENSE_PROTOCOLS = (DENSE_LINEAR, DENSE_KNN)


@dataclass
class EvaluationSettings:
    """What to evaluate, and how.

    Attributes:
        out: folder of the results. One that holds those of other weights, tiles or settings is
            refused, or another is taken, see ``rename_out``.
        model_name: architecture, a key of :data:`.networks.MODELS`.
        model_path: the checkpoint, or '' for the baselines alone.
        protocols: some of :data:`PROTOCOLS`; linear-v1 is always added.
        fractions: labelled shares of the training part.
        seeds: one row of each protocol for each.
        train: settings of the protocols that train with SGD.
        paper_compat: add the published, flattering variants of those protocols.
        device: where networks run.
        knn_k, knn_temperature: of knn-v1.
        head_lr: of semi-v1, how many times the learning rate of the backbone that of the head may
            be; the best on the validation tiles is taken.
        imagenet: ImageNet weights, None for torchvision's cache.
        baselines: False leaves them out (for tests of single protocols).
        resamples: bootstrap resamples.
        say: receives every line that a user should read.
        resizing: how a published ViT fits its positions to other grids, 'timm' or 'dino'; told
            from the weights if None.
        normalize: mean and std of the images; what the weights want if None, see
            :func:`~openselfsup.training.normalization.normalization_of`.
        rename_out: where ``out`` holds other results, write to ``out_2``, ``out_3``, ...
    """

    out: Path
    model_name: str = 'resnet18'
    model_path: str = ''
    protocols: tuple[str, ...] = (LINEAR, KNN)
    fractions: tuple[float, ...] = (1.0,)
    seeds: tuple[int, ...] = (42,)
    train: TrainSettings = field(default_factory=TrainSettings)
    paper_compat: bool = False
    device: torch.device = torch.device('cpu')
    knn_k: int = 20
    knn_temperature: float = 0.07
    head_lr: tuple[float, ...] = (1.0, 10.0, 100.0)
    imagenet: str | None = None
    baselines: bool = True
    resamples: int = 1000
    say: Callable[[str], None] = print
    resizing: str | None = None
    normalize: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    rename_out: bool = False

    def described(self) -> dict[str, Any]:
        """Return what was asked for: all settings that results depend on, as JSON can hold them."""
        left_out = ('out', 'model_path', 'device', 'say', 'rename_out')
        found = {k: v for k, v in asdict(self).items() if k not in left_out}
        found['train'].pop('workers')
        if SEMI not in self.protocols:
            found.pop('head_lr')
        return json.loads(json.dumps(found))  # tuples become lists, as they will when read back

    def check(self) -> None:
        """Refuse what no evaluation can be run with, all of it at once.

        Raises:
            UserError: a protocol that is none of ours, numbers outside their range.
        """
        wrong = []
        for protocol in self.protocols:
            if protocol not in PROTOCOLS:
                close = nearest(protocol, PROTOCOLS)
                wrong.append(f"--protocols: no protocol is called '{protocol}'; expected one of "
                             + ', '.join(PROTOCOLS) + (f"; did you mean '{close}'?" if close
                                                       else ''))
        train = self.train
        for flag, values, inside, expected in (
                ('--labeled_train', self.fractions, lambda x: 0 < x <= 1,
                 'a share, above 0 and at most 1'),
                ('--seed', self.seeds, lambda x: x >= 0, 'at least 0'),
                ('--ft_epoch', [train.epochs], lambda x: x >= 1, 'at least 1'),
                ('--lr', [train.lr], lambda x: x >= 0, 'at least 0'),
                ('--batch_size', [train.batch_size], lambda x: x >= 1, 'at least 1'),
                ('--early_stop', [train.early_stop], lambda x: x >= 1, 'at least 1'),
                ('--validation_split', [train.validation_split], lambda x: 0 < x < 1,
                 'a share, between 0 and 1'),
                ('--image_size', [train.image_size], lambda x: x >= 32, 'at least 32'),
                ('--head_lr', self.head_lr, lambda x: x > 0, 'above 0'),
                ('--knn_k', [self.knn_k], lambda x: x >= 1, 'at least 1'),
                ('--knn_temperature', [self.knn_temperature], lambda x: x > 0, 'above 0')):
            wrong += [f'{flag}: {value:g} is out of range; expected {expected}'
                      for value in values if not inside(value)]
        if wrong:
            raise UserError('\n'.join(wrong))
