"""The published YAML files, their inheritance, and mistakes in them."""

import pytest
import torch
from short_config import DETECTION, SHORT

from openselfsup.errors import UserError
from openselfsup.transfer.instance import backends
from openselfsup.transfer.instance.solver import build_optimizer, clip_gradients, learning_rate
from openselfsup.transfer.instance.torchvision_model import build_model, coco_results
from openselfsup.transfer.instance.yaml_config import DetectionConfig

CONFIGS = sorted((DETECTION / 'configs').glob('*/*.yaml'))
PUBLISHED = ['R_18_FPN_1x', *(f'R_18_FPN_{k}x_moco' for k in ('0.5', '1', '2', '3', '5')),
             'R_18_C4_1x', 'R_18_C4_1x_moco', 'R_18_RetinaNet_1x', 'R_18_RetinaNet_1x_moco',
             'R_50_FPN_1x', 'R_50_FPN_1x_moco']


@pytest.mark.parametrize('dataset', ['GlaS', 'CRAG'])
@pytest.mark.parametrize('name', PUBLISHED)
def test_every_published_config_is_there_and_says_what_was_published(dataset, name):
    config = DetectionConfig(DETECTION / 'configs' / dataset / f'{dataset}_{name}.yaml')
    factor = float(name.split('_')[3].removesuffix('x'))
    iterations, steps, sizes, test = {'GlaS': (5000, (4000,), (400, 522), 522),
                                      'CRAG': (15000, (10000, 13000), (768, 1024), 768)}[dataset]
    assert config['SOLVER.MAX_ITER'] == iterations * factor
    assert config['SOLVER.STEPS'] == tuple(s * factor for s in steps)
    assert config['INPUT.MIN_SIZE_TRAIN'] == sizes and config['INPUT.MIN_SIZE_TEST'] == test
    assert config['DATASETS.TRAIN'] == (f'{dataset}_train',)
    assert config['SOLVER.IMS_PER_BATCH'] == 16 and config['SOLVER.WARMUP_ITERS'] == 1000
    assert config['SOLVER.BASE_LR'] == (0.01 if 'RetinaNet' in name else 0.02)
    assert config['MODEL.RESNETS.NORM'] == 'SyncBN' and config['MODEL.BACKBONE.FREEZE_AT'] == 0
    assert config['TEST.PRECISE_BN.ENABLED'] and config['TEST.PRECISE_BN.NUM_ITER'] == 200
    assert config['MODEL.RESNETS.RES2_OUT_CHANNELS'] == (256 if 'R_50' in name else 64)
    assert (config['MODEL.WEIGHTS'] == 'See Instructions') == name.endswith('_moco')


@pytest.mark.parametrize('path', [p for p in CONFIGS if '_1x.yaml' in p.name
                                  and '_ViT_' not in p.name], ids=lambda p: p.stem)
def test_every_model_is_built_or_refused_by_name(path):
    config = DetectionConfig(path)
    if 'C4' in path.name:
        with pytest.raises(UserError, match='C4 model .*torchvision backend cannot build'):
            build_model(config, torch.device('cpu'))
        return
    model = build_model(config, torch.device('cpu'))
    assert len(model.backbone.body.layer3) == {18: 2, 50: 6}[config['MODEL.RESNETS.DEPTH']]
    assert hasattr(model, 'roi_heads') == ('RetinaNet' not in path.name)


def test_retinanet_detects_no_background():
    config = DetectionConfig(DETECTION / 'configs/GlaS/GlaS_R_18_RetinaNet_1x.yaml', [
        'MODEL.RETINANET.NUM_CLASSES', '2', 'MODEL.RETINANET.SCORE_THRESH_TEST', '0.0',
        'MODEL.RETINANET.TOPK_CANDIDATES_TEST', '30', 'MODEL.RETINANET.NMS_THRESH_TEST', '1.0',
        'INPUT.MIN_SIZE_TEST', '64'])
    torch.manual_seed(0)
    model = build_model(config, torch.device('cpu')).eval()
    channels = model.head.classification_head.cls_logits.bias.data.view(-1, 3)
    assert len(channels) == 9  # the background stays a channel, as in older checkpoints
    channels[:, 0] = 5.0  # as sure of it as can be
    with torch.no_grad():
        found, = model([torch.rand(3, 64, 64) * 255])
    assert set(found['labels'].tolist()) == {1, 2} and len(found['labels']) == 100
    results = coco_results(found, 1, [7, 9])
    assert [r['category_id'] for r in results] == [[7, 9][k - 1] for k in found['labels']]


def test_overrides_and_types():
    words = ['SOLVER.STEPS', '(3,)', 'SOLVER.BASE_LR', '1', 'OUTPUT_DIR', 'a/b',
             'INPUT.MIN_SIZE_TRAIN', '200', 'SOLVER.AMP.ENABLED=False']
    config = DetectionConfig(SHORT, words)
    assert config['SOLVER.STEPS'] == (3,) and config['SOLVER.BASE_LR'] == 1.0
    assert config['OUTPUT_DIR'] == 'a/b' and config['INPUT.MIN_SIZE_TRAIN'] == (200,)
    assert config['SOLVER.AMP.ENABLED'] is False


def test_all_mistakes_at_once_with_file_and_nearest_key(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text(f'_BASE_: "{SHORT}"\nSOLVER:\n  BASE_LRR: 1\n  MAX_ITER: many\n'
                    'MODEL:\n  RESNETS:\n    NORM: BatchNorm\n')
    with pytest.raises(UserError) as error:
        DetectionConfig(path, ['TEST.EVAL_PERIODS', '5'])
    text = str(error.value)
    assert text.startswith(f'{path}: 4 mistakes')
    for words in ("SOLVER.BASE_LRR; did you mean 'SOLVER.BASE_LR'?", "MAX_ITER is 'many'",
                  "'BN', 'SyncBN'", "command line: the torchvision backend knows no key "
                  "TEST.EVAL_PERIODS; did you mean 'TEST.EVAL_PERIOD'?"):
        assert words in text


def test_every_shipped_config_has_values_that_are_taken():
    assert len(CONFIGS) > 25
    for path in CONFIGS:
        assert DetectionConfig(path).path == str(path)


def test_values_outside_their_range_are_told_at_once():
    wrong = {
        'SOLVER.CHECKPOINT_PERIOD': ('0', '0, expected a number of at least 1'),
        'SOLVER.IMS_PER_BATCH': ('0', '0, expected a number of at least 1'),
        'SOLVER.BASE_LR': ('-1.0', '-1.0, expected a number of at least 0'),
        'SOLVER.GAMMA': ('1e999', 'inf, expected a number of at least 0'),
        'SOLVER.MAX_ITER': ('-5', '-5, expected a number of at least 0'),
        'SOLVER.MOMENTUM': ('True', 'True, expected a float such as 0.9'),
        'SOLVER.STEPS': ("('a',)", "('a',), expected numbers of at least 0"),
        'INPUT.CROP.SIZE': ('(0.5, 0.5)', '(0.5, 0.5), expected 2 whole numbers of at least 1'),
        'INPUT.MIN_SIZE_TRAIN': ('()', '(), expected one or more whole numbers of at least 1'),
        'MODEL.PIXEL_MEAN': ('[1, 2]', '(1, 2), expected 3 numbers'),
        'MODEL.PIXEL_STD': ('[1, 0, 1]', '(1, 0, 1), expected 3 numbers of at least 1e-06'),
        'MODEL.ROI_HEADS.IOU_THRESHOLDS': ('(0.5, 0.7)',
                                           '(0.5, 0.7), expected 1 number from 0 to 1'),
        'MODEL.RPN.IOU_THRESHOLDS': ('(0.7, 0.3)', '(0.7, 0.3), expected 2 numbers from 0 to 1, '
                                     'the lower one first'),
        'MODEL.RPN.NMS_THRESH': ('1.5', '1.5, expected a number from 0 to 1'),
        'MODEL.ANCHOR_GENERATOR.SIZES': ('[[32], []]', '((32,), ()), expected one or more '
                                         'numbers of at least 1e-06'),
        'DATASETS.TRAIN': ('[1]', '(1,), expected text'),
        'TEST.DETECTIONS_PER_IMAGE': ('-1', '-1, expected a number of at least 1')}
    with pytest.raises(UserError) as error:
        DetectionConfig(SHORT, [word for key, (value, _) in wrong.items()
                                for word in (key, value)])
    lines = str(error.value).splitlines()
    assert lines[0].endswith(f'{len(wrong)} mistakes in this config:')
    assert lines[1:] == [f'  command line: {key} is {told}' for key, (_, told) in wrong.items()]
    with pytest.raises(UserError, match=r'SIZE is \(-1, 64\), expected 2 whole numbers'):
        DetectionConfig(SHORT, ['INPUT.CROP.SIZE', '(-1, 64)'])
    edges = DetectionConfig(SHORT, ['SOLVER.STEPS', '()', 'SOLVER.MAX_ITER', '0', 'SEED', '-1',
                                    'MODEL.RPN.NMS_THRESH', '1', 'MODEL.PIXEL_MEAN', '(-1, 0, 1)',
                                    'MODEL.ANCHOR_GENERATOR.SIZES', '(8, 16, 32, 64, 128.5)'])
    assert edges['SOLVER.STEPS'] == () and edges['MODEL.RPN.NMS_THRESH'] == 1.0


def test_a_missing_base_a_loop_and_a_key_without_value(tmp_path):
    (tmp_path / 'a.yaml').write_text('_BASE_: b.yaml\n')
    with pytest.raises(UserError, match='b.yaml'):
        DetectionConfig(tmp_path / 'a.yaml')
    (tmp_path / 'b.yaml').write_text('_BASE_: a.yaml\n')
    with pytest.raises(UserError, match='its own _BASE_'):
        DetectionConfig(tmp_path / 'a.yaml')
    with pytest.raises(UserError, match='OUTPUT_DIR has no value'):
        DetectionConfig(SHORT, ['OUTPUT_DIR'])


def test_the_dumped_config_is_the_same_config(tmp_path):
    config = DetectionConfig(SHORT)
    (tmp_path / 'dump.yaml').write_text(config.dump())
    assert DetectionConfig(tmp_path / 'dump.yaml').values == config.values


def test_learning_rate_warms_up_and_steps_down():
    config = DetectionConfig(SHORT, ['SOLVER.BASE_LR', '0.1', 'SOLVER.WARMUP_ITERS', '10',
                            'SOLVER.STEPS', '(20, 30)'])
    rates = [learning_rate(config, i) for i in (0, 5, 10, 19, 20, 30)]
    assert rates == pytest.approx([1e-4, 0.1 * (0.001 + 0.999 / 2), 0.1, 0.1, 0.01, 0.001])


def test_norm_layers_have_their_own_weight_decay_and_clipping_clips():
    config = DetectionConfig(SHORT, ['SOLVER.WEIGHT_DECAY', '0.5'])
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    optimizer = build_optimizer(config, model)
    assert [(len(g['params']), g['weight_decay']) for g in optimizer.param_groups] == [
        (2, 0.5), (2, 0.0)]
    a, b = (torch.nn.Parameter(torch.zeros(2)) for _ in 'ab')
    for how, expected in (('value', [[1., 1.], [1., 1.]]), ('norm', [[.6, .8], [.6, .8]]),
                          ('full_model', [[.3 * 2 ** .5, .4 * 2 ** .5]] * 2)):
        a.grad, b.grad = torch.tensor([3., 4.]), torch.tensor([3., 4.])
        clip_gradients(DetectionConfig(SHORT, ['SOLVER.CLIP_GRADIENTS.CLIP_TYPE', how,
                                      'SOLVER.CLIP_GRADIENTS.CLIP_VALUE', '1.0']), [a, b])
        torch.testing.assert_close(torch.stack([a.grad, b.grad]), torch.tensor(expected),
                                   rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('norm', ['BN', 'FrozenBN', 'GN'])
def test_norms_of_the_config(norm):
    config = DetectionConfig(SHORT, ['MODEL.RESNETS.NORM', norm, 'MODEL.FPN.NORM', norm,
                            'MODEL.BACKBONE.FREEZE_AT', '2', 'MODEL.FPN.OUT_CHANNELS', '32'])
    backbone = build_model(config, torch.device('cpu')).backbone
    kinds = {type(m).__name__ for part in (backbone.body.layer2, backbone.fpn)
             for m in part.modules() if 'Norm' in type(m).__name__ and not list(m.children())}
    assert kinds == {dict(BN='BatchNorm2d', FrozenBN='FrozenBatchNorm2d', GN='GroupNorm')[norm]}
    trained = {n.split('.')[0] for n, p in backbone.body.named_parameters() if p.requires_grad}
    assert trained == {'layer2', 'layer3', 'layer4'}


def test_frozen_stages_are_frozen_where_norms_are_synchronised(monkeypatch):
    config = DetectionConfig(SHORT, ['MODEL.RESNETS.NORM', 'SyncBN', 'MODEL.BACKBONE.FREEZE_AT',
                                     '2', 'MODEL.FPN.OUT_CHANNELS', '32'])
    monkeypatch.setattr('openselfsup.transfer.instance.torchvision_model.synchronises',
                        lambda device, world_size: True)
    body = build_model(config, torch.device('cpu'), 2).backbone.body
    for part, kind in ((body.bn1, 'FrozenBatchNorm2d'), (body.layer1, 'FrozenBatchNorm2d'),
                       (body.layer2, 'SyncBatchNorm')):
        assert {type(m).__name__ for m in part.modules() if 'Norm' in type(m).__name__} == {kind}


@pytest.mark.parametrize('key, value, words', [
    ('MODEL.ROI_HEADS.NAME', 'CascadeROIHeads', "expected one of 'StandardROIHeads'"),
    ('MODEL.ROI_HEADS.NAME', 'Res5ROIHeadsAnyDepth', 'this is a C4 model'),
    ('MODEL.ROI_MASK_HEAD.NAME', 'PointRendMaskHead', "expected one of 'MaskRCNNConv"),
    ('MODEL.ROI_BOX_HEAD.NAME', 'Nonsense', "expected one of '', 'FastRCNNConvFCHead'"),
    ('MODEL.BACKBONE.NAME', 'build_regnet_fpn_backbone', "expected one of 'build_resnet_backbone'"),
    ('MODEL.FPN.IN_FEATURES', "('res4', 'res5')", "does not follow; expected .'res2', 'res3', "),
    ('MODEL.RPN.IN_FEATURES', "('p4',)", "does not follow; expected .'p2', "),
    ('MODEL.ROI_HEADS.IN_FEATURES', "('p4',)", "does not follow; expected .'p2', "),
    ('MODEL.RESNETS.OUT_FEATURES', "('res2',)", "does not follow; expected .'res2', ")])
def test_what_the_torchvision_backend_would_not_follow_is_refused(key, value, words):
    with pytest.raises(UserError, match=words):
        build_model(DetectionConfig(SHORT, [key, value]), torch.device('cpu'))


def test_auto_without_detectron2_and_wrong_names(monkeypatch):
    monkeypatch.setattr(backends.importlib.util, 'find_spec', lambda name: None)
    assert backends.choose_backend('auto') == 'torchvision'
    with pytest.raises(UserError, match='detectron2 is not installed.*pip install'):
        backends.choose_backend('detectron2')
    with pytest.raises(UserError, match="did you mean 'torchvision'"):
        backends.choose_backend('torchvison')
