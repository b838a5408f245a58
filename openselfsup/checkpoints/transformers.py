"""Vision transformers: telling them from their weights, and their weights under timm's names.

The names of DINO, iBOT, DINOv2 (chunked in training, too), DINOv3, timm, and those of Hugging
Face's ViT, Dinov2 and DINOv3 models become those of timm's ``VisionTransformer`` or ``Eva``.
Everything here turns dicts of names into dicts of names; no file is touched and no model is built.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError

_PATCHES = 'patch_embed.proj.weight'
_HUGGING_FACE = 'embeddings.patch_embeddings.projection.weight'
_DINOV3 = 'embeddings.patch_embeddings.weight'  # Hugging Face's
# What pretraining alone has, or what is computed: classifiers, fixed angles, masks of biases.
_LEFT_OUT = re.compile(r'^(head|fc_norm|attn_pool|pooler|classifier|rope_embed|local_cls_norm'
                       r'|projectors)\b|bias_mask$|periods$')
_RENAMED = (
    (r'^blocks\.\d+\.(\d+\.)', r'blocks.\1'),  # DINOv2 trains blocks in chunks
    (r'^(register_tokens|storage_tokens)$', 'reg_token'),
    (r'\.mlp\.w12\.', '.mlp.fc1.'), (r'\.mlp\.w3\.', '.mlp.fc2.'),
    (r'\.mlp\.w1\.', '.mlp.fc1_g.'), (r'\.mlp\.w2\.', '.mlp.fc1_x.'))  # DINOv3's gates
_FROM_HUGGING_FACE = (
    (r'^embeddings\.patch_embeddings\.projection\.', 'patch_embed.proj.'),
    (r'^embeddings\.position_embeddings$', 'pos_embed'),
    (r'^embeddings\.(cls_token|mask_token|register_tokens)$', r'\1'),
    (r'^encoder\.layer\.(\d+)\.', r'blocks.\1.'),
    (r'\.layernorm_before\.', '.norm1.'), (r'\.layernorm_after\.', '.norm2.'),
    (r'\.attention\.output\.dense\.', '.attn.proj.'),
    (r'\.intermediate\.dense\.', '.mlp.fc1.'), (r'(blocks\.\d+)\.output\.dense\.', r'\1.mlp.fc2.'),
    (r'\.layer_scale(\d)\.lambda1$', r'.ls\1.gamma'),
    (r'\.mlp\.weights_in\.', '.mlp.w12.'), (r'\.mlp\.weights_out\.', '.mlp.w3.'),
    (r'^layernorm\.', 'norm.'))
_FROM_DINOV3 = (
    (r'^embeddings\.patch_embeddings\.', 'patch_embed.proj.'),
    (r'^embeddings\.(cls_token|mask_token)$', r'\1'),
    (r'^embeddings\.register_tokens$', 'storage_tokens'),
    (r'^layer\.(\d+)\.', r'blocks.\1.'),
    (r'\.attention\.o_proj\.', '.attn.proj.'),
    (r'\.layer_scale(\d)\.lambda1$', r'.ls\1.gamma'),
    (r'\.mlp\.down_proj\.', '.mlp.fc2.'))
_QUERY = re.compile(r'(blocks\.\d+)\.attention\.(attention\.query|q_proj)\.(weight|bias)')


class Transformer(NamedTuple):
    """Weights of a vision transformer.

    Attributes:
        state: under timm's names.
        kind: whose names they had.
        resizing: how its positions were fitted to other grids in its training, '' if its names do
            not tell.
        classifies: whether there is a classifier, so that labels trained it.
    """

    state: dict[str, Tensor]
    kind: str
    resizing: str
    classifies: bool = False


def transformer_of(state: Mapping[str, Tensor], from_dino: bool = False) -> Transformer | None:
    """Return the vision transformer in some weights under timm's names; None if there is none.

    Args:
        state: tensors by name; of several networks the first of a teacher is taken.
        from_dino: whether the file says that DINO or iBOT trained it.
    """
    prefixes = [name[:-len(tail)] for name in state for tail in (_PATCHES, _HUGGING_FACE, _DINOV3)
                if name.endswith(tail) and state[name].ndim == 4]
    prefixes.sort(key=rank_of_prefix)
    for prefix in prefixes:
        own = {name[len(prefix):]: value for name, value in state.items()
               if name.startswith(prefix)}
        hugging_face = _HUGGING_FACE in own
        if hugging_face:
            own = _joined_qkv(_renamed(own, _FROM_HUGGING_FACE))
        elif _DINOV3 in own:
            gated = any(name.endswith('.mlp.gate_proj.weight') for name in own)
            own = _joined_qkv(_renamed(own, (
                *_FROM_DINOV3, (r'\.mlp\.gate_proj\.', '.mlp.w1.'),
                (r'\.mlp\.up_proj\.', '.mlp.w2.' if gated else '.mlp.fc1.'))))
        if not any(name.startswith('blocks.') for name in own):
            continue
        if 'decoder_pos_embed' in own:  # MAE's decoder, whose mask token is none of the encoder's
            own = {name: value for name, value in own.items()
                   if name != 'mask_token' and not name.startswith('decoder_')}
        classifier = own.get('head.weight')
        rotary, registers = 'storage_tokens' in own, 'register_tokens' in own
        has_mask = 'mask_token' in own or from_dino
        own = {name: value for name, value in _renamed(own, _RENAMED).items()
               if not _LEFT_OUT.search(name)}
        if rotary:
            own = _renamed(own, ((r'\.ls(\d)\.gamma$', r'.gamma_\1'),))
        if 'mask_token' in own:
            own['mask_token'] = own['mask_token'].reshape(1, 1, -1)
        kind = ('DINOv3' if rotary else 'Hugging Face' if hugging_face else
                'DINO or iBOT' if from_dino else 'DINOv2' if has_mask else 'timm')
        resizing = '' if rotary or not has_mask else 'timm' if registers else 'dino'
        return Transformer(own, kind, resizing, classifier is not None and classifier.ndim == 2)
    return None


def rank_of_prefix(prefix: str) -> tuple[bool, int]:
    """Return by what one of several networks is taken: a teacher first, then the outermost."""
    return 'teacher' not in prefix, len(prefix)


def usual_resizing(architecture: str, registers: int) -> Literal['timm', 'dino']:
    """Return how one of timm's networks is to fit its positions to other grids.

    timm fits those of DINOv2 without registers as all others; they were trained with DINO's rule.
    """
    return 'dino' if 'dinov2' in architecture and not registers else 'timm'


def told_resizing(found: Transformer, architecture: str = '') -> tuple[str, bool]:
    """Return how weights want their positions fitted to other grids, and whether that is sure.

    What names do not tell, timm's name of the network does; then the shape: 37 x 37 positions of
    patches of 14 px with LayerScale and without registers are DINOv2's. Hugging Face's ViT and
    Dinov2, as iBOT trained Phikon, go without antialiasing. Others with registers, LayerScale or a
    classifier are published with timm's code. What is left is DINO's backbone or one of timm's
    that nothing tells apart.

    Args:
        found: the weights.
        architecture: timm's name of the network, '' if it is unknown.
    """
    registers = found.state['reg_token'].shape[1] if 'reg_token' in found.state else 0
    if found.resizing or architecture:
        return found.resizing or usual_resizing(architecture, registers), True
    if found.kind == 'Hugging Face':
        return ('timm' if registers else 'dino'), True
    scaled, patch = 'blocks.0.ls1.gamma' in found.state, found.state[_PATCHES].shape[-1]
    if (scaled, registers, patch, found.state['pos_embed'].shape[1]) == (True, 0, 14, 37 ** 2 + 1):
        return 'dino', True
    if scaled or registers or found.classifies or 'cls_token' not in found.state:
        return 'timm', True
    return 'dino', False


def _renamed(state: Mapping[str, Tensor], rules: tuple) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        found[name] = value
    return found


def _joined_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights whose queries, keys and values are one matrix, as everybody else has them."""
    found = dict(state)
    for name in state:
        if parts := _QUERY.fullmatch(name):
            names = ([name.replace('.query.', f'.{part}.') for part in ('query', 'key', 'value')]
                     if parts[2] != 'q_proj' else
                     [name.replace('.q_proj.', f'.{part}_proj.') for part in 'qkv'])
            if parts[3] == 'bias' and names[1] not in found:  # DINOv3 has none of keys
                found[names[1]] = torch.zeros_like(found[name])
            if all(part in found for part in names):
                found[f'{parts[1]}.attn.qkv.{parts[3]}'] = torch.cat([found.pop(n) for n in names])
    return found


def fitted_transformer(found: Transformer, own: Mapping[str, Tensor],
                       where: str | None = None) -> dict[str, Tensor]:
    """Return weights as the tensors of one of timm's networks want them.

    Blocks that the network was cut by are left out. A class token and its position are one where
    the network has no position for it.

    Args:
        found: the weights.
        own: names and shapes of the network, without prefix.
        where: path of the file, for messages.

    Raises:
        UserError: the positions are those of another grid, or there are biases that the network
            has no place for.
    """
    state = dict(found.state)
    depth = max([int(name.split('.')[1]) for name in own if name.startswith('blocks.')],
                default=-1)
    state = {name: value for name, value in state.items()
             if not name.startswith('blocks.') or int(name.split('.')[1]) <= depth}
    for name in [name for name in state if name.endswith('qkv.bias') and name not in own]:
        bias, before = state.pop(name), name.removesuffix('qkv.bias')
        if f'{before}q_bias' in own:
            query, _, value = bias.chunk(3)  # that of the keys changes nothing
            state.update({f'{before}q_bias': query, f'{before}v_bias': value})
        elif bias.nan_to_num().any():
            raise UserError('these weights have biases of queries and values, which the model '
                            'lacks', where=where, expected="timm's network with them, whose name "
                            "ends in '_qkvb'")
    theirs, ours = state.get('pos_embed'), own.get('pos_embed')
    if theirs is None or ours is None or theirs.shape == ours.shape or theirs.ndim != 3:
        return state
    registers = own['reg_token'].shape[1] if 'reg_token' in own else 0
    if side_of(ours.shape[1]) and side_of(theirs.shape[1] - 1) and 'cls_token' in state:
        state['cls_token'] = state['cls_token'] + theirs[:, :1]
        theirs = state['pos_embed'] = theirs[:, 1:]
    if theirs.shape[1] != ours.shape[1]:
        grids = [next((side for skip in {0, 1, 1 + registers} if (side := side_of(n - skip))), 0)
                 for n in (theirs.shape[1], ours.shape[1])]
        if all(grids) and grids[0] != grids[1]:
            patch = own[_PATCHES].shape[-1]
            raise UserError(
                f'these weights have positions for {grids[0]} x {grids[0]} patches, the model has '
                f'them for {grids[1]} x {grids[1]}', where=where,
                expected=f'img_size={grids[0] * patch} in model.backbone; images may have any '
                'size all the same')
    return state


def side_of(count: int) -> int:
    """Return the side of a square grid of so many cells, 0 if there is none."""
    side = round(max(count, 0) ** 0.5)
    return side if side * side == count else 0


def transformer_config(found: Transformer, where: str | None = None,
                       resizing: str | None = None) -> dict[str, Any]:
    """Return the config of the ``TimmBackbone`` that weights belong to, told from their shapes.

    Heads are 64 wide, but for a width of 1,280, which has 16. A SwiGLU of Virchow's sizes makes
    ``feature='cls_mean'``, which its authors take.

    Args:
        found: the weights.
        where: path of the file, for messages.
        resizing: how positions are fitted to other grids, as :func:`told_resizing` says if None.

    Raises:
        UserError: the shapes are of no network that is known.
    """
    state = found.state
    width, channels, patch = (state[_PATCHES].shape[i] for i in (0, 1, 3))
    depth = 1 + max(int(name.split('.')[1]) for name in state if name.startswith('blocks.'))
    registers = state['reg_token'].shape[1] if 'reg_token' in state else 0
    config: dict[str, Any] = dict(type='TimmBackbone')
    if 'blocks.0.gamma_1' in state or 'pos_embed' not in state:
        return config | dict(model=_rotary_name(state, width, where))
    positions = state['pos_embed'].shape[1]
    sides = [side_of(positions - skip) for skip in (0, 1, 1 + registers)]
    if not any(sides) or not {'blocks.0.mlp.fc1.weight', 'blocks.0.mlp.fc2.weight'} <= {*state}:
        raise UserError('these weights are of a vision transformer that nothing here knows',
                        where=where, expected="a config that names it, backbone=dict("
                        "type='TimmBackbone', model=...)")
    outer = state['blocks.0.mlp.fc1.weight'].shape[0]
    inner = state['blocks.0.mlp.fc2.weight'].shape[1]
    config |= dict(
        model='vit_base_patch16_224', img_size=patch * next(filter(None, sides)),
        patch_size=patch, embed_dim=width, depth=depth, mlp_ratio=(outer + 0.5) / width,
        num_heads={1280: 16}.get(width, max(width // 64, 1)), reg_tokens=registers,
        no_embed_class=bool(sides[0] or registers and sides[1]),
        qkv_bias='blocks.0.attn.qkv.bias' in state)
    if channels != 3:
        config['in_channels'] = channels
    if 'blocks.0.ls1.gamma' in state:
        config['init_values'] = 1e-5
    if 'cls_token' not in state:
        config['class_token'] = False
    if outer == 2 * inner:
        config |= dict(mlp_layer='SwiGLUPacked', act_layer='silu')
    if feature := authors_feature(found):
        config['feature'] = feature
    return config | dict(resizing=resizing or told_resizing(found)[0])


def authors_feature(found: Transformer) -> str | None:
    """Return what the authors of weights take of an image, where the shapes are known to be theirs.

    The only such weights are those of Virchow and Virchow2.
    """
    first = found.state.get('blocks.0.mlp.fc1.weight')
    return 'cls_mean' if first is not None and tuple(first.shape) == (6832, 1280) else None


def _rotary_name(state: Mapping[str, Tensor], width: int, where: str | None) -> str:
    gated = 'blocks.0.mlp.fc1_g.weight' in state
    name = ({384: 'small_plus', 1280: 'huge_plus', 4096: '7b'} if gated else
            {384: 'small', 768: 'base', 1024: 'large'}).get(width)
    first = state.get('blocks.0.mlp.fc1_g.weight' if gated else 'blocks.0.mlp.fc1.weight')
    hidden = 0 if first is None else first.shape[0]
    if name is None or hidden != (2 if name == '7b' else 4) * width:
        raise UserError(f'these weights are of a vision transformer of width {width} with rotary '
                        'positions, whose name cannot be told from them', where=where,
                        expected="a config that names it, backbone=dict(type='TimmBackbone', "
                        "model='vit_base_patch16_dinov3')")
    biases = [value for key, value in state.items()
              if key.endswith(('qkv.bias', 'q_bias', 'v_bias'))]
    biased = any(value.nan_to_num().any() for value in biases if value.device.type != 'meta')
    return f'vit_{name}_patch16_dinov3' + ('_qkvb' if biased else '')


def vision_transformer(state: Mapping[str, Tensor]) -> str | None:
    """Say in words which vision transformer weights are of, None if they are of none.

    Returns:
        Such as 'ViT of width 384 with 12 blocks, patches of 14 px and 4 register tokens'.
    """
    found = transformer_of(state)
    if found is None:
        return None
    patches, token = found.state[_PATCHES], found.state.get('reg_token')
    blocks = len({name.split('.')[1] for name in found.state if name.startswith('blocks.')})
    registers = token.shape[1] if token is not None and token.ndim == 3 else 0
    return (f'ViT of width {len(patches)} with {blocks} block{"s" * (blocks > 1)}'
            f'{"," if registers else " and"} patches of {patches.shape[-1]} px'
            + (f' and {registers} register tokens' if registers else ''))
