"""What BYOL, classification and the pretext tasks do beside their published steps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from methods import METHODS, build, with_options
from toy_model import CLASSES, random_batch, train_step

from openselfsup.checkpoints import describe_backbone, save
from openselfsup.errors import UserError
from openselfsup.models.algorithms.classification import Classification
from openselfsup.models.algorithms.relative_loc import cut_patches
from openselfsup.models.method import Progress
from openselfsup.models.norm import BatchNormOverRanks, has_partial_statistics
from openselfsup.registry import HEADS


def test_the_target_of_byol_moves_after_the_step_only_and_slower_towards_the_end():
    method, (views, maps) = build(METHODS['BYOL']), random_batch(4)
    online, target = (dict(net.named_parameters()) for net in (method.online_net,
                                                               method.target_net))
    moved = []
    for step in (0, 50, 99):
        method.begin_step(Progress(0, step, 100, 100))
        before = {key: value.clone() for key, value in target.items()}
        outputs, gradients = train_step(method, views, maps)
        assert all(value.equal(before[key]) for key, value in target.items())
        assert not any(key.startswith('target') for key in gradients)
        with torch.no_grad():
            for parameter in online.values():
                parameter.add_(1)
        method.end_step()
        share = 1 - float(outputs['target_momentum'])
        for key, value in target.items():
            torch.testing.assert_close(value, torch.lerp(before[key], online[key], share))
        moved.append(share)
    assert moved[0] == pytest.approx(0.1) and moved[1] == pytest.approx(0.05) and moved[2] < 1e-3


def test_both_networks_of_byol_start_from_the_same_weights(tmp_path):
    method, other = build(METHODS['BYOL']), build(METHODS['SimCLR'])
    record = describe_backbone(other, dict(model=dict(backbone=dict(type='ToyBackbone'))))
    save(dict(state_dict=other.state_dict(), meta=dict(backbone=record)), tmp_path / 'other.pth')
    method.load_backbone(str(tmp_path / 'other.pth'))
    weights = other.backbone.state_dict()
    for net in (method.online_net, method.target_net):
        assert all(weights[key].equal(value)
                   for key, value in net['backbone'].state_dict().items())


def test_a_head_with_too_few_classes_is_refused():
    with pytest.raises(UserError, match='there are 3 classes, the head has 2; expected 3'):
        build(with_options('Classification', head=dict(num_classes=2)))
    with pytest.raises(UserError, match='there are 4 classes'):
        build(with_options('RotationPred', head=dict(num_classes=3)))
    with pytest.raises(UserError, match='there are 8 classes'):
        build(with_options('RelativeLoc', head=dict(num_classes=4)))
    build(with_options('Classification', head=dict(num_classes=5)))


@pytest.mark.parametrize(('head', 'shapes', 'said'), [
    (dict(type='ClsHead', in_channels=8), [(2, 8, 3, 2)],
     'of size 8, but is given 48 numbers of whole maps.*48, or with_avg_pool=True and 8'),
    (dict(type='ClsHead', in_channels=4, with_avg_pool=True), [(2, 8, 3, 3)],
     'of size 4, but is given 8 numbers; expected 8'),
    (dict(type='ClsHead', in_channels=4), [(2, 8)],
     'of size 4, but is given 8 numbers; expected 8'),
    (dict(type='ClsHead', in_channels=8, with_avg_pool=True), [(2, 8)], 'pooled already'),
    (dict(type='MultiClsHead', in_channels=[4, 8]), [(2, 8, 3, 3), (2, 16, 3, 3)],
     r'maps of \[4, 8\] channels, but is given \[8, 16\]'),
    (dict(type='MultiClsHead', in_channels=[4, 8]), [(2, 8, 3, 3)], r'is given \[8\]')])
def test_a_head_says_what_it_takes(head, shapes, said):
    with pytest.raises(UserError, match=said):
        HEADS.build(dict(head, num_classes=2))([torch.zeros(shape) for shape in shapes])


def test_linear_evaluation_of_every_stage_leaves_the_backbone_as_it_is():
    channels = [64, 64, 128, 256, 512]
    method = Classification(
        dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3, 4), frozen_stages=4),
        dict(type='MultiClsHead', in_channels=channels, num_classes=len(CLASSES)))
    assert [norm.num_features for norm in method.head.norms] == channels
    before = {key: value.clone() for key, value in method.backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1e-4)
    method.train()
    views, labels = [torch.randn(6, 3, 64, 64)], torch.tensor([0, 1, 2] * 2)
    first = method(views, label=labels)
    for _ in range(3):
        outputs = method(views, label=labels)
        optimizer.zero_grad()
        sum(value for key, value in outputs.items() if key.startswith('loss')).backward()
        optimizer.step()
    for stage in range(5):
        assert outputs[f'loss_stage{stage}'] < first[f'loss_stage{stage}']
        assert 0 <= outputs[f'acc_stage{stage}'] <= 1
    assert all(value.equal(before[key]) for key, value in method.backbone.state_dict().items())
    with pytest.raises(UserError, match='as many as in_indices'):
        Classification(dict(type='ResNet'), dict(type='MultiClsHead', in_channels=[64, 128],
                                                 in_indices=[1], num_classes=2))


def test_only_square_images_are_turned():
    with pytest.raises(UserError, match='images of 56 x 48 px .* expected square views'):
        build(METHODS['RotationPred'])([torch.randn(2, 3, 56, 48)])


@given(st.data())
def test_each_patch_is_cut_from_its_own_cell_of_any_image(data):
    height, width, gap = (data.draw(st.integers(*bounds)) for bounds in ((3, 40), (3, 40), (0, 12)))
    images = torch.arange(2 * height * width).view(2, 1, height, width)
    down, right = height // 3, width // 3
    if min(down, right) <= gap:
        with pytest.raises(UserError, match='model.gap: cells of a third of'):
            cut_patches(images, torch.zeros(2, 9, 2, dtype=torch.int64), gap)
        return
    jitter = torch.tensor(data.draw(st.lists(st.integers(0, gap), min_size=36, max_size=36)))
    jitter = jitter.view(2, 9, 2)
    patches = cut_patches(images, jitter, gap)
    assert patches.shape == (2, 9, 1, down - gap, right - gap)
    for image in range(2):
        for place in range(9):
            top, left = (jitter[image, place] + torch.tensor([place // 3 * down,
                                                              place % 3 * right])).tolist()
            assert patches[image, place].equal(
                images[image, :, top:top + down - gap, left:left + right - gap])


def test_patches_lie_everywhere_in_their_cells_and_in_the_middle_for_evaluation():
    method, images = build(with_options('RelativeLoc', gap=3)), torch.zeros(200, 3, 56, 56)
    jitter = method.draw_jitter(images)
    assert jitter.shape == (200, 9, 2)
    counts = jitter.flatten().bincount(minlength=4)
    assert len(counts) == 4 and (counts - 900).abs().max() < 5 * 900 ** 0.5
    assert method.eval().draw_jitter(images).eq(1).all()


def test_norms_over_ranks_say_nothing_of_who_belongs_together():
    assert not has_partial_statistics(BatchNormOverRanks(4), 2)
    assert not has_partial_statistics(build(METHODS['RelativeLoc']), 2)
    with pytest.raises(ValueError, match='expected a tensor of shape'):
        BatchNormOverRanks(4)(torch.randn(4))
