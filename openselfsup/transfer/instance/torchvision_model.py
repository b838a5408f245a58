"""Mask R-CNN and RetinaNet of torchvision: built as a detectron2 config says, and their results."""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from ...datasets.prepare.annotations import Id
from ...datasets.prepare.instances import encode
from ...errors import UserError
from ...models.backbones.resnet import ResNet
from ...training.normalization import Normalize
from ..vit_pyramid import ViTPyramid, vit_of
from .job import PLACEHOLDER
from .retinanet import RetinaNet
from .weights import read_backbone
from .yaml_config import DetectionConfig

KIND = 'torchvision detector'  # of our checkpoints
VIT = 'build_vit_simple_fpn_backbone'  # MODEL.BACKBONE.NAME of a ViT
_C4 = ('build_resnet_backbone', 'Res5ROIHeads', 'Res5ROIHeadsExtraNorm', 'Res5ROIHeadsAnyDepth')
_STAGES, _LEVELS = (tuple(f'{kind}{i}' for i in range(2, 8)) for kind in ('res', 'p'))
_FEATURES = {  # of the pyramids that are built
    'GeneralizedRCNN': {
        'MODEL.RESNETS.OUT_FEATURES': _STAGES[:4], 'MODEL.FPN.IN_FEATURES': _STAGES[:4],
        'MODEL.RPN.IN_FEATURES': _LEVELS[:5], 'MODEL.ROI_HEADS.IN_FEATURES': _LEVELS[:4]},
    'RetinaNet': {
        'MODEL.RESNETS.OUT_FEATURES': _STAGES[1:4], 'MODEL.FPN.IN_FEATURES': _STAGES[1:4],
        'MODEL.RETINANET.IN_FEATURES': _LEVELS[1:]}}


def build_model(config: DetectionConfig, device: torch.device, world_size: int = 1) -> nn.Module:
    """Build the detector of a config, randomly initialised.

    Args:
        config: what to build.
        device: where it goes. Where batch norm cannot be synchronised it is plain.
        world_size: number of processes.

    Raises:
        UserError: torchvision cannot build this model.
    """
    refuse_unbuildable(config)
    retina = config['MODEL.META_ARCHITECTURE'] == 'RetinaNet'
    model = _retinanet(config) if retina else _rcnn(config)
    model.transform = _Resize(config)
    # Losses are computed in float32 whatever the precision of the layers.
    heads = ('head', 'rpn.head', 'roi_heads.box_predictor', 'roi_heads.mask_predictor')
    for name, module in model.named_modules():
        if name in heads:
            module.register_forward_hook(_to_float32)
    # Before norms become synchronised ones, which would go on to follow their batches.
    _freeze_stages(model.get_submodule('backbone.body'), config['MODEL.BACKBONE.FREEZE_AT'])
    for name, key in (('body', 'MODEL.RESNETS.NORM'), ('fpn', 'MODEL.FPN.NORM')):
        module = model.get_submodule(f'backbone.{name}')
        if config[key] == 'SyncBN' and synchronises(device, world_size):
            nn.SyncBatchNorm.convert_sync_batchnorm(module)
        elif config[key] == 'FrozenBN':
            freeze_norms(module)
    return model.to(device)


def synchronises(device: torch.device, world_size: int) -> bool:
    """Return whether there is batch norm over processes: on several GPUs only."""
    return world_size > 1 and device.type == 'cuda'


def refuse_unbuildable(config: DetectionConfig) -> None:
    """Raise UserError for a model that torchvision's parts cannot make."""
    where, is_vit = config.path, config['MODEL.BACKBONE.NAME'] == VIT
    if is_vit != (config['MODEL.FPN.NORM'] == 'LN'):
        raise UserError(f"MODEL.FPN.NORM is {config['MODEL.FPN.NORM']}", where=where,
                        expected='LN, the norm of the pyramid of a ViT' if is_vit else
                        'another one: LN is the norm of the pyramid of a ViT')
    if is_vit and config['MODEL.BACKBONE.FREEZE_AT']:
        raise UserError(f"MODEL.BACKBONE.FREEZE_AT is {config['MODEL.BACKBONE.FREEZE_AT']}, which "
                        'counts the stages of a ResNet', where=where,
                        expected='0, and a low SOLVER.LAYER_DECAY')
    for key in ('MODEL.BACKBONE.NAME', 'MODEL.ROI_HEADS.NAME'):
        if config[key] in _C4 and not (key.endswith('HEADS.NAME') and
                                       config['MODEL.META_ARCHITECTURE'] == 'RetinaNet'):
            raise UserError(f'this is a C4 model ({key}: {config[key]}), which the torchvision '
                            'backend cannot build', where=where,
                            expected='--backend detectron2, or the FPN config beside it')
    for key, built in _FEATURES[config['MODEL.META_ARCHITECTURE']].items():
        if config[key] != built:
            raise UserError(f'{key} is {config[key]}, which the torchvision backend does not '
                            'follow', where=where, expected=f'{built}, or --backend detectron2')
    if config['MODEL.RESNETS.STRIDE_IN_1X1'] and config['MODEL.RESNETS.DEPTH'] >= 50:
        raise UserError('MODEL.RESNETS.STRIDE_IN_1X1 is True: torchvision strides in the 3x3 '
                        'convolution, and so did pretraining', where=where, expected='False')
    basic = config['MODEL.RESNETS.DEPTH'] < 50
    if config['MODEL.RESNETS.RES2_OUT_CHANNELS'] != (64 if basic else 256):
        raise UserError(f"MODEL.RESNETS.RES2_OUT_CHANNELS is "
                        f"{config['MODEL.RESNETS.RES2_OUT_CHANNELS']}", where=where,
                        expected='64 for depths 18 and 34, 256 for deeper ones')


class FPNBackbone(nn.Module):
    """ResNet and feature pyramid, under the names torchvision gives them (body, fpn)."""

    def __init__(self, body: ResNet, fpn: FeaturePyramidNetwork):
        super().__init__()
        self.body, self.fpn = body, fpn
        self.out_channels = fpn.layer_blocks[0][0].out_channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images [B, 3, H, W] to pyramid levels, finest first."""
        maps = self.body(x.contiguous(memory_format=torch.channels_last))
        return self.fpn(OrderedDict((str(i), m) for i, m in enumerate(maps)))


def _vit(path: str, where: str) -> dict[str, Any]:
    """Return the config of the ViT whose weights, or whose trained detector, is in a file."""
    if path in ('', PLACEHOLDER):
        raise UserError('this config starts from a ViT, which is told from its weights, and none '
                        'are given', where=where,
                        expected='MODEL.WEIGHTS FILE at the end of the command')
    checkpoint = read_backbone(path)
    is_detector = checkpoint.get('kind') == KIND
    config = checkpoint.get('body') if is_detector else vit_of(checkpoint, path)
    if config is None:
        raise UserError('this file holds no ViT', where=path, expected='weights of a ViT, or a '
                        'config of a ResNet such as GlaS_R_18_FPN_1x_moco.yaml')
    return config


def _backbone(config: DetectionConfig, first_layer: int,
              extra: ExtraFPNBlock) -> FPNBackbone | ViTPyramid:
    if config['MODEL.BACKBONE.NAME'] == VIT:
        return ViTPyramid(_vit(config['MODEL.WEIGHTS'], config.path),
                          config['MODEL.FPN.OUT_CHANNELS'], 2 ** (first_layer + 1), extra)
    norm = config['MODEL.RESNETS.NORM']
    body = ResNet(config['MODEL.RESNETS.DEPTH'], dict(type='GN' if norm == 'GN' else 'BN'),
                  out_indices=tuple(range(first_layer, 5)))
    norms = {'': None, 'GN': lambda channels: nn.GroupNorm(32, channels)}
    fpn = FeaturePyramidNetwork(body.out_channels, config['MODEL.FPN.OUT_CHANNELS'], extra,
                                norms.get(config['MODEL.FPN.NORM'], nn.BatchNorm2d))
    return FPNBackbone(body, fpn).to(memory_format=torch.channels_last)


def _anchors(config: DetectionConfig, levels: int) -> AnchorGenerator:
    sizes = config['MODEL.ANCHOR_GENERATOR.SIZES']
    ratios = config['MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS']
    if len(sizes) != levels:
        raise UserError(f'MODEL.ANCHOR_GENERATOR.SIZES has {len(sizes)} entries, the pyramid '
                        f'{levels} levels', where=config.path)
    return AnchorGenerator(sizes, ratios * levels if len(ratios) == 1 else ratios)


def _rcnn(config: DetectionConfig) -> nn.Module:
    backbone = _backbone(config, 1, LastLevelMaxPool())
    channels, classes = backbone.out_channels, config['MODEL.ROI_HEADS.NUM_CLASSES'] + 1

    def pooler(head: str) -> MultiScaleRoIAlign:
        return MultiScaleRoIAlign(['0', '1', '2', '3'], config[f'MODEL.{head}.POOLER_RESOLUTION'],
                                  config[f'MODEL.{head}.POOLER_SAMPLING_RATIO'])

    fc = config['MODEL.ROI_BOX_HEAD.FC_DIM']
    if config['MODEL.ROI_BOX_HEAD.NUM_FC'] != 2:
        raise UserError(f"MODEL.ROI_BOX_HEAD.NUM_FC is {config['MODEL.ROI_BOX_HEAD.NUM_FC']}",
                        where=config.path, expected='2, the head torchvision has')
    pool = config['MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION']
    low, high = config['MODEL.RPN.IOU_THRESHOLDS']
    iou, = config['MODEL.ROI_HEADS.IOU_THRESHOLDS']
    arguments = dict(
        rpn_anchor_generator=_anchors(config, 5), rpn_bg_iou_thresh=low, rpn_fg_iou_thresh=high,
        rpn_pre_nms_top_n_train=config['MODEL.RPN.PRE_NMS_TOPK_TRAIN'],
        rpn_pre_nms_top_n_test=config['MODEL.RPN.PRE_NMS_TOPK_TEST'],
        rpn_post_nms_top_n_train=config['MODEL.RPN.POST_NMS_TOPK_TRAIN'],
        rpn_post_nms_top_n_test=config['MODEL.RPN.POST_NMS_TOPK_TEST'],
        rpn_nms_thresh=config['MODEL.RPN.NMS_THRESH'],
        rpn_batch_size_per_image=config['MODEL.RPN.BATCH_SIZE_PER_IMAGE'],
        rpn_positive_fraction=config['MODEL.RPN.POSITIVE_FRACTION'],
        box_roi_pool=pooler('ROI_BOX_HEAD'), box_head=TwoMLPHead(channels * pool ** 2, fc),
        box_predictor=FastRCNNPredictor(fc, classes), box_fg_iou_thresh=iou, box_bg_iou_thresh=iou,
        box_score_thresh=config['MODEL.ROI_HEADS.SCORE_THRESH_TEST'],
        box_nms_thresh=config['MODEL.ROI_HEADS.NMS_THRESH_TEST'],
        box_detections_per_img=config['TEST.DETECTIONS_PER_IMAGE'],
        box_batch_size_per_image=config['MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE'],
        box_positive_fraction=config['MODEL.ROI_HEADS.POSITIVE_FRACTION'])
    if not config['MODEL.MASK_ON']:
        return FasterRCNN(backbone, **arguments)
    dim = config['MODEL.ROI_MASK_HEAD.CONV_DIM']
    heads = MaskRCNNHeads(channels, [dim] * config['MODEL.ROI_MASK_HEAD.NUM_CONV'], 1)
    return MaskRCNN(backbone, mask_roi_pool=pooler('ROI_MASK_HEAD'), mask_head=heads,
                    mask_predictor=MaskRCNNPredictor(dim, dim, classes), **arguments)


def _retinanet(config: DetectionConfig) -> RetinaNet:
    channels = config['MODEL.FPN.OUT_CHANNELS']
    backbone = _backbone(config, 2, LastLevelP6P7(channels, channels))
    low, high = config['MODEL.RETINANET.IOU_THRESHOLDS']
    return RetinaNet(
        backbone, config['MODEL.RETINANET.NUM_CLASSES'] + 1, anchor_generator=_anchors(config, 5),
        score_thresh=config['MODEL.RETINANET.SCORE_THRESH_TEST'],
        nms_thresh=config['MODEL.RETINANET.NMS_THRESH_TEST'],
        detections_per_img=config['TEST.DETECTIONS_PER_IMAGE'], bg_iou_thresh=low,
        fg_iou_thresh=high, topk_candidates=config['MODEL.RETINANET.TOPK_CANDIDATES_TEST'])


class _Resize(GeneralizedRCNNTransform):
    """torchvision's resizing and normalising, with the short side drawn from a list or a range.

    In training the short side comes from torch's default generator; images are [3, H, W] RGB in
    [0, 255] and leave in the channel order of the config.
    """

    def __init__(self, config: DetectionConfig):
        self.sizes = config['INPUT.MIN_SIZE_TRAIN']
        self.from_range = config['INPUT.MIN_SIZE_TRAIN_SAMPLING'] == 'range'
        mean, std = config['MODEL.PIXEL_MEAN'], config['MODEL.PIXEL_STD']
        self.bgr = config['INPUT.FORMAT'] == 'BGR'
        mean, std = ([v / 255 for v in (values[::-1] if self.bgr else values)]
                     for values in (mean, std))
        self.test_sizes = (config['INPUT.MIN_SIZE_TEST'],)
        super().__init__(self.test_sizes, config['INPUT.MAX_SIZE_TEST'], mean, std)
        self.to_input = Normalize(mean, std)
        self.max_sizes = {True: config['INPUT.MAX_SIZE_TRAIN'],
                          False: config['INPUT.MAX_SIZE_TEST']}

    def resize(self, image: Tensor, target: dict | None = None) -> tuple:
        """Resize an image and its objects."""
        self.max_size = self.max_sizes[self.training]
        self.min_size = self.test_sizes
        if self.training:
            self.min_size = (self._drawn(),)
        if target is None or 'masks' not in target:
            return super().resize(image, target)
        # torchvision resizes masks as float32: with hundreds of objects that is half of a step.
        masks = target['masks'][:, None]
        image, target = super().resize(image, {k: v for k, v in target.items() if k != 'masks'})
        return image, dict(target, masks=F.interpolate(masks, image.shape[-2:])[:, 0])

    def normalize(self, image: Tensor) -> Tensor:
        """Normalise an RGB image with the statistics of its channels."""
        image = self.to_input(image)
        return image.flip(0) if self.bgr else image

    def _drawn(self) -> int:
        if self.from_range:
            low, high = min(self.sizes), max(self.sizes)
            return int(torch.randint(low, high + 1, (1,)))
        return self.sizes[int(torch.randint(len(self.sizes), (1,)))]


def freeze_norms(module: nn.Module) -> None:
    """Replace every batch norm below a module by one whose statistics and scale stay."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, eps=child.eps)
            frozen.load_state_dict({k: v for k, v in child.state_dict().items()
                                    if k != 'num_batches_tracked'})
            setattr(module, name, frozen)
        else:
            freeze_norms(child)


def _freeze_stages(body: nn.Module, freeze_at: int) -> None:
    """Freeze stem (1), layer1 (2), ... as detectron2's FREEZE_AT counts them."""
    names = ['conv1', 'bn1'] if freeze_at >= 1 else []
    names += [f'layer{i}' for i in range(1, freeze_at)]
    for name in names:
        getattr(body, name).requires_grad_(False)
        if name == 'bn1':
            frozen = FrozenBatchNorm2d(body.bn1.num_features, eps=body.bn1.eps) if isinstance(
                body.bn1, nn.BatchNorm2d) else body.bn1
            body.bn1 = frozen
        else:
            freeze_norms(getattr(body, name))


def _to_float32(_module: nn.Module, _inputs: object, output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float()
    if isinstance(output, dict):
        return {k: _to_float32(_module, None, v) for k, v in output.items()}
    return type(output)(_to_float32(_module, None, v) for v in output)


def coco_results(found: dict[str, Tensor], image_id: Id, categories: list[Id]) -> list[dict]:
    """Turn the detections of one image into COCO results.

    Args:
        found: boxes [N, 4] as corners, scores [N], labels [N] from 1, and masks [N, 1, H, W]
            as probabilities where the model has them.
        image_id: of the image.
        categories: COCO category of each label.
    """
    boxes = found['boxes'].float().cpu().numpy()
    masks = found['masks'][:, 0].float().cpu().numpy() > 0.5 if 'masks' in found else None
    results: list[dict[str, Any]] = []
    for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        results.append(dict(
            image_id=image_id, category_id=categories[int(found['labels'][i]) - 1],
            bbox=[x0, y0, x1 - x0, y1 - y0], score=float(found['scores'][i])))
        if masks is not None:
            results[-1]['segmentation'] = encode(masks[i])
    return results
