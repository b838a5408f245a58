"""Weights of timm's networks other than ViTs: ResNets, ConvNeXts and the like."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import UserError
from .names import backbone_state_dict
from .transformers import rank_of_prefix


def plain_weights(checkpoint: Mapping[str, Any], state: Mapping[str, Tensor],
                  own: Mapping[str, Tensor], where: str | None) -> tuple[dict[str, Tensor], str]:
    """Return the weights of a network other than a ViT, without classifier and cut-off stages.

    Args:
        checkpoint: what a file holds.
        state: its tensors by name.
        own: tensors of the network, under timm's names.
        where: path of the file, for messages.

    Returns:
        Tensors under timm's names behind 'net.', and whose names they had.

    Raises:
        UserError: several networks are in it, of which none is a teacher.
    """
    if 'layer1.0.conv1.weight' in own:
        found, kind = backbone_state_dict(checkpoint, where)
    else:
        first = next(iter(own))
        prefixes = sorted((name[:-len(first)] for name in state if name.endswith(first)),
                          key=rank_of_prefix)
        if len(prefixes) > 1 and rank_of_prefix(prefixes[0]) == rank_of_prefix(prefixes[1]):
            raise UserError('several networks in this checkpoint, below '
                            + ', '.join(sorted(prefixes)), where=where,
                            expected='weights of one network')
        prefix = prefixes[0] if prefixes else ''
        found, kind = {name[len(prefix):]: value for name, value in state.items()
                       if name.startswith(prefix)}, 'timm'
    parts = {name.split('.')[0] for name in own}
    stages = {'.'.join(name.split('.')[:2]) for name in own}
    return {f'net.{name}': value for name, value in found.items()
            if name.split('.')[0] in parts
            and (name.split('.')[0] != 'stages' or '.'.join(name.split('.')[:2]) in stages)}, kind
