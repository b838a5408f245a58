"""Telling vision transformers from the names and shapes of their weights."""

import re
from collections.abc import Mapping

from torch import Tensor

# What their authors and timm call the tokens beside the class token.
_REGISTERS = ('register_tokens', 'reg_token', 'storage_tokens')


def vision_transformer(state: Mapping[str, Tensor]) -> str | None:
    """Say in words which vision transformer weights are of, None if they are of none.

    Known are the names that DINO, DINOv2, DINOv3 and timm share, below one prefix.

    Returns:
        Such as 'ViT of width 384 with 12 blocks, patches of 14 px and 4 register tokens'.
    """
    for name, value in state.items():
        prefix, _, rest = name.rpartition('patch_embed.proj.weight')
        if rest or not name.endswith('patch_embed.proj.weight') or value.ndim != 4:
            continue
        blocks = {int(found[1]) for other in state  # DINOv2 trains them in chunks
                  if (found := re.match(re.escape(prefix) + r'blocks\.(?:\d+\.)?(\d+)\.', other))}
        if not blocks:
            continue
        registers = [state[prefix + key].shape[1] for key in _REGISTERS
                     if prefix + key in state and state[prefix + key].ndim == 3]
        return (f'ViT of width {len(value)} with {len(blocks)} block{"s" * (len(blocks) > 1)}'
                f'{"," if registers else " and"} patches of {value.shape[-1]} px'
                + (f' and {registers[0]} register tokens' if registers else ''))
    return None
