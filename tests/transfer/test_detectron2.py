"""With detectron2 installed: its backbone computes our features, and the backend trains."""

from pathlib import Path

import pytest
import torch

pytest.importorskip('detectron2', reason='detectron2 is not installed')

from openselfsup.errors import UserError  # noqa: E402
from openselfsup.models.backbones.resnet import ResNet  # noqa: E402
from openselfsup.transfer.instance.detectron2_backend import Detectron2Backend  # noqa: E402
from openselfsup.transfer.instance.job import Job  # noqa: E402
from openselfsup.transfer.instance.scoring import evaluate  # noqa: E402
from openselfsup.transfer.instance.weights import convert  # noqa: E402

CONFIGS = Path(__file__).resolve().parents[2] / 'segmentation' / 'detection' / 'configs' / 'GlaS'


def our_backbone(folder: Path) -> ResNet:
    """A ResNet-18 whose norm layers have uncommon statistics, converted to folder/b.pkl."""
    torch.manual_seed(3)
    body = ResNet(18, out_indices=(1, 2, 3, 4))
    for module in body.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight.data, module.bias.data, module.running_mean):
                values.normal_(0.5, 0.3)
            module.running_var.uniform_(0.5, 2)
    torch.save(dict(state_dict=body.state_dict()), folder / 'b.pth')
    convert(folder / 'b.pth', folder / 'b.pkl')
    return body.eval()


def loaded(datasets: Path, folder: Path, config: str, *more: str) -> Detectron2Backend:
    backend = Detectron2Backend(Job(str(CONFIGS / config), [
        'MODEL.WEIGHTS', str(folder / 'b.pkl'), 'OUTPUT_DIR', str(folder / 'o'), *more],
        str(datasets)))
    (folder / 'o').mkdir(exist_ok=True)
    assert backend.load_backbone().startswith('100/100')
    return backend


def test_converted_weights_give_the_same_features(datasets, tmp_path):
    body = our_backbone(tmp_path)
    backend = loaded(datasets, tmp_path, 'GlaS_R_18_FPN_1x_moco.yaml')
    x = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        theirs = backend.model.backbone.bottom_up.eval()(x)
        ours = body(x)
    for level, a in zip(('res2', 'res3', 'res4', 'res5'), ours, strict=True):
        assert (a - theirs[level]).abs().max() <= 1e-5


def test_detectron2s_own_loader_fills_the_same(datasets, tmp_path):
    from detectron2.checkpoint import DetectionCheckpointer
    body = our_backbone(tmp_path)
    backend = loaded(datasets, tmp_path, 'GlaS_R_18_FPN_1x_moco.yaml')
    for p in backend.model.parameters():
        p.data.zero_()
    DetectionCheckpointer(backend.model).load(str(tmp_path / 'b.pkl'))
    stage = backend.model.backbone.bottom_up.res5[1]
    assert torch.equal(stage.conv2.weight, body.layer4[1].conv2.weight)


def test_layer4_really_loads_into_the_c4_head(datasets, tmp_path):
    body = our_backbone(tmp_path)
    backend = loaded(datasets, tmp_path, 'GlaS_R_18_C4_1x_moco.yaml')
    x = torch.randn(2, 256, 6, 8)
    with torch.no_grad():
        assert (body.layer4(x) - backend.model.roi_heads.res5.eval()(x)).abs().max() <= 1e-5


def test_a_short_training_is_scored_by_our_evaluator(datasets, tmp_path):
    our_backbone(tmp_path)
    backend = loaded(datasets, tmp_path, 'GlaS_R_18_FPN_1x_moco.yaml', 'SOLVER.MAX_ITER', '2',
                     'SOLVER.IMS_PER_BATCH', '2', 'INPUT.MIN_SIZE_TRAIN', '(64, 96)',
                     'INPUT.MIN_SIZE_TEST', '64', 'TEST.PRECISE_BN.NUM_ITER', '2',
                     'DATALOADER.NUM_WORKERS', '0')
    backend.fit()
    outcome = evaluate(backend)['GlaS_test']
    assert outcome['run']['backend'] == 'detectron2' and len(outcome['images']) == 3


def test_a_range_of_one_size_is_told_in_a_sentence(datasets, tmp_path):
    with pytest.raises(UserError, match='a range has two ends.*expected two numbers'):
        loaded(datasets, tmp_path, 'GlaS_R_18_FPN_1x_moco.yaml', 'INPUT.MIN_SIZE_TRAIN', '(64,)')
