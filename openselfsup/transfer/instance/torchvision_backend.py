"""The built-in backend: torchvision's detectors, trained by detectron2's recipe."""

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torchvision
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ... import distributed
from ...checkpoints import load, load_backbone_weights, refuse_spoilt, save
from ...datasets.prepare.annotations import Id
from ...datasets.prepare.instances import encode
from ...errors import UserError
from .data import InstanceDataset, training_batches
from .data_sets import Wanted, open_data_sets
from .job import LAST, PLACEHOLDER, Job
from .precise_bn import update_statistics
from .solver import build_optimizer, clip_gradients, learning_rate
from .torchvision_model import build_model, synchronises
from .weights import read_backbone
from .yaml_config import Recipe

KIND = 'torchvision detector'
_LOG_INTERVAL = 20


class TorchvisionBackend:
    """See :class:`openselfsup.transfer.instance.job.Backend`.

    Args:
        job: what to run.

    Raises:
        UserError: mistakes in the recipe or in the data sets, or a model that torchvision
            cannot build.
    """

    name = 'torchvision'

    def __init__(self, job: Job):
        self.job, self.device = job, job.device
        self.recipe = recipe = Recipe(job.config_file, job.overrides)
        self.output_dir = Path(recipe['OUTPUT_DIR'])
        self.weights = recipe['MODEL.WEIGHTS']
        self.train_sets = () if job.eval_only else recipe['DATASETS.TRAIN']
        self.test_sets = recipe['DATASETS.TEST']
        self.log = logging.getLogger('openselfsup.transfer')
        self.world = distributed.world_size()
        self.seed = recipe['SEED'] if recipe['SEED'] >= 0 else 0
        if recipe['SOLVER.IMS_PER_BATCH'] % self.world:
            raise UserError(f"SOLVER.IMS_PER_BATCH {recipe['SOLVER.IMS_PER_BATCH']} cannot be "
                            f'divided among {self.world} processes', where=recipe.config_file)
        torch.manual_seed(self.seed)
        self.model = build_model(recipe, self.device, self.world)
        self.data, self.notes = open_data_sets(job.datasets_folder, self._wanted())
        self.initialised = 'random'
        self.trained: dict[str, Any] = {}

    # ------------------------------------------------------------------ weights

    def load_backbone(self) -> str:
        """Load MODEL.WEIGHTS into the backbone, or a whole detector for evaluation."""
        path = self.weights
        if path == PLACEHOLDER:
            raise UserError('this config starts from a pretrained backbone, and none is given',
                            where=self.recipe.config_file,
                            expected='MODEL.WEIGHTS backbone.pkl at the end of the command, or '
                                     'the config without _moco to start from random weights')
        if not path and not self.job.eval_only:
            return 'random initialisation: MODEL.WEIGHTS is empty'
        checkpoint = read_backbone(path) if path else {}
        if checkpoint.get('kind') == KIND:
            refuse_spoilt(checkpoint, str(path))
            self.model.load_state_dict(checkpoint['model'])
            self.initialised = checkpoint['initialised']
            self.trained = checkpoint['trained']
            return f"{len(checkpoint['model'])} tensors of the detector {path}"
        if self.job.eval_only:
            raise UserError('this is no trained detector', where=path or 'MODEL.WEIGHTS',
                            expected='MODEL.WEIGHTS OUTPUT_DIR/model_final.pth')
        report = load_backbone_weights(self.model.backbone.body, checkpoint)
        self.initialised = str(path)
        return f'{report.matched}/{report.expected} tensors of the backbone matched ({path})'

    # ------------------------------------------------------------------ training

    def fit(self) -> None:
        """Train to MAX_ITER, with precise batch norm at the end; write ``model_final.pth``."""
        recipe, stop = self.recipe, self.recipe['SOLVER.MAX_ITER']
        data = self._training_data()
        optimizer = build_optimizer(recipe, self.model)
        start = self._resume(optimizer) if self.job.resume else 0
        if start == stop and self.trained:
            self.log.info('this run was finished: nothing is trained')
            return
        if not synchronises(self.device, self.world) and 'SyncBN' in (
                recipe['MODEL.RESNETS.NORM'], recipe['MODEL.FPN.NORM']):
            self.log.info('SyncBN needs several GPUs: here it is BN, over %d image(s) of each '
                          'process', recipe['SOLVER.IMS_PER_BATCH'] // self.world)
        self.model.train()
        step_model: nn.Module = self.model
        if self.world > 1:
            devices = [self.device.index] if self.device.type == 'cuda' else None
            step_model = DistributedDataParallel(self.model, device_ids=devices)
        self.log.info('training on %d images: iterations %d to %d, %d images each, on %s',
                      len(data), start, stop, recipe['SOLVER.IMS_PER_BATCH'], self.device)
        began, logged = time.perf_counter(), (start, time.perf_counter())
        sums: dict[str, Tensor] = {}
        for iteration, batch in zip(range(start, stop), self._batches(data, start, stop)):
            rate = learning_rate(recipe, iteration)
            losses = self._step(step_model, optimizer, batch, rate, iteration)
            sums = {k: sums.get(k, 0) + v.detach() for k, v in losses.items()}
            if (iteration + 1) % _LOG_INTERVAL == 0 or iteration + 1 == stop:
                self._report(iteration, rate, sums, *logged)
                logged, sums = (iteration + 1, time.perf_counter()), {}
            if (iteration + 1) % recipe['SOLVER.CHECKPOINT_PERIOD'] == 0 and iteration + 1 < stop:
                self._save(f'model_{iteration:07d}.pth', iteration + 1, optimizer)
        minutes = (time.perf_counter() - began) / 60
        if recipe['TEST.PRECISE_BN.ENABLED']:
            count = recipe['TEST.PRECISE_BN.NUM_ITER']
            batches = self._batches(data, 0, count, seed=self.seed + 1)
            layers = update_statistics(self.model, batches, self._backbone_only)
            self.log.info('precise batch norm: %d layers over %d batches', layers, count)
        self.trained = dict(iterations=stop, seconds_per_iteration=round(
            60 * minutes / max(stop - start, 1), 3), minutes=round(minutes, 2),
            resumed_at=start)
        self._save('model_final.pth', stop, optimizer)

    def _wanted(self) -> Wanted:
        recipe = self.recipe
        if len(self.train_sets) != 1 and not self.job.eval_only:
            raise UserError(f'DATASETS.TRAIN is {self.train_sets}', where=recipe.config_file,
                            expected='one data set')
        retina = recipe['MODEL.META_ARCHITECTURE'] == 'RetinaNet'
        return Wanted(
            self.train_sets, self.test_sets,
            recipe['MODEL.RETINANET.NUM_CLASSES' if retina else 'MODEL.ROI_HEADS.NUM_CLASSES'],
            recipe['MODEL.MASK_ON'] and not retina, recipe['TEST.DETECTIONS_PER_IMAGE'])

    def _training_data(self) -> InstanceDataset:
        data = self.data[self.train_sets[0]]
        return InstanceDataset(data.folder, data.truth,
                               not self.recipe['DATALOADER.FILTER_EMPTY_ANNOTATIONS'])

    def _batches(self, data: InstanceDataset, start: int, stop: int,
                 seed: int | None = None) -> Iterator:
        return training_batches(
            data, self.recipe['SOLVER.IMS_PER_BATCH'], start, stop,
            self.seed if seed is None else seed, distributed.rank(), self.world,
            self.recipe['INPUT.RANDOM_FLIP'] == 'horizontal',
            self.recipe['DATALOADER.NUM_WORKERS'],
            self.recipe['INPUT.CROP.SIZE'] if self.recipe['INPUT.CROP.ENABLED'] else None)

    def _step(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple,
              rate: float, iteration: int) -> dict[str, Tensor]:
        """One optimiser step; return its losses."""
        # Sizes, anchors and regions are drawn from the default generator: a function of the step.
        seeds = np.random.SeedSequence([self.seed, distributed.rank(), iteration])
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        images, targets = self._to_device(*batch)
        with self._autocast():
            losses = model(images, targets)
        loss = sum(losses.values())
        if not torch.isfinite(loss):
            names = [k for k, v in losses.items() if not torch.isfinite(v)]
            last = self.output_dir / LAST
            raise UserError(
                f"{', '.join(names)} is not finite at iteration {iteration}; the last checkpoint "
                f'is {last.read_text() if last.exists() else "none"}',
                expected='a smaller SOLVER.BASE_LR, or SOLVER.CLIP_GRADIENTS.ENABLED True')
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_gradients(self.recipe, self.model.parameters())
        for group in optimizer.param_groups:
            group['lr'] = rate
        optimizer.step()
        return losses

    def _backbone_only(self, batch: tuple) -> None:
        images, targets = self._to_device(*batch)
        with self._autocast():
            resized, _ = self.model.transform(images, targets)
            self.model.backbone(resized.tensors)

    def _to_device(self, images: list[Tensor], targets: list[dict]) -> tuple[list, list]:
        return ([i.to(self.device, non_blocking=True) for i in images],
                [{k: v.to(self.device, non_blocking=True) for k, v in t.items()} for t in targets])

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16,
                              enabled=self.recipe['SOLVER.AMP.ENABLED'])

    def _report(self, iteration: int, rate: float, sums: dict[str, Tensor], first: int,
                since: float) -> None:
        count = iteration + 1 - first
        seconds = (time.perf_counter() - since) / count
        losses = {k: float(distributed.all_reduce_mean(v)) / count for k, v in sums.items()}
        if not distributed.is_main():
            return
        left = (self.recipe['SOLVER.MAX_ITER'] - iteration - 1) * seconds / 60
        self.log.info('iteration %d  loss %.3f  (%s)  lr %.2g  %.2f s/it  %.0f min left',
                      iteration + 1, sum(losses.values()),
                      '  '.join(f"{k.removeprefix('loss_')} {v:.3f}" for k, v in losses.items()),
                      rate, seconds, left)
        entry = dict(iteration=iteration + 1, total_loss=sum(losses.values()), **losses, lr=rate,
                     time=seconds)
        with open(self.output_dir / 'metrics.json', 'a', encoding='utf-8') as file:
            file.write(json.dumps(entry) + '\n')

    # ------------------------------------------------------------------ checkpoints

    def _save(self, name: str, iteration: int, optimizer: torch.optim.Optimizer) -> None:
        if distributed.is_main():
            save(dict(kind=KIND, model=self.model.state_dict(), optimizer=optimizer.state_dict(),
                      iteration=iteration, initialised=self.initialised, trained=self.trained,
                      recipe=self.recipe.dump()), self.output_dir / name)
            (self.output_dir / LAST).write_text(name, encoding='utf-8')
        distributed.barrier()

    def _resume(self, optimizer: torch.optim.Optimizer) -> int:
        """Load the last checkpoint of OUTPUT_DIR if there is one; return its iteration."""
        last = self.output_dir / LAST
        if not last.exists():
            return 0
        path = self.output_dir / last.read_text(encoding='utf-8').strip()
        checkpoint = load(path)
        refuse_spoilt(checkpoint, str(path))
        for change in self.recipe.changes(checkpoint['recipe']):
            self.log.warning('the recipe has changed: %s', change)
        self.model.load_state_dict(checkpoint['model'])
        own = [{k: v for k, v in g.items() if k != 'params'} for g in optimizer.param_groups]
        optimizer.load_state_dict(checkpoint['optimizer'])
        for group, settings in zip(optimizer.param_groups, own):
            group.update(settings)  # of the recipe as it is now
        self.initialised, self.trained = checkpoint['initialised'], checkpoint['trained']
        self.log.info('going on from %s, iteration %d', last.read_text(), checkpoint['iteration'])
        return min(checkpoint['iteration'], self.recipe['SOLVER.MAX_ITER'])

    # ------------------------------------------------------------------ prediction

    @torch.no_grad()
    def predict(self, dataset: str) -> list[dict]:
        """Return COCO results, on rank 0 those of all ranks."""
        data = InstanceDataset(self.data[dataset].folder, self.data[dataset].truth)
        self.model.eval()
        results = []
        for index in range(distributed.rank(), len(data), self.world):
            with self._autocast():
                found, = self.model([data.image(index).to(self.device)])
            results += coco_results(found, data.images[index]['id'], data.categories)
        if self.world > 1:
            parts: list = [None] * self.world
            dist.all_gather_object(parts, results)
            results = [r for part in parts for r in part]
        return results

    def info(self) -> dict[str, Any]:
        """Return backend, versions, initialisation and the figures of the training."""
        return dict(backend=self.name, torch=torch.__version__, torchvision=torchvision.__version__,
                    device=str(self.device), processes=self.world,
                    precision='bfloat16' if self.recipe['SOLVER.AMP.ENABLED'] else 'float32',
                    config=self.recipe.config_file, initialised=self.initialised, seed=self.seed,
                    masks=self.recipe['MODEL.MASK_ON'],
                    detections_per_image=self.recipe['TEST.DETECTIONS_PER_IMAGE'], **self.trained)


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
    results = []
    for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        result = dict(image_id=image_id, category_id=categories[int(found['labels'][i]) - 1],
                      bbox=[x0, y0, x1 - x0, y1 - y0], score=float(found['scores'][i]))
        if masks is not None:
            result['segmentation'] = encode(masks[i])
        results.append(result)
    return results
