"""DINOv3 under the names of Hugging Face's transformers, as the hub has it.

Names: modeling_dinov3_vit.py and convert_dinov3_vit_to_hf.py of transformers (fd30207, a77460f).
"""

import re

import pytest
import torch
from test_transformers import KEYS, check

from openselfsup import load_backbone
from openselfsup.checkpoints import (
    load_backbone_weights,
    save,
    transformer_config,
    transformer_of,
)
from openselfsup.errors import UserError
from openselfsup.registry import BACKBONES

TINY = dict(type='TimmBackbone', embed_dim=64, num_heads=1, depth=2)
RENAMED = (
    (r'^(cls_token|mask_token)$', r'embeddings.\1'),
    (r'^(reg_token|storage_tokens)$', 'embeddings.register_tokens'),
    (r'^patch_embed\.proj\.', 'embeddings.patch_embeddings.'), (r'^blocks\.', 'layer.'),
    (r'\.attn\.proj\.', '.attention.o_proj.'), (r'\.(?:gamma_|ls)(\d)(?:\.gamma)?$',
                                               r'.layer_scale\1.lambda1'),
    (r'\.mlp\.fc1_g\.', '.mlp.gate_proj.'), (r'\.mlp\.fc1(_x)?\.', '.mlp.up_proj.'),
    (r'\.mlp\.fc2\.', '.mlp.down_proj.'))


def in_hugging_faces_names(state):
    """Return weights of DINOv3, of timm or of its authors, as transformers names them."""
    found = {}
    for name, value in state.items():
        if name.endswith(('periods', 'bias_mask')):
            continue
        for pattern, theirs in RENAMED:
            name = re.sub(pattern, theirs, name)
        block, kind = name.partition('.attn.')[0], name.rpartition('.')[2]
        if '.attn.qkv.' in name:
            query, key, value_ = value.chunk(3)
            found[f'{block}.attention.q_proj.{kind}'] = query
            if kind == 'weight':
                found[f'{block}.attention.k_proj.weight'] = key
            found[f'{block}.attention.v_proj.{kind}'] = value_
        elif kind in ('q_bias', 'v_bias'):
            found[f'{block}.attention.{kind[0]}_proj.bias'] = value
        else:
            found[name] = value
    return found


def of_its_authors(state):
    """Return timm's weights of DINOv3 under the names of its authors."""
    found = {}
    for name, value in state.items():
        for ours, theirs in (('reg_token', 'storage_tokens'), ('gamma_1', 'ls1.gamma'),
                             ('gamma_2', 'ls2.gamma'), ('fc1_g', 'w1'), ('fc1_x', 'w2')):
            name = name.replace(ours, theirs)
        if 'blocks.0.mlp.fc1_g.weight' in state:
            name = name.replace('mlp.fc2', 'mlp.w3')
        if name.endswith('q_bias'):
            name, value = name.replace('q_bias', 'qkv.bias'), torch.cat(
                [value, torch.zeros_like(value), state[name.replace('q_bias', 'v_bias')]])
        if not name.endswith('v_bias'):
            found[name] = value
    return found


@pytest.mark.parametrize('model', [
    'vit_small_patch16_dinov3', 'vit_small_patch16_dinov3_qkvb', 'vit_small_plus_patch16_dinov3',
    'vit_small_plus_patch16_dinov3_qkvb'])
@pytest.mark.parametrize('named', [in_hugging_faces_names, of_its_authors])
def test_the_tokens_are_those_of_timms_form(model, named):
    torch.manual_seed(0)
    original = BACKBONES.build(dict(TINY, model=model)).eval()
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.normal_()
    theirs = named({name.removeprefix('net.'): value
                    for name, value in original.state_dict().items()})
    backbone = BACKBONES.build(dict(TINY, model=model)).eval()
    report = load_backbone_weights(backbone, theirs)
    assert report.matched == report.expected and report.kind == 'DINOv3'
    images, mask = torch.randn(2, 3, 32, 64), torch.tensor([[True, False] * 4] * 2)
    with torch.no_grad():
        found, expected = backbone.tokens(images, mask), original.tokens(images, mask)
    for part in ('cls', 'registers', 'patches'):
        torch.testing.assert_close(getattr(found, part), getattr(expected, part))


def test_biases_that_the_model_lacks_are_refused():
    state = BACKBONES.build(dict(TINY, model='vit_small_patch16_dinov3_qkvb')).state_dict()
    theirs = in_hugging_faces_names({name.removeprefix('net.'): torch.ones_like(value)
                                     for name, value in state.items()})
    with pytest.raises(UserError, match='biases of queries and values.*_qkvb'):
        load_backbone_weights(BACKBONES.build(dict(TINY, model='vit_small_patch16_dinov3')), theirs)


def test_the_small_network_is_told_from_its_file(tmp_path):
    theirs = in_hugging_faces_names({name: torch.ones(shape) for name, shape in
                                     KEYS['dinov3_vits16_pretrain'].items()})
    assert len(theirs) == 5 + 12 * 17 + 2  # those of a DINOv3ViTModel of 12 layers
    save(theirs, tmp_path / 'dinov3.pth')
    backbone = load_backbone(tmp_path / 'dinov3.pth')
    assert 'q_bias' in dict(backbone.net.blocks[0].attn.named_parameters())
    assert {float(value.mean()) for value in backbone.state_dict().values()} == {1.0}


@pytest.mark.parametrize('model', [
    'vit_small_plus_patch16_dinov3_qkvb', 'vit_huge_plus_patch16_dinov3', 'vit_7b_patch16_dinov3',
    'vit_base_patch16_dinov3', 'vit_large_patch16_dinov3'])
def test_every_size_is_told_from_its_shapes(model):
    with torch.device('meta'):
        state = BACKBONES.build(dict(type='TimmBackbone', model=model)).state_dict()
    theirs = in_hugging_faces_names({name.removeprefix('net.'): value
                                     for name, value in state.items()})
    assert transformer_config(transformer_of(theirs))['model'] == model.removesuffix('_qkvb')
    check({name: tuple(value.shape) for name, value in theirs.items()},
          dict(type='TimmBackbone', model=model))
