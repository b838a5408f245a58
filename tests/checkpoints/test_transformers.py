"""Published vision transformers, generated in their shapes: no released file was opened."""

import json
from pathlib import Path

import pytest
import torch

from openselfsup import load_backbone
from openselfsup.checkpoints import load_backbone_weights, save
from openselfsup.checkpoints.transformers import (
    fitted_transformer,
    transformer_config,
    transformer_of,
)
from openselfsup.errors import UserError
from openselfsup.registry import BACKBONES

KEYS = json.loads((Path(__file__).parents[1] / 'data/golden_vit/checkpoint_keys.json').read_text())
LARGE = KEYS['timm_large_models_block0_only']
TINY = dict(type='TimmBackbone', embed_dim=64, num_heads=1, depth=2)
TIMM = dict(TINY, model='vit_small_patch14_dinov2', img_size=42)


def shaped(keys):
    """Return weights without memory: names and shapes alone."""
    return {name: torch.empty(shape, device='meta') for name, shape in keys.items()
            if not name.startswith('_')}


def of_all_blocks(keys):
    """Return the keys of a model of which block 0 stands for all."""
    depth = keys['_number_of_blocks']
    return {name.replace('blocks.0.', f'blocks.{i}.'): shape for name, shape in keys.items()
            if not name.startswith('_') for i in range(depth if 'blocks.0.' in name else 1)}


def built_on_meta(config):
    with torch.device('meta'):
        return BACKBONES.build(config)


def check(keys, config=None):
    """Compare weights with the network that they are told to be of, tensor by tensor."""
    found = transformer_of(shaped(keys))
    backbone = built_on_meta(config or transformer_config(found))
    own = {name.removeprefix('net.'): value for name, value in backbone.state_dict().items()}
    fitted = fitted_transformer(found, own)
    if 'mask_token' not in fitted:
        del own['mask_token']
    assert ({name: tuple(value.shape) for name, value in fitted.items()}
            == {name: tuple(value.shape) for name, value in own.items()})
    return backbone, found


@pytest.mark.parametrize('name, model', [
    ('dinov2_vits14_pretrain', 'vit_small_patch14_dinov2'),
    ('dinov2_vits14_reg4_pretrain', 'vit_small_patch14_reg4_dinov2'),
    ('timm/vit_small_patch14_dinov2', 'vit_small_patch14_dinov2'),
    ('timm/vit_small_patch14_reg4_dinov2', 'vit_small_patch14_reg4_dinov2'),
    ('timm/vit_small_patch16_dinov3', 'vit_small_patch16_dinov3'),
    ('dinov3_vits16_pretrain', 'vit_small_patch16_dinov3_qkvb')])
def test_every_key_of_dinov2_and_dinov3_has_its_place(name, model):
    backbone, found = check(KEYS[name], dict(type='TimmBackbone', model=model))
    assert found.resizing in ('', backbone.resizing)
    if 'dinov3' not in name:
        check(KEYS[name])


@pytest.mark.parametrize('name', LARGE)
def test_every_key_of_pathology_models_has_its_place(name):
    backbone, _ = check(of_all_blocks(LARGE[name]))
    assert len(backbone.net.blocks) == LARGE[name]['_number_of_blocks']
    assert backbone.feature == ('cls_mean' if name.startswith('Virchow') else 'cls')


def weights():
    """Return random weights of a tiny DINOv2, under timm's names, and its backbone."""
    backbone = BACKBONES.build(TIMM)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_()
    return {name.removeprefix('net.'): value
            for name, value in backbone.state_dict().items()}, backbone.eval()


def in_hugging_faces_names(state):
    found = {}
    for name, value in state.items():
        if 'attn.qkv' in name:
            parts = zip(('query', 'key', 'value'), value.chunk(3))
            block = name.split('.')[1]
            found.update({f'encoder.layer.{block}.attention.attention.{part}.'
                          f"{name.rpartition('.')[2]}": piece.clone() for part, piece in parts})
            continue
        for theirs, ours in (('encoder.layer', 'blocks'), ('attention.output.dense', 'attn.proj'),
                             ('layer_scale1.lambda1', 'ls1.gamma'),
                             ('layer_scale2.lambda1', 'ls2.gamma'),
                             ('embeddings.cls_token', 'cls_token'),
                             ('embeddings.mask_token', 'mask_token'),
                             ('embeddings.position_embeddings', 'pos_embed'),
                             ('embeddings.patch_embeddings.projection', 'patch_embed.proj')):
            name = name.replace(ours, theirs)
        name = 'layernorm' + name[4:] if name.startswith('norm.') else name
        found[name] = value[0] if name.endswith('mask_token') else value
    return found


FORMS = {
    'DINOv2': lambda s: {**s, 'mask_token': s['mask_token'][0]},
    'DINOv2 in training': lambda s: dict(model={
        'teacher.backbone.' + name.replace('blocks.', 'blocks.0.'): value
        for name, value in s.items()} | {'student.backbone.' + name: torch.zeros_like(value)
                                         for name, value in s.items()}),
    'DINO': lambda s: dict(student={}, teacher={
        'backbone.' + name: value for name, value in s.items() if name != 'mask_token'} | {
        'head.mlp.0.weight': torch.zeros(2, 2)}),
    'timm': lambda s: {name: value for name, value in s.items() if name != 'mask_token'} | {
        'head.weight': torch.zeros(5, 64), 'head.bias': torch.zeros(5)},
    'Hugging Face': in_hugging_faces_names}


@pytest.mark.parametrize('form', FORMS)
def test_weights_are_found_and_give_the_same_tokens(form, tmp_path):
    state, original = weights()
    save(FORMS[form](state), tmp_path / 'weights.pth')
    images = torch.randn(2, 3, 28, 56)
    configured = BACKBONES.build(dict(TIMM, init_cfg=dict(
        type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')))).eval()
    report = configured.load_report
    assert report.matched == report.expected == len(state) - (form in ('DINO', 'timm'))
    arguments = dict(resizing='dino') if form == 'timm' else {}
    told = load_backbone(tmp_path / 'weights.pth', **arguments)
    with torch.no_grad():
        expected = original.tokens(images)
        for backbone in (configured, told):
            found = backbone.tokens(images)
            torch.testing.assert_close(found.patches, expected.patches)
            torch.testing.assert_close(found.cls, expected.cls)


def test_registers_beside_a_class_token_that_has_its_position():
    """DINOv2 adds the class token's position to it, timm keeps their sum."""
    config = dict(TINY, model='vit_small_patch14_reg4_dinov2', img_size=42)
    backbone = BACKBONES.build(config)
    state = {name.removeprefix('net.'): torch.randn_like(value)
             for name, value in backbone.state_dict().items()}
    place = torch.randn(1, 1, 64)
    theirs = {'register_tokens' if name == 'reg_token' else name: value
              for name, value in state.items()}
    theirs |= dict(mask_token=state['mask_token'][0], cls_token=state['cls_token'] - place,
                   pos_embed=torch.cat([place, state['pos_embed']], 1))
    load_backbone_weights(backbone, theirs)
    for name, value in backbone.state_dict().items():
        torch.testing.assert_close(value, state[name.removeprefix('net.')])


def test_what_would_silently_be_another_network_is_refused():
    state, _ = weights()
    dinov2 = FORMS['DINOv2'](state)
    for settings, words in (
            (dict(img_size=56), r'3 x 3 patches, the model has them for 4 x 4; expected '
                                r'img_size=42'),
            (dict(resizing='timm'), "resized as 'dino'.*expected resizing='dino'"),
            (dict(depth=3), 'missing: net.blocks.2.'),
            (dict(embed_dim=128), 'mismatched|nothing')):
        with pytest.raises(UserError, match=words):
            load_backbone_weights(BACKBONES.build(dict(TIMM, **settings)), dinov2)
    with pytest.raises(UserError, match='of a ViT of width 64 with 2 blocks.*not of a ResNet'):
        load_backbone_weights(BACKBONES.build(dict(type='ResNet', depth=18)), dinov2)
    with pytest.raises(UserError, match='no vision transformer in this checkpoint'):
        load_backbone_weights(BACKBONES.build(TIMM), {'conv1.weight': torch.zeros(1)})


@pytest.mark.parametrize('settings, words', [
    (dict(resizing='timm'), 'with resizing dino, the model has timm'),
    (dict(num_heads=2), r'with blocks.0.attn.num_heads 1, the model has 2'),
    (dict(act_layer='relu'), 'with blocks.0.mlp.act GELU')])
def test_what_no_tensor_of_ours_tells_is_compared_too(settings, words, tmp_path):
    config = dict(TINY, model='vit_tiny_patch16_224', img_size=48, resizing='dino', drop_path=0.1)
    backbone = BACKBONES.build(config)
    save(dict(state_dict={f'backbone.{name}': value
                          for name, value in backbone.state_dict().items()},
              meta=dict(backbone=dict(prefix='backbone.', config=config, out_channels=[64]))),
         tmp_path / 'ours.pth')
    free = dict(config, drop_path=0., feature='mean', uniform_drop_path=True)
    assert load_backbone_weights(BACKBONES.build(free), tmp_path / 'ours.pth').missing == []
    with pytest.raises(UserError, match=words):
        load_backbone_weights(BACKBONES.build(config | settings), tmp_path / 'ours.pth')


def test_a_head_that_pools_is_left_out():
    import timm
    name = 'vit_base_patch16_siglip_224'
    shape = dict(img_size=32, embed_dim=64, depth=2, num_heads=1)
    theirs = timm.create_model(name, pretrained=False, num_classes=0, **shape).state_dict()
    assert any(key.startswith('attn_pool.') for key in theirs)
    backbone = BACKBONES.build(dict(type='TimmBackbone', model=name, **shape))
    report = load_backbone_weights(backbone, theirs)
    assert report.matched == report.expected and not report.unexpected


def test_the_encoder_is_taken_of_a_masked_autoencoder():
    state, backbone = weights()
    whole = {name: value for name, value in state.items() if name != 'mask_token'}
    whole |= dict(mask_token=torch.zeros(1, 1, 32), decoder_pos_embed=torch.zeros(1, 10, 32))
    whole['decoder_blocks.0.norm1.weight'] = torch.ones(32)
    report = load_backbone_weights(BACKBONES.build(dict(TIMM, resizing='timm')), whole)
    assert report.matched == report.expected and not report.unexpected


def test_gates_beside_positions_are_no_network_that_shapes_tell():
    state, _ = weights()
    for name in [name for name in state if '.mlp.fc1.' in name]:
        for gate in ('fc1_g', 'fc1_x'):
            state[name.replace('fc1', gate)] = state[name]
        del state[name]
    with pytest.raises(UserError, match='nothing here knows.*config that names it'):
        transformer_config(transformer_of(state))


def test_of_a_student_and_a_teacher_the_teacher_is_taken():
    config = dict(model='convnext_atto', depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))
    backbone, other = (BACKBONES.build(dict(type='TimmBackbone', **config)) for _ in range(2))
    state = {name.removeprefix('net.'): value for name, value in other.state_dict().items()}

    def two(*prefixes):
        return {f'{prefix}{name}': value + i for i, prefix in enumerate(prefixes)
                for name, value in state.items()}

    load_backbone_weights(backbone, two('student_backbone.', 'teacher_backbone.'))
    torch.testing.assert_close(backbone.net.state_dict()['stem.0.weight'],
                               state['stem.0.weight'] + 1)
    with pytest.raises(UserError, match='several networks in this checkpoint, below one., two.'):
        load_backbone_weights(backbone, two('one.', 'two.'))


def test_a_cut_network_takes_what_it_has(tmp_path):
    state, _ = weights()
    backbone = BACKBONES.build(dict(TIMM, out_indices=(0,)))
    report = load_backbone_weights(backbone, state)
    assert report.matched == report.expected and not report.unexpected


@pytest.mark.parametrize('config', [dict(model='convnext_atto', depths=(1, 1, 1, 1),
                                         dims=(8, 16, 24, 32)), dict(model='resnet18')])
def test_networks_that_are_no_vits_take_timms_weights(config):
    import timm
    theirs = timm.create_model(pretrained=False, num_classes=7, model_name=config['model'], **{
        key: value for key, value in config.items() if key != 'model'})
    backbone = BACKBONES.build(dict(type='TimmBackbone', **config))
    report = load_backbone_weights(backbone, theirs.state_dict())
    assert report.matched == report.expected and not report.unexpected
    for name, value in backbone.net.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name])


def test_a_folder_as_hubs_have_it(tmp_path):
    import safetensors.torch
    state, _ = weights()
    del state['mask_token']
    safetensors.torch.save_file(state, tmp_path / 'model.safetensors')
    backbone = BACKBONES.build(TIMM)
    report = load_backbone_weights(backbone, tmp_path)
    assert report.matched == report.expected == len(state)
    (tmp_path / 'model.safetensors').rename(tmp_path / 'model.safetensors.index.json')
    with pytest.raises(UserError, match='split over several files'):
        load_backbone_weights(backbone, tmp_path)


@pytest.mark.parametrize('kind, words', [
    ('GatedRepoError', 'https://huggingface.co/Owner/Gated, then `hf auth login`'),
    ('RepositoryNotFoundError', 'the hub has no such model'),
    ('EntryNotFoundError', 'no weights under a name that is known'),
    ('ConnectionError', 'could not be downloaded: ConnectionError: no network')])
def test_weights_that_the_hub_does_not_give(kind, words, monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*_):
        if kind == 'ConnectionError':
            raise ConnectionError('no network')
        cls = getattr(errors, kind)  # whose arguments differ between versions
        raise cls.__new__(cls)

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', refuse)
    with pytest.raises(UserError, match=words):
        load_backbone_weights(BACKBONES.build(TIMM), 'hf-hub:Owner/Gated')
