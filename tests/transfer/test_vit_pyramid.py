"""Detectors on ViTs: their pyramid, training from published weights, what is refused."""

import pytest
import torch
from short_config import DETECTION, SHORT, TINY
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from openselfsup.checkpoints import save
from openselfsup.errors import UserError
from openselfsup.registry import BACKBONES
from openselfsup.transfer.instance.job import Job
from openselfsup.transfer.instance.solver import build_optimizer
from openselfsup.transfer.instance.torchvision_backend import TorchvisionBackend
from openselfsup.transfer.instance.torchvision_model import build_model
from openselfsup.transfer.instance.yaml_config import DetectionConfig
from openselfsup.transfer.vit_pyramid import ViTPyramid

GLAS = DETECTION / 'configs/GlaS/GlaS_ViT_1x.yaml'
VIT = dict(type='TimmBackbone', model='vit_small_patch14_dinov2', embed_dim=64, num_heads=1,
           depth=2, img_size=42)


@pytest.fixture
def released(tmp_path):
    """Weights of a tiny ViT with patches of 14 px, as DINOv2 names them."""
    torch.manual_seed(0)
    state = BACKBONES.build(VIT).state_dict()
    save({name.removeprefix('net.'): value for name, value in state.items()}
         | {'mask_token': state['mask_token'][0]}, tmp_path / 'vit.pth')
    return tmp_path / 'vit.pth'


def options(weights, *more):
    return [*TINY, 'MODEL.WEIGHTS', str(weights), 'SOLVER.MAX_ITER', '2', *more]


def backend(datasets, out, weights, *more, **job):
    out.mkdir(exist_ok=True)
    return TorchvisionBackend(Job(str(GLAS), [*options(weights, *more), 'OUTPUT_DIR', str(out)],
                                  str(datasets), **job))


@pytest.mark.parametrize('model', ['vit_small_patch14_dinov2', 'vit_tiny_patch16_224'])
def test_levels_have_the_strides_of_the_pyramid_whatever_the_patch(model):
    pyramid = ViTPyramid(dict(VIT, model=model), 8, 4, LastLevelMaxPool()).eval()
    image, changed = torch.zeros(1, 3, 128, 192), torch.zeros(1, 3, 128, 192)
    changed[..., 64:, 128:] = 5.
    with torch.no_grad():
        for block in pyramid.body.net.blocks:  # attention would tell it to all
            block.attn.proj.weight.zero_()
        found, other = pyramid(image), pyramid(changed)
    assert {key: tuple(level.shape[1:]) for key, level in found.items()} == {
        '0': (8, 32, 48), '1': (8, 16, 24), '2': (8, 8, 12), '3': (8, 4, 6), 'pool': (8, 2, 3)}
    pooler = MultiScaleRoIAlign(['0', '1', '2', '3'], 2, 0)
    pooler(found, [torch.tensor([[0., 0., 32., 32.]])], [(128, 192)])
    assert pooler.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    for key, margin in ('0', 5), ('1', 3), ('2', 2):  # a patch, and a cell of the convolution
        differs = (found[key] != other[key]).any(1)[0]
        top, left = differs.shape[0] // 2, 2 * differs.shape[1] // 3
        assert differs[top:, left:].all(), key
        assert not differs[:top - margin].any() and not differs[:, :left - margin].any(), key


def test_it_trains_from_published_weights_goes_on_and_is_scored(datasets, tmp_path, released):
    run = backend(datasets, tmp_path / 'run', released)
    assert run.load_backbone().startswith('35/35 tensors of the backbone matched')
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.fit()
    for part in ('backbone.body.net.pos_embed', 'backbone.body.net.blocks.0.attn.proj.weight',
                 'backbone.fpn.levels.0.0.weight', 'roi_heads.mask_predictor.conv5_mask.weight'):
        assert not run.model.get_parameter(part).equal(before[part]), part
    again = backend(datasets, tmp_path / 'run', released, 'SOLVER.MAX_ITER', '3', resume=True)
    again.load_backbone()
    again.fit()
    assert again.trained['resumed_at'] == 2
    scored = backend(datasets, tmp_path / 'scored', tmp_path / 'run/model_final.pth',
                     eval_only=True)
    scored.load_backbone()
    for name, parameter in again.model.named_parameters():
        assert scored.model.get_parameter(name).equal(parameter)
    assert scored.predict('GlaS_test') == again.predict('GlaS_test')


def test_lower_layers_learn_slower(released):
    config = DetectionConfig(GLAS, options(released))
    model = build_model(config, torch.device('cpu'))
    optimizer = build_optimizer(config, model)
    assert type(optimizer) is torch.optim.AdamW
    groups = {id(p): group for group in optimizer.param_groups for p in group['params']}
    expected = {'backbone.body.net.patch_embed.proj.weight': (0.343, 0.1),
                'backbone.body.net.pos_embed': (0.343, 0.),
                'backbone.body.net.blocks.0.attn.qkv.weight': (0.49, 0.1),
                'backbone.body.net.blocks.1.attn.qkv.bias': (0.7, 0.),
                'backbone.body.net.norm.weight': (1., 0.),
                'backbone.fpn.levels.0.0.weight': (1., 0.1),
                'rpn.head.cls_logits.weight': (1., 0.1)}
    found = {name: groups[id(model.get_parameter(name))] for name in expected}
    assert {name: (pytest.approx(group['lr_mult']), group['weight_decay'])
            for name, group in found.items()} == expected
    assert groups.keys() == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize('config, more, words', [
    (GLAS, ['MODEL.WEIGHTS', ''], 'told from its weights, and none are given'),
    (GLAS, ['MODEL.WEIGHTS', 'RESNET'], 'holds no ViT.*GlaS_R_18_FPN_1x_moco'),
    (GLAS, ['MODEL.BACKBONE.FREEZE_AT', '2'], 'MODEL.BACKBONE.FREEZE_AT is 2.*expected 0'),
    (GLAS, ['MODEL.FPN.NORM', 'BN'], "MODEL.FPN.NORM is BN.*expected LN"),
    (SHORT, ['MODEL.FPN.NORM', 'LN'], 'MODEL.FPN.NORM is LN.*of a ViT'),
    (SHORT, ['SOLVER.OPTIMIZER', 'AdamW', 'SOLVER.LAYER_DECAY', '0.7'],
     'layer_decay is for the blocks of a ViT')])
def test_what_does_not_go_together_is_refused(config, more, words, released, weights):
    more = [str(weights) if word == 'RESNET' else word for word in more]
    with pytest.raises(UserError, match=words):
        found = DetectionConfig(config, [*options(released if config == GLAS else ''), *more])
        build_optimizer(found, build_model(found, torch.device('cpu')))


def test_a_run_does_not_go_on_with_another_optimiser(released):
    config = DetectionConfig(GLAS, options(released))
    with pytest.raises(UserError, match="SOLVER.OPTIMIZER was 'AdamW', is now 'SGD'"):
        DetectionConfig(GLAS, options(released, 'SOLVER.OPTIMIZER', 'SGD', 'SOLVER.LAYER_DECAY',
                                      '1.0')).changes(config.dump())
    assert 'OPTIMIZER' not in DetectionConfig(SHORT).dump()  # detectron2 has no such key
