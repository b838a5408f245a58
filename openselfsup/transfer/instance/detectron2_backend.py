"""detectron2 as a backend. The only file that imports it, and only when it is used."""

import logging
import time
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import inference_context
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock, ResNet
from detectron2.modeling.roi_heads import Res5ROIHeads
from detectron2.structures import BoxMode
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import Tensor, nn

from ... import distributed
from ...checkpoints import refuse_spoilt, to_detectron2
from ...datasets.prepare.annotations import Id
from ...datasets.prepare.instances import encode
from ...errors import UserError
from ...training.precision import DTYPES, NAMES, resolve
from .data import ordered
from .data_sets import DataSet, Wanted, open_data_sets
from .job import PLACEHOLDER, Job, notes_of_the_rate, refuse_shorter
from .weights import other_pixels, read_backbone, resnet_state_dict

_STAGES = {18: (BasicBlock, 2), 34: (BasicBlock, 3), 50: (BottleneckBlock, 3),
           101: (BottleneckBlock, 3), 152: (BottleneckBlock, 3)}


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsAnyDepth(Res5ROIHeads):
    """The C4 head with the last stage of the backbone's own depth.

    detectron2's head always has bottleneck blocks, into which layer4 of a ResNet-18 or -34
    cannot be loaded: it would silently stay random.
    """

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        resnets = cfg.MODEL.RESNETS
        block, count = _STAGES[resnets.DEPTH]
        channels = resnets.RES2_OUT_CHANNELS * 8
        extra = {} if block is BasicBlock else dict(
            bottleneck_channels=resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP * 8,
            num_groups=resnets.NUM_GROUPS, stride_in_1x1=resnets.STRIDE_IN_1X1)
        blocks = ResNet.make_stage(block, count, stride_per_block=[2] + [1] * (count - 1),
                                   in_channels=channels // 2, out_channels=channels,
                                   norm=resnets.NORM, **extra)
        return nn.Sequential(*blocks), channels


class _Trainer(DefaultTrainer):
    """detectron2's trainer, without its evaluation: every backend has the same, outside."""

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators: Any = None) -> dict:
        """Evaluate nothing."""
        return {}


class Detectron2Backend:
    """See :class:`openselfsup.transfer.instance.job.Backend`.

    Args:
        job: what to run.

    Raises:
        UserError: an unknown key, or problems of the data sets.
    """

    name = 'detectron2'

    def __init__(self, job: Job):
        self.job = job
        self.notes: list[str] = []
        if distributed.world_size() > 1:
            comm.create_local_process_group(distributed.world_size())
        self.cfg = cfg = get_cfg()
        try:
            cfg.merge_from_file(job.config_file)
            cfg.merge_from_list(list(job.overrides))
        except (KeyError, ValueError, AssertionError) as error:
            raise UserError(f'detectron2 refuses this config: {error}',
                            where=job.config_file) from None
        cfg.MODEL.DEVICE = job.device.type
        self.amp = self._precision()
        cfg.SOLVER.AMP.ENABLED = self.amp != 'off'
        cfg.freeze()
        seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + distributed.rank())
        self.output_dir = Path(cfg.OUTPUT_DIR)
        self.weights = cfg.MODEL.WEIGHTS
        self.train_sets: tuple[str, ...] = () if job.eval_only else tuple(cfg.DATASETS.TRAIN)
        self.test_sets = list(cfg.DATASETS.TEST)
        self.data, odd = open_data_sets(job.datasets_folder, self._wanted())
        self.notes += [f'data: {note}' for note in odd]
        if not job.eval_only:
            self.notes += notes_of_the_rate(cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.MAX_ITER,
                                            cfg.SOLVER.BASE_LR)
        for data in self.data.values():
            register(data)
        self.trainer: _Trainer  # :meth:`load_backbone` makes it, and the model
        self.model: nn.Module
        self.initialised = 'random'
        self.trained: dict[str, Any] = {}

    def _precision(self) -> str:
        """Return what the job asks for; detectron2 computes in less than float32 on GPUs only."""
        wanted, device = self.job.amp, self.job.device
        if device.type != 'cuda':
            if wanted in ('bf16', 'fp16'):
                raise UserError(f'detectron2 trains in {wanted} on GPUs only', where='--amp',
                                expected='auto, off or --backend torchvision')
            if wanted is None and self.cfg.SOLVER.AMP.ENABLED:
                self.notes.append('SOLVER.AMP.ENABLED needs a GPU: training in float32')
            return 'off'
        if wanted is None:  # what detectron2 makes of the switch
            return 'fp16' if self.cfg.SOLVER.AMP.ENABLED else 'off'
        return resolve(wanted, device, '--amp', self.notes.append)

    def _wanted(self) -> Wanted:
        cfg = self.cfg
        retina = cfg.MODEL.META_ARCHITECTURE == 'RetinaNet'
        if cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT != 'bitmask':
            raise UserError(f'INPUT.MASK_FORMAT is {cfg.INPUT.MASK_FORMAT}: polygons lose holes',
                            where=self.job.config_file, expected='bitmask')
        sides, drawn = cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
        if drawn == 'range' and (isinstance(sides, int) or len(sides) != 2):
            raise UserError(f'INPUT.MIN_SIZE_TRAIN is {sides}: a range has two ends',
                            where=self.job.config_file, expected='two numbers, or '
                            'INPUT.MIN_SIZE_TRAIN_SAMPLING choice')
        return Wanted(self.train_sets, self.test_sets,
                      (cfg.MODEL.RETINANET if retina else cfg.MODEL.ROI_HEADS).NUM_CLASSES,
                      cfg.MODEL.MASK_ON, cfg.TEST.DETECTIONS_PER_IMAGE)

    def load_backbone(self) -> str:
        """Build the model and load MODEL.WEIGHTS into its backbone, tensor by tensor."""
        path = self.weights
        if path == PLACEHOLDER:
            raise UserError('this config starts from a pretrained backbone, and none is given',
                            where=self.job.config_file,
                            expected='MODEL.WEIGHTS backbone.pkl at the end of the command')
        if self.job.eval_only:
            if not path:
                raise UserError('nothing is given to be evaluated', where='MODEL.WEIGHTS',
                                expected='MODEL.WEIGHTS OUTPUT_DIR/model_final.pth')
            self.model = DefaultTrainer.build_model(self.cfg)
            DetectionCheckpointer(self.model).load(path)
            self.initialised = str(path)
            return f'a trained detector, {path}'
        logging.getLogger('detectron2.engine.defaults').setLevel(logging.WARNING)
        self.trainer = _Trainer(self.cfg)
        self.model = self.trainer._trainer.model
        if self.amp != 'off':
            self.trainer._trainer.precision = DTYPES[self.amp]
        if not path:
            return 'random initialisation: MODEL.WEIGHTS is empty'
        checkpoint = read_backbone(path)
        weights = to_detectron2(resnet_state_dict(checkpoint, str(path))[0])
        self.initialised = str(path)
        if told := other_pixels(path, checkpoint, self.cfg.MODEL.PIXEL_MEAN,
                                self.cfg.MODEL.PIXEL_STD, self.cfg.INPUT.FORMAT == 'BGR'):
            logging.getLogger('openselfsup.transfer').warning('%s', told)
        matched, expected = fill(self.model, weights)
        return f'{matched}/{expected} tensors of the backbone matched ({path})'

    def fit(self) -> None:
        """Train as the config says, with detectron2's own hooks.

        Raises:
            UserError: the checkpoint is of a longer run.
        """
        if self.job.resume:
            self.trainer.checkpointer.resume_or_load('', resume=True)
            if self.trainer.checkpointer.has_checkpoint():
                self.trainer.start_iter = self.trainer.iter + 1
                refuse_shorter(self.trainer.start_iter, self.cfg.SOLVER.MAX_ITER,
                               'SOLVER.MAX_ITER', self.output_dir)
        began = time.perf_counter()
        self.trainer.train()
        self.trained = dict(minutes=round((time.perf_counter() - began) / 60, 2))

    @torch.no_grad()
    def predict(self, dataset: str) -> list[dict]:
        """Return COCO results of a data set; on rank 0 those of all ranks."""
        loader = build_detection_test_loader(self.cfg, dataset)
        categories = ordered(self.data[dataset].truth['categories'])
        results = []
        with inference_context(self.model):
            for inputs in loader:
                for entry, output in zip(inputs, self.model(inputs)):
                    results += _coco_results(output['instances'].to('cpu'), entry['image_id'],
                                             categories)
        return [r for part in comm.gather(results) for r in part] if (
            distributed.world_size() > 1) else results

    def info(self) -> dict[str, Any]:
        """Return backend, versions, initialisation and length of the training."""
        return dict(backend=self.name, detectron2=detectron2.__version__,
                    torch=torch.__version__, device=self.cfg.MODEL.DEVICE,
                    processes=distributed.world_size(), config=self.job.config_file,
                    precision=NAMES[self.amp],
                    initialised=self.initialised, iterations=self.cfg.SOLVER.MAX_ITER,
                    masks=self.cfg.MODEL.MASK_ON,
                    detections_per_image=self.cfg.TEST.DETECTIONS_PER_IMAGE, **self.trained)


def register(data: DataSet) -> None:
    """Tell detectron2 of a data set, in place of an earlier one of its name.

    It gets the checked objects: its own reader of COCO files stops at a missing key.
    """
    names = {c['id']: c['name'] for c in data.truth['categories']}
    labels = {category: label for label, category in enumerate(ordered(data.truth['categories']))}
    by_image: dict[Any, list[dict]] = {image['id']: [] for image in data.truth['images']}
    for a in data.truth['annotations']:
        by_image[a['image_id']].append(dict(
            iscrowd=a['iscrowd'], bbox=a['bbox'], bbox_mode=BoxMode.XYWH_ABS,
            category_id=labels[a['category_id']], segmentation=a['segmentation']))
    records = [dict(file_name=str(data.folder / image['file_name']), height=image['height'],
                    width=image['width'], image_id=image['id'], annotations=by_image[image['id']])
               for image in data.truth['images']]
    if data.name in DatasetCatalog.list():
        DatasetCatalog.remove(data.name)
        MetadataCatalog.remove(data.name)
    DatasetCatalog.register(data.name, lambda: records)
    MetadataCatalog.get(data.name).set(
        thing_classes=[names[category] for category in labels],
        thing_dataset_id_to_contiguous_id=labels)


def fill(model: nn.Module, weights: dict[str, Tensor]) -> tuple[int, int]:
    """Copy backbone weights to where a detectron2 model has them, below any prefix.

    Args:
        model: a detector; res5 lies in its backbone, or in its head for C4.
        weights: tensors under the names of detectron2's ResNet.

    Returns:
        How many tensors of the model's ResNet were filled, and how many it has.

    Raises:
        UserError: a tensor of the ResNet is missing, has another shape or holds NaN.
    """
    state = model.state_dict()
    own = {key: part for key in state for part in [_resnet_name(key)] if part}
    wrong = [key for key, part in own.items() if not part.endswith('num_batches_tracked')
             and (part not in weights or weights[part].shape != state[key].shape)]
    if wrong or not own:
        raise UserError(f'{len(wrong)} of {len(own)} tensors of the backbone are not in these '
                        f'weights, or have another shape: {", ".join(wrong[:3])} ...')
    filled = {key: weights[part] for key, part in own.items() if part in weights}
    refuse_spoilt(filled, None)
    model.load_state_dict({**state, **filled})
    return len(filled), len([p for p in own.values() if not p.endswith('num_batches_tracked')
                             or p in weights])


def _resnet_name(key: str) -> str | None:
    """Return the part of a name that begins with stem or res2 ... res5, None if none does."""
    parts = key.split('.')
    for i, part in enumerate(parts):
        if part in ('stem', 'res2', 'res3', 'res4', 'res5'):
            return '.'.join(parts[i:])
    return None


def _coco_results(found: Any, image_id: Id, categories: list[Id]) -> list[dict]:
    """Turn detectron2's instances of one image into COCO results."""
    results: list[dict[str, Any]] = []
    for i in range(len(found)):
        x0, y0, x1, y1 = found.pred_boxes.tensor[i].tolist()
        results.append(dict(
            image_id=image_id, category_id=categories[int(found.pred_classes[i])],
            bbox=[x0, y0, x1 - x0, y1 - y0], score=float(found.scores[i])))
        if found.has('pred_masks'):
            results[-1]['segmentation'] = encode(found.pred_masks[i].numpy())
    return results
