"""The networks of one evaluation: the backbone in question, and what it is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..errors import UserError
from ..training.normalization import Wanted
from . import networks
from .baselines import IMAGENET_INIT, RANDOM_INIT, Renormalised, imagenet_weights
from .notes import Notes
from .settings import EvaluationSettings

CHECKPOINT = 'checkpoint'
RANDOM_INITS = 3


@dataclass
class Candidates:
    """Backbones by the name of what they start from.

    Attributes:
        model_name: of the architecture that all share.
        checkpoint: the network in question, None where only baselines are evaluated.
        backbones: by name, 'checkpoint', 'random init 0' ..., 'ImageNet init', on the device.
        normalise: mean and std of the input that all of them get.
    """

    model_name: str
    checkpoint: networks.Network | None
    backbones: dict[str, nn.Module]
    normalise: tuple[Sequence[float], Sequence[float]]

    @property
    def main(self) -> str:
        """The name of the backbone that is trained, and shown in pictures."""
        return CHECKPOINT if self.checkpoint else f'{RANDOM_INIT} 0'


def load_candidates(settings: EvaluationSettings, classes: int, notes: Notes) -> Candidates:
    """Load the checkpoint, and build what it is compared with.

    Args:
        settings: of the evaluation.
        classes: C, how many the data has.
        notes: told what was matched, and what is missing.

    Raises:
        UserError: a checkpoint that cannot be read, or does not fit.
    """
    checkpoint, backbones = None, {}
    if settings.model_path:
        checkpoint = networks.from_checkpoint(settings.model_name, settings.model_path,
                                              settings.resizing)
        notes.say(checkpoint.report)
        if checkpoint.doubt:
            notes.add(checkpoint.doubt)
        backbones[CHECKPOINT] = checkpoint.backbone
        head = checkpoint.head_classes
        if head not in (None, classes):
            notes.add(f'The head in the checkpoint knows {head} classes and the data has '
                      f'{classes}: it is left out, heads are trained anew.')
    else:
        notes.add('WARNING: no --model_path is given: only baselines are evaluated.')
    config = checkpoint.config if checkpoint else networks.named(settings.model_name)
    own = config['type'] not in {model['type'] for model in networks.MODELS.values()}
    if checkpoint and own and settings.model_name != EvaluationSettings.model_name:
        notes.add(f'--model_name {settings.model_name} counts for nothing: {settings.model_path} '
                  f"says itself that it is a {config.get('model', config['type'])}.")
    wanted = (Wanted(*settings.normalize, 'as given') if settings.normalize
              else checkpoint.wanted if checkpoint else Wanted())
    normalise = wanted.mean, wanted.std
    if checkpoint:
        notes.add(str(wanted))
    if settings.baselines or not checkpoint:
        for i, seed in enumerate(settings.seeds[:RANDOM_INITS]):
            backbones[f'{RANDOM_INIT} {i}'] = networks.build(config, seed)
    found = (Path(settings.imagenet) if settings.imagenet
             else None if own else imagenet_weights(settings.model_name))
    if settings.baselines and found is not None:
        network = networks.from_checkpoint(settings.model_name, found)
        if own and _shapes(network.backbone) != _shapes(backbones[f'{RANDOM_INIT} 0']):
            raise UserError('these are weights of another network than --model_path', where=str(
                found), expected=f"ones of a {config.get('model', config['type'])} of its size")
        notes.say(network.report)
        backbones[IMAGENET_INIT] = Renormalised(network.backbone, normalise,
                                                (network.wanted.mean, network.wanted.std))
    for name, backbone in backbones.items():
        backbones[name] = backbone.to(settings.device).to(
            memory_format=torch.channels_last)
    model_name = config['type'] if own else settings.model_name
    return Candidates(model_name, checkpoint, backbones, normalise)


def _shapes(backbone: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the sizes of weights, but for positions, which may be of another grid."""
    return {name: tuple(value.shape) for name, value in backbone.named_parameters()
            if not name.endswith('pos_embed')}


def family(name: str) -> str:
    """Return what a name is one of: 'random init 2' is one of several 'random init'."""
    return RANDOM_INIT if name.startswith(RANDOM_INIT) else name
