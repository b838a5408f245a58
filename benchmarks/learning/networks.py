"""The kinds of backbones in a study: their random weights, their cells, what detects with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from openselfsup import load_backbone
from openselfsup.checkpoints import (
    BackboneRecord,
    backbone_record,
    load,
    load_backbone_weights,
    save,
)
from openselfsup.engine.building import tell_feature
from openselfsup.engine.config import load_config
from openselfsup.errors import UserError
from openselfsup.evaluation.baselines import RANDOM_INIT
from openselfsup.evaluation.dense.features import ALL, Layers, find_layers
from openselfsup.pretrained import known_config
from openselfsup.registry import BACKBONES
from openselfsup.training.normalization import Wanted, normalization_of

from .pretraining import Start, config_path


def device_of(device: str) -> torch.device:
    """Return the device of a command line: the CPU, or for 'cuda' a GPU if there is one."""
    return torch.device(device if torch.cuda.is_available() else 'cpu')


@dataclass(frozen=True)
class Network:
    """A kind of backbone.

    Attributes:
        name: of its random weights among the baselines.
        config: that it is built from.
        wanted: normalisation of its images in training.
    """

    name: str
    config: Mapping[str, Any]
    wanted: Wanted = Wanted()

    def untrained(self, seed: int) -> nn.Module:
        """Return it with the random weights of a seed."""
        torch.manual_seed(seed)
        return BACKBONES.build(dict(self.config))

    def backbone(self, checkpoint: Path | None, seed: int, device: str) -> nn.Module:
        """Return it with the weights of a run, or with random ones, on a device."""
        found = load_backbone(checkpoint) if checkpoint else self.untrained(seed)
        return found.to(device_of(device))

    def normalization(self, checkpoint: Path | None) -> Wanted:
        """Return that of the images of a run, or of random weights."""
        return normalization_of(checkpoint) if checkpoint else self.wanted

    def checkpoint(self, seed: int) -> dict[str, Any]:
        """Return the random weights of a seed as a checkpoint holds them."""
        normalize = dict(mean=list(self.wanted.mean), std=list(self.wanted.std))
        record = BackboneRecord('', dict(self.config), normalize=normalize).as_dict()
        return dict(state_dict=self.untrained(seed).state_dict(), meta=dict(backbone=record))

    def write_untrained(self, path: Path, seed: int) -> None:
        """Write the random weights of a seed as a checkpoint."""
        save(self.checkpoint(seed), path)

    def cells(self, wanted: Sequence[str]) -> dict[str, Layers]:
        """Return the feature maps whose cells are probed, by choice and stride: 'last2, stride 16'.

        A number that the network lacks stands for the nearest that it has. Maps to which several
        choices come are probed once, under one that names maps which it has, if there is any.

        Args:
            wanted: choices as :func:`~openselfsup.evaluation.dense.features.find_layers` has them.
        """
        found: dict[str, Layers] = {}
        for lacking in (False, True):
            for choice in wanted:
                numbers = [int(n) for n in choice.split('+') if n.isdecimal()]
                if (max(numbers, default=0) > self._maps) != lacking:
                    continue
                near = '+'.join(str(min(n, self._maps)) for n in numbers) or choice
                layers, = find_layers(self._built, [near])
                if layers.numbers not in [one.numbers for one in found.values()]:
                    found[f'{choice}, stride {layers.stride}'] = layers
        return found

    @property
    def patch_size(self) -> int | None:
        """Side of a ViT's patch in pixels, None of other networks."""
        return getattr(self._built, 'patch_size', None)

    @property
    def is_vit(self) -> bool:
        """Whether it is a ViT."""
        return bool(getattr(self._built, 'is_vit', False))

    @property
    def input(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation that its images are normalised with."""
        return self.wanted.mean, self.wanted.std

    @cached_property
    def kind(self) -> Any:
        """What is equal for networks whose random weights are the same but for the input."""
        sums = {name: (value.shape, float(value.double().abs().sum()))
                for name, value in self._built.state_dict().items()}
        return (type(self._built), sums, find_layers(self._built, [ALL]),
                getattr(self._built, 'feature', None))

    @cached_property
    def _maps(self) -> int:
        return len(find_layers(self._built, [ALL])[0].numbers)

    @cached_property
    def _built(self) -> nn.Module:
        return self.untrained(0)


RESNET18 = Network(RANDOM_INIT, dict(type='ResNet', depth=18))


def network_of(checkpoint: Path) -> Network:
    """Return the kind of backbone of a run's checkpoint.

    Raises:
        UserError: it does not say what its backbone is.
    """
    record = backbone_record(load(checkpoint), str(checkpoint))
    if record is None or record.config is None:
        raise UserError('this checkpoint does not say what its backbone is',
                        where=str(checkpoint), expected='one that a run of ours has saved')
    return Network(RANDOM_INIT, known_config(record, str(checkpoint)),
                   normalization_of(checkpoint))


def find_networks(configs: Mapping[str, str], options: Mapping[str, Sequence[str]], size: int
                  ) -> dict[str, Network]:
    """Return the backbone of each method by its name, and of each baseline of random weights.

    Methods with the same kind of backbone and the same normalisation of images have one baseline:
    'random init' is a ResNet-18 with that of ImageNet, others are called after the first method
    that has them. Without methods there is a ResNet-18.

    Args:
        configs: path or name of a config by method.
        options: what overrides fields of each.
        size: side of the tiles that are evaluated, in pixels.

    Raises:
        UserError: a config has mistakes, or does not say what its backbone is, or tiles do not
            divide into the patches of a ViT.
    """
    kinds, found = [RESNET18], {}
    for method, config in configs.items():
        cfg = load_config(config_path(config), list(options[method]))
        tell_feature(cfg)
        own = BackboneRecord('', cfg.model.get('backbone')).config_for_use()
        if own is None:
            raise UserError('this method does not say what its backbone is', where=config,
                            expected='model = dict(backbone=dict(type=...))')
        mean, std = (tuple(cfg.normalize[key]) for key in ('mean', 'std'))
        network = Network(f'{RANDOM_INIT} of {method}', own, Wanted(mean, std, f'as in {config}'))
        if size % (patch := network.patch_size or 1):
            raise UserError(f'tiles of {size} px do not divide into patches of {patch} px, those '
                            f'of {method}', where='--size', expected=f'a multiple of {patch}')
        same = [one for one in kinds
                if (one.kind, one.input) == (network.kind, network.input)]
        kinds += [] if same else [network]
        found[method] = same[0] if same else network
    return found | {one.name: one for one in found.values() or [RESNET18]}


def check_starts(starts: Mapping[str, Start], networks: Mapping[str, Network]) -> None:
    """Refuse, before anything is trained, a start from a backbone of another kind.

    Args:
        starts: by the name of a method, see :func:`~.pretraining.find_starts`.
        networks: of :func:`find_networks`.

    Raises:
        UserError: the weights of one method do not fit the backbone of the other.
    """
    order = list(networks)
    for name, start in starts.items():
        try:
            _fits(networks[start.method], networks[name])
        except UserError as error:
            fitting = [other for other in order[:order.index(name)]
                       if networks[other].kind == networks[name].kind]
            raise UserError(f'{name} cannot start from the backbone of {start.method}: '
                            + error.what.partition(';')[0], where=f'--after {name}={start.method}',
                            expected='a method before it with the same kind of backbone, '
                            + ('such as ' + ', '.join(fitting) if fitting else
                               'of which this study has none')) from None


def _fits(start: Network, network: Network) -> None:
    if start.kind != network.kind:
        load_backbone_weights(network.untrained(0), start.checkpoint(0))
