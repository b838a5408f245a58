"""SimCLR, BYOL, classification, rotations, relative places: the published steps."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_zoo import ZooBackbone, assert_golden

from openselfsup.engine.config import load_config
from openselfsup.models.algorithms.byol import BYOL
from openselfsup.models.algorithms.classification import Classification
from openselfsup.models.algorithms.relative_loc import RelativeLoc, cut_patches
from openselfsup.models.algorithms.rotation_pred import RotationPred, all_turns
from openselfsup.models.algorithms.simclr import SimCLR
from openselfsup.models.heads.classification import MultiClsHead
from openselfsup.models.method import Progress
from openselfsup.registry import ALGORITHMS
from openselfsup.training.optimizers import build_optimizer

GOLDEN = Path(__file__).parents[1] / 'data/golden'
# Published: everything is adapted and decays but what these names match.
LARS = dict(type='LARS', lars_exclude=False, paramwise_options={
    r'(bn|gn)(\d+)?.(weight|bias)': dict(weight_decay=0., lars_exclude=True),
    'bias': dict(weight_decay=0., lars_exclude=True)})
SIMCLR = {'backbone.': 'encoder_q.backbone.', 'neck.': 'encoder_q.neck.'}
BYOL_NAMES = {f'{net}.{i}': f'{net}.{part}' for net in ('online_net', 'target_net')
              for i, part in enumerate(('backbone', 'neck'))}


def renamed(name, names):
    """Return the name of a published tensor with ours (theirs: ours) at its beginning."""
    for theirs, ours in names.items():
        if name.startswith(theirs):
            return ours + name[len(theirs):]
    return name


def atol_of(golden, rtol, zero):
    """Return the absolute tolerance; a bias right before a norm has no gradient but rounding."""
    return 1e-4 if zero else max(1e-6, rtol * float(golden.abs().max()))


class Case:
    """A golden file and the method whose parameters it holds under ``names`` (theirs: ours)."""

    def __init__(self, file, method, names=None):
        self.golden, self.method, self.names = np.load(GOLDEN / f'{file}.npz'), method, names or {}
        state = self.part('state/')
        assert state.keys() == method.state_dict().keys()
        method.load_state_dict(state)

    def part(self, prefix):
        return {renamed(key[len(prefix):], self.names): torch.from_numpy(self.golden[key])
                for key in self.golden.files if key.startswith(prefix)}

    def meta(self, *keys):
        return {key: float(self.golden[f'meta/{key}']) for key in keys}

    def optimizer(self, cfg):
        found = self.meta('momentum', 'weight_decay', 'lr')
        if 'meta/eta' in self.golden.files:
            found |= self.meta('eta')
        return build_optimizer(self.method, {**cfg, **found}, found['lr'])

    def step(self, optimizer, number, outputs, rtol=1e-5, zero=()):
        """Compare losses and gradients, and move."""
        optimizer.zero_grad()
        outputs['loss'].backward()
        assert_golden(outputs['loss'], self.golden[f'step{number}/loss'], 'loss', rtol)
        if f'step{number}/acc_percent' in self.golden.files:
            assert_golden(100 * outputs['acc'][None], self.golden[f'step{number}/acc_percent'],
                          'accuracy')
        gradients = self.part(f'step{number}/grad/')
        found = {key: p.grad for key, p in self.method.named_parameters() if p.requires_grad}
        assert found.keys() == gradients.keys()
        for key, gradient in found.items():
            assert_golden(gradient, gradients[key], key, rtol, atol_of(gradients[key], rtol,
                                                                       key in zero))
        optimizer.step()

    def end(self, rtol=1e-5, zero=()):
        for key, value in self.part('final/').items():
            assert_golden(self.method.state_dict()[key], value, f'final {key}', rtol,
                          atol_of(value, rtol, key in zero))


@pytest.mark.parametrize('config, name, names', [
    ('SimCLR/r18_bs1024_ep200', 'SimCLR', SIMCLR), ('BYOL/r18_bs1024_ep200', 'BYOL', BYOL_NAMES),
    ('RotationPred/r18_bs128_ep70', 'RotationPred', {}),
    ('RelativeLoc/r18_bs512_ep70', 'RelativeLoc', {}),
    ('Classification/r18_bs256_ep100', 'Classification', {})])
def test_our_configs_hold_the_tensors_of_published_checkpoints(config, name, names):
    with torch.device('meta'):
        ours = ALGORITHMS.build(load_config(f'{config}.py').model).state_dict()
    published = json.loads((GOLDEN / 'zoo_r18_checkpoint_keys.json').read_text())[name]
    if name == 'BYOL':  # which holds the online backbone twice
        published = {key: shape for key, shape in published.items()
                     if not key.startswith('backbone.')}
    assert {key: list(value.shape) for key, value in ours.items()} == {
        renamed(key, names): shape for key, shape in published.items()}


def test_simclr():
    case = Case('simclr_step', SimCLR(
        ZooBackbone(), dict(type='NonLinearNeckSimCLR', in_channels=12, hid_channels=24,
                            out_channels=12), temperature=0.1, joint=True),
        SIMCLR)
    optimizer = case.optimizer(LARS)
    for number in range(2):
        images = torch.from_numpy(case.golden[f'step{number}/img'])
        outputs = case.method([images[:, 0], images[:, 1]])
        case.step(optimizer, number, dict(loss=outputs['loss_instance']), rtol=1e-4)
    case.end(rtol=1e-4)


def test_byol():
    sizes = dict(type='NonLinearNeckV2', in_channels=12, hid_channels=24, out_channels=12)
    head = dict(type='LatentPredictHead', predictor=dict(sizes, with_avg_pool=False))
    case = Case('byol_step', BYOL(ZooBackbone(), sizes, head, base_momentum=0.9),
                BYOL_NAMES)
    optimizer = case.optimizer(LARS)
    zero = [key for key, _ in case.method.named_parameters() if key.endswith('mlp.0.bias')]
    for number in range(3):
        case.method.begin_step(Progress(0, number, 5, 5))
        images = torch.from_numpy(case.golden[f'step{number}/img'])
        outputs = case.method([images[:, 0], images[:, 1]])
        expected = torch.tensor(case.golden['momentum_schedule'][number], dtype=torch.float32)
        assert_golden(outputs['target_momentum'], expected, 'momentum')
        # The published float32 gradients are 9e-6 from those of float64.
        case.step(optimizer, number, outputs, rtol=2e-5, zero=zero)
        case.method.end_step()
    case.end(zero=[*zero, *(key.replace('online', 'target') for key in zero)])


def test_classification():
    head = dict(type='ClsHead', in_channels=12, num_classes=9, with_avg_pool=True)
    case = Case('classification_step', Classification(ZooBackbone(norm=True), head))
    optimizer = case.optimizer(dict(type='SGD'))
    for number in range(2):
        outputs = case.method([torch.from_numpy(case.golden[f'step{number}/img'])],
                              label=torch.from_numpy(case.golden[f'step{number}/gt_label']))
        case.step(optimizer, number, outputs)
    case.end()
    case.method.eval()
    scores = case.method.head(case.method.backbone(torch.from_numpy(case.golden['test/img'])))
    assert_golden(scores, case.golden['test/head0'], 'scores')


def test_rotations():
    head = dict(type='ClsHead', in_channels=12, num_classes=4, with_avg_pool=True)
    case = Case('rotation_step', RotationPred(ZooBackbone(norm=True), head))
    images, labels = all_turns(torch.from_numpy(case.golden['step0/img_unrotated']))
    assert images.equal(torch.from_numpy(case.golden['step0/img']).flatten(0, 1))
    assert labels.equal(torch.from_numpy(case.golden['step0/rot_label']).flatten())
    optimizer = case.optimizer(dict(type='SGD'))
    case.step(optimizer, 0, case.method([torch.from_numpy(case.golden['step0/img_unrotated'])]))
    case.end()


def test_relative_places():
    case = Case('relative_loc_step', RelativeLoc(
        ZooBackbone(), dict(type='RelativeLocNeck', in_channels=12, out_channels=16, dropout=0),
        dict(type='ClsHead', in_channels=16, num_classes=8)))
    tile = torch.from_numpy(case.golden['crops/tile_uint8']).permute(2, 0, 1)
    patches = cut_patches(tile[None], torch.from_numpy(case.golden['crops/jitter_top_left'])[None],
                          gap=21)
    assert patches[0].permute(0, 2, 3, 1).equal(
        torch.from_numpy(case.golden['crops/patches_uint8']))
    decay = case.meta('weight_decay_backbone', 'weight_decay_neck_head')
    optimizer = build_optimizer(case.method, dict(
        type='SGD', lr=0.1, momentum=0.9, weight_decay=decay['weight_decay_backbone'],
        paramwise_options={'neck|head': dict(weight_decay=decay['weight_decay_neck_head'])}), 0.1)
    zero = ['neck.fc.bias']
    case.step(optimizer, 0, case.method.locate(torch.from_numpy(case.golden['step0/patches'])),
              zero=zero)
    case.end(zero=zero)


def test_a_classifier_on_each_stage():
    golden = np.load(GOLDEN / 'multi_cls_head.npz')
    head = MultiClsHead([512, 2048], 3, in_indices=[2, 4])
    head.load_state_dict({key[6:]: torch.from_numpy(golden[key]) for key in golden.files
                          if key.startswith('state/')})
    scores = head([torch.from_numpy(golden[key]) for key in ('x0', 'x1')])
    outputs = head.loss(scores, torch.from_numpy(golden['label']))
    for i, stage in enumerate((2, 4)):
        assert_golden(scores[i], golden[f'scores{i}'], 'scores')
        assert_golden(outputs[f'loss_stage{stage}'], golden[f'loss.{i + 1}'], 'loss')
        assert_golden(100 * outputs[f'acc_stage{stage}'][None], golden[f'acc.{i + 1}'], 'accuracy')
    total = outputs['loss_stage2'] + outputs['loss_stage4']
    assert_golden(total, golden['total'], 'total')
    total.backward()
    for key, parameter in head.named_parameters():
        if f'grad/{key}' in golden.files:
            assert_golden(parameter.grad, golden[f'grad/{key}'], key)
        else:
            assert_golden(parameter.grad.norm(), golden[f'grad_norm/{key}'], key)
    for key, value in head.state_dict().items():
        if 'running' in key:
            assert_golden(value, golden[f'final/{key}'], key)


@pytest.mark.parametrize('channels, side', [(64, 12), (256, 6), (512, 4), (1024, 3), (2048, 2)])
def test_stages_are_pooled_as_in_the_published_table(channels, side):
    assert MultiClsHead([channels], 2).sides == [side]
