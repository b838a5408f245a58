"""Names and shapes of published checkpoints, and tensors of them."""

import json
from pathlib import Path

import torch

GOLDEN = Path(__file__).parents[1] / 'data/golden'
ZOO = json.loads((GOLDEN / 'zoo_r18_checkpoint_keys.json').read_text())
ZOO['PLM'] = json.loads((GOLDEN / 'plm_r18_checkpoint_keys.json').read_text())
ZOO['CA2CL'] = json.loads((GOLDEN / 'ca2cl_r18_checkpoint_keys.json').read_text())
VIT = json.loads((GOLDEN / 'vit_checkpoint_keys.json').read_text())
VIT |= VIT.pop('timm_large_models_block0_only')


def tensors(shapes):
    """Tensors of these shapes, each of one random number, so that files are small."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        whole = name.endswith(('num_batches_tracked', '_ptr'))
        value = torch.zeros((), dtype=torch.int64) if whole else torch.rand((), generator=generator)
        state[name] = value.expand(shape)
    for name in state:  # a second copy
        first = [f'{encoder}.0.{name[9:]}' for encoder in ('encoder_q', 'online_net')]
        if name.startswith('backbone.'):
            state[name] = next((state[other] for other in first if other in state), state[name])
    return state
