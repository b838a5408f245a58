import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from openselfsup.checkpoints import (
    architecture_of,
    backbone_state_dict,
    detect,
    from_detectron2,
    to_detectron2,
    weights_of,
)
from openselfsup.errors import UserError


def torchvision_state(name: str) -> dict[str, torch.Tensor]:
    with torch.device('meta'):
        return torchvision.models.get_model(name).state_dict()


def without_fc(state: dict) -> dict:
    return {name: value for name, value in state.items() if not name.startswith('fc.')}


def prefixed(prefix: str, state: dict) -> dict:
    return {prefix + name: value for name, value in state.items()}


R18 = torchvision_state('resnet18')
BODY = without_fc(R18)
PAIR = prefixed('encoder_q.0.', BODY) | prefixed('encoder_k.0.', BODY)
OUR_PAIR = prefixed('encoder_q.backbone.', BODY) | prefixed('encoder_k.backbone.', BODY)
FORMS = {
    'our checkpoint': ('ours', dict(state_dict=OUR_PAIR, meta={'epoch': 1}, optimizer={})),
    'our bare state': ('ours', OUR_PAIR),
    'our state, wrapped': ('ours', prefixed('module.', prefixed('_orig_mod.', OUR_PAIR))),
    'OpenSelfSup MoCo': ('OpenSelfSup', dict(state_dict=PAIR | prefixed('backbone.', BODY))),
    'OpenSelfSup backbone': ('OpenSelfSup', dict(state_dict=prefixed('backbone.', BODY))),
    'published PLM': ('published PLM', dict(
        state_dict=PAIR | {'encoder_q.2.fc.weight': torch.zeros(1)})),
    'CA2CL': ('CA2CL', dict(net=prefixed('module.resnet.', BODY) | {
        'module.groupDis.0.weight': torch.zeros(1)}, epoch=3)),
    'official MoCo': ('MoCo', dict(arch='resnet18', state_dict=prefixed(
        'module.encoder_q.', R18) | prefixed('module.encoder_k.', R18))),
    'torchvision': ('torchvision', R18),
    'extracted': ('torchvision', dict(state_dict=BODY)),
    'DataParallel': ('torchvision', dict(state_dict=prefixed('module.', R18))),
    'detectron2': ('detectron2', dict(model=to_detectron2(BODY))),
    'detectron2 trained': ('detectron2', dict(
        model=prefixed('backbone.bottom_up.', to_detectron2(BODY))
        | {'backbone.fpn_lateral2.weight': torch.zeros(1)}, iteration=9)),
    'another prefix': ("prefix 'model.resnet.'", dict(
        state_dict=prefixed('model.resnet.', R18))),
}


@pytest.mark.parametrize('form', FORMS)
def test_every_form_gives_torchvision_s_names(form):
    kind, checkpoint = FORMS[form]
    state, found = backbone_state_dict(checkpoint)
    assert found == kind == detect(checkpoint)
    assert list(state) == list(BODY)
    assert all(state[name] is BODY[name] for name in BODY)


def test_the_query_encoder_is_the_one_that_is_taken():
    state = {'encoder_k.backbone.conv1.weight': torch.zeros(1),
             'encoder_q.backbone.conv1.weight': torch.ones(1)}
    assert backbone_state_dict(state)[0] == {'conv1.weight': torch.ones(1)}


def test_published_files_give_a_resnet18(plm_state, ca2cl_state):
    for kind, checkpoint in (('published PLM', dict(state_dict=plm_state, meta={})),
                             ('CA2CL', dict(net=ca2cl_state, optimizer={}, epoch=100))):
        state, found = backbone_state_dict(checkpoint)
        assert found == kind
        assert {n: v.shape for n, v in state.items()} == {n: v.shape for n, v in BODY.items()}
    assert torch.equal(backbone_state_dict(dict(state_dict=plm_state))[0]['bn1.bias'],
                       plm_state['encoder_q.0.bn1.bias'])


@pytest.mark.parametrize('checkpoint, words', [
    ({'epoch': 3, 'config': 'x'}, ['no weights', 'top-level keys: epoch, config', 'no tensors']),
    ({'state_dict': {'patch_embed.weight': torch.zeros(2, 3)}},
     ['no ResNet weights', 'top-level keys: state_dict', 'patch_embed.weight (2x3)']),
    (prefixed('student.', BODY) | prefixed('teacher.', BODY),
     ['several networks', 'student., teacher.']),
])
def test_anything_else_is_refused_by_saying_what_was_found(checkpoint, words):
    for function in (detect, backbone_state_dict):
        with pytest.raises(UserError) as error:
            function(checkpoint)
        assert all(word in str(error.value) for word in words)


def test_wrappers_are_taken_off_only_where_all_tensors_have_them():
    state = {'module.a': torch.zeros(1), 'b': torch.zeros(1)}
    assert weights_of(state).keys() == state.keys()


@pytest.mark.parametrize('name, text', [
    ('resnet18', 'ResNet-18'), ('resnet34', 'ResNet-34'), ('resnet50', 'ResNet-50'),
    ('resnet101', 'ResNet-101'), ('resnet152', 'ResNet-152'),
    ('resnext50_32x4d', 'ResNeXt-50 (32x4d)'), ('resnext101_32x8d', 'ResNeXt-101 (32x8d)'),
    ('resnext101_64x4d', 'ResNeXt-101 (64x4d)'), ('wide_resnet50_2', 'ResNet-50 of width 128')])
def test_the_network_is_told_from_the_shapes(name, text):
    network = architecture_of(torchvision_state(name))
    assert str(network) == text
    assert network.torchvision_name == (None if name.startswith('wide') else name)


def test_what_is_no_known_network_is_not_guessed():
    assert architecture_of({}) is None
    assert architecture_of({n: v for n, v in BODY.items() if 'layer4' not in n}) is None


@st.composite
def backbone_names(draw) -> list[str]:
    """Names of a ResNet of any depth, with and without bottlenecks and projections."""
    per_norm = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
    names = ['conv1.weight'] + [f'bn1.{n}' for n in per_norm]
    for layer in range(1, 5):
        for block in range(draw(st.integers(1, 40))):
            start = f'layer{layer}.{block}.'
            for i in range(1, draw(st.sampled_from((3, 4)))):
                names += [f'{start}conv{i}.weight'] + [f'{start}bn{i}.{n}' for n in per_norm]
            if draw(st.booleans()):
                names += [f'{start}downsample.0.weight']
                names += [f'{start}downsample.1.{n}' for n in per_norm]
    return names


@settings(max_examples=30)
@given(backbone_names())
def test_to_detectron2_and_back_is_the_identity(names):
    state = {name: i for i, name in enumerate(names)}
    theirs = to_detectron2(state)
    assert len(theirs) == len(state)
    assert all(name.startswith(('stem.conv1.', 'res')) for name in theirs)
    assert not any('bn' in name or 'downsample' in name for name in theirs)
    assert from_detectron2(theirs) == state


def test_detectron2_s_names_are_these():
    assert list(to_detectron2(dict.fromkeys((
        'conv1.weight', 'bn1.running_var', 'layer1.0.conv1.weight', 'layer2.11.bn3.bias',
        'layer4.0.downsample.0.weight', 'layer3.0.downsample.1.weight')))) == [
        'stem.conv1.weight', 'stem.conv1.norm.running_var', 'res2.0.conv1.weight',
        'res3.11.conv3.norm.bias', 'res5.0.shortcut.weight', 'res4.0.shortcut.norm.weight']
