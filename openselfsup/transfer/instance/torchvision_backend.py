"""The built-in backend: torchvision's detectors, trained by detectron2's config."""

import logging
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torchvision
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ... import distributed
from ...checkpoints import load, load_backbone_weights, refuse_spoilt, save
from ...errors import UserError
from ...training.finite import FiniteCheck, last_good
from ...training.metrics_writer import MetricsWriter
from ...training.modes import eval_mode
from ...training.optimizer_step import OptimizerStep
from ...training.precision import NAMES, autocast, resolve
from ...training.progress import Meter, ProgressLine
from ...training.seeding import seed_step
from .data import InstanceDataset, training_batches
from .data_sets import Wanted, open_data_sets
from .job import LAST, PLACEHOLDER, Job, notes_of_the_rate, refuse_shorter
from .precise_bn import update_statistics
from .solver import build_optimizer, clip_gradients, learning_rate
from .torchvision_model import KIND, build_model, coco_results, synchronises
from .weights import other_pixels, read_backbone
from .yaml_config import DetectionConfig

METRICS = 'metrics.json'  # as detectron2 calls it
_LOG_INTERVAL = 20


class TorchvisionBackend:
    """See :class:`openselfsup.transfer.instance.job.Backend`.

    Args:
        job: what to run.

    Raises:
        UserError: mistakes in the config or in the data sets, a model that torchvision
            cannot build, or a precision that the device lacks.
    """

    name = 'torchvision'

    def __init__(self, job: Job):
        self.job, self.device = job, job.device
        self.config = config = DetectionConfig(job.config_file, job.overrides)
        switched = 'auto' if config['SOLVER.AMP.ENABLED'] else 'off'
        self.notes: list[str] = []
        self.amp = resolve(job.amp or switched, self.device, '--amp', self.notes.append)
        self.output_dir = Path(config['OUTPUT_DIR'])
        self.weights = config['MODEL.WEIGHTS']
        self.train_sets: tuple[str, ...] = () if job.eval_only else config['DATASETS.TRAIN']
        self.test_sets = config['DATASETS.TEST']
        self.log = logging.getLogger('openselfsup.transfer')
        self.world = distributed.world_size()
        self.seed = config['SEED'] if config['SEED'] >= 0 else 0
        if config['SOLVER.IMS_PER_BATCH'] % self.world:
            raise UserError(f"SOLVER.IMS_PER_BATCH {config['SOLVER.IMS_PER_BATCH']} cannot be "
                            f'divided among {self.world} processes', where=config.path)
        torch.manual_seed(self.seed)
        self.model = build_model(config, self.device, self.world)
        self.data, odd = open_data_sets(job.datasets_folder, self._wanted())
        self.notes += [f'data: {note}' for note in odd]
        if config['TEST.EVAL_PERIOD']:
            self.notes.append(f"TEST.EVAL_PERIOD is {config['TEST.EVAL_PERIOD']}: the torchvision "
                              'backend scores the end of a run alone')
        if not job.eval_only:
            self.notes += notes_of_the_rate(config['SOLVER.WARMUP_ITERS'],
                                            config['SOLVER.MAX_ITER'], config['SOLVER.BASE_LR'])
        self.initialised = 'random'
        self.trained: dict[str, Any] = {}

    # ------------------------------------------------------------------ weights

    def load_backbone(self) -> str:
        """Load MODEL.WEIGHTS into the backbone, or a whole detector for evaluation."""
        path, config = self.weights, self.config
        if path == PLACEHOLDER:
            raise UserError('this config starts from a pretrained backbone, and none is given',
                            where=config.path, expected='MODEL.WEIGHTS backbone.pkl at the end '
                            'of the command, or the config without _moco for random weights')
        if not path and not self.job.eval_only:
            return 'random initialisation: MODEL.WEIGHTS is empty'
        checkpoint = read_backbone(path) if path else {}
        if checkpoint.get('kind') == KIND:
            refuse_spoilt(checkpoint, str(path))
            if self.job.eval_only:
                config.refuse_other_sight(checkpoint['recipe'], str(path))
            self.model.load_state_dict(checkpoint['model'])
            self.initialised, self.trained = checkpoint['initialised'], checkpoint['trained']
            return f"{len(checkpoint['model'])} tensors of the detector {path}"
        if self.job.eval_only:
            raise UserError('this is no trained detector', where=path or 'MODEL.WEIGHTS',
                            expected='MODEL.WEIGHTS OUTPUT_DIR/model_final.pth')
        report = load_backbone_weights(self.model.get_submodule('backbone.body'), checkpoint)
        self.initialised = str(path)
        if told := other_pixels(path, checkpoint, config['MODEL.PIXEL_MEAN'],
                                config['MODEL.PIXEL_STD'], config['INPUT.FORMAT'] == 'BGR'):
            self.log.warning('%s', told)
        return f'{report.matched}/{report.expected} tensors of the backbone matched ({path})'

    # ------------------------------------------------------------------ training

    def fit(self) -> None:
        """Train to MAX_ITER, with precise batch norm at the end; write ``model_final.pth``.

        A run that goes on equals one that was never interrupted.

        Raises:
            UserError: the checkpoint is of another model or run, or a loss is not finite.
        """
        config, stop = self.config, self.config['SOLVER.MAX_ITER']
        data = self._training_data()
        step = OptimizerStep(build_optimizer(config, self.model), self.device, self.amp,
                             partial(clip_gradients, config))
        start = self._resume(step) if self.job.resume else 0
        if start == stop and self.trained:
            self.log.info('this run was finished: nothing is trained')
            return
        images = config['SOLVER.IMS_PER_BATCH']
        if not synchronises(self.device, self.world) and 'SyncBN' in (
                config['MODEL.RESNETS.NORM'], config['MODEL.FPN.NORM']):
            self.log.info('SyncBN needs several GPUs: here it is BN, over %d image(s) of each '
                          'process', images // self.world)
        self.log.info('training on %d images: iterations %d to %d, %d images each, on %s',
                      len(data), start, stop, images, self.device)
        began = time.perf_counter()
        self._train(step, data, start, stop)
        minutes = (time.perf_counter() - began) / 60
        if config['TEST.PRECISE_BN.ENABLED']:
            count = config['TEST.PRECISE_BN.NUM_ITER']
            batches = self._batches(data, 0, count, seed=self.seed + 1)
            layers = update_statistics(self.model, batches, self._backbone_only)
            self.log.info('precise batch norm: %d layers over %d batches', layers, count)
        self.trained = dict(iterations=stop, seconds_per_iteration=round(
            60 * minutes / max(stop - start, 1), 3), minutes=round(minutes, 2),
            resumed_at=start)
        self._save('model_final.pth', stop, step)

    def _train(self, step: OptimizerStep, data: InstanceDataset, start: int, stop: int) -> None:
        """Take the iterations start ... stop - 1."""
        config = self.config
        self.model.train()
        model: nn.Module = self.model
        if self.world > 1:
            devices = [self.device.index] if self.device.type == 'cuda' else None
            model = DistributedDataParallel(self.model, device_ids=devices)
        finite, meter = FiniteCheck(self._advice), Meter()
        if distributed.is_main():
            self.metrics = MetricsWriter(self.output_dir, self.log, start, METRICS, 'iteration')
        with ProgressLine(self.log, stop, start) as progress:
            progress.open('iteration', stop, start)
            for iteration, batch in enumerate(self._batches(data, start, stop), start):
                rate = learning_rate(config, iteration)
                losses = self._step(model, step, batch, rate, iteration)
                finite.watch(losses, f'iteration {iteration + 1}')
                # At once: boxes that are not finite would stop the next iteration without a name.
                # torchvision reads boxes on the host all the time, so nobody waits for this.
                finite.check()
                meter.add(losses)
                progress.advance()
                if (iteration + 1) % _LOG_INTERVAL == 0 or iteration + 1 == stop:
                    self._report(progress, meter, iteration + 1, rate)
                if ((iteration + 1) % config['SOLVER.CHECKPOINT_PERIOD'] == 0
                        and iteration + 1 < stop):
                    self._save(f'model_{iteration:07d}.pth', iteration + 1, step)

    def _wanted(self) -> Wanted:
        config = self.config
        if len(self.train_sets) != 1 and not self.job.eval_only:
            raise UserError(f'DATASETS.TRAIN is {self.train_sets}', where=config.path,
                            expected='one data set')
        retina = config['MODEL.META_ARCHITECTURE'] == 'RetinaNet'
        return Wanted(
            self.train_sets, self.test_sets,
            config['MODEL.RETINANET.NUM_CLASSES' if retina else 'MODEL.ROI_HEADS.NUM_CLASSES'],
            config['MODEL.MASK_ON'] and not retina, config['TEST.DETECTIONS_PER_IMAGE'])

    def _training_data(self) -> InstanceDataset:
        data = self.data[self.train_sets[0]]
        return InstanceDataset(data.folder, data.truth,
                               not self.config['DATALOADER.FILTER_EMPTY_ANNOTATIONS'])

    def _batches(self, data: InstanceDataset, start: int, stop: int,
                 seed: int | None = None) -> Iterator:
        return training_batches(
            data, self.config['SOLVER.IMS_PER_BATCH'], start, stop,
            self.seed if seed is None else seed, distributed.rank(), self.world,
            self.config['INPUT.RANDOM_FLIP'] == 'horizontal',
            self.config['DATALOADER.NUM_WORKERS'],
            self.config['INPUT.CROP.SIZE'] if self.config['INPUT.CROP.ENABLED'] else None)

    def _step(self, model: nn.Module, step: OptimizerStep, batch: tuple, rate: float,
              iteration: int) -> dict[str, Tensor]:
        """Take one optimiser step; return its losses."""
        seed_step(self.seed, distributed.rank(), iteration)  # sizes, anchors and regions
        images, targets = self._to_device(*batch)
        with step.autocast():
            losses = model(images, targets)
        step.backward(sum(losses.values()))
        step.update(rate)
        return losses

    def _advice(self) -> str:
        return (f'finite losses; {last_good(self._last)}, try a smaller SOLVER.BASE_LR, '
                'SOLVER.CLIP_GRADIENTS.ENABLED True or --amp off')

    def _backbone_only(self, batch: tuple) -> None:
        images, targets = self._to_device(*batch)
        with autocast(self.device, self.amp):
            resized, _ = self.model.get_submodule('transform')(images, targets)
            self.model.get_submodule('backbone')(resized.tensors)

    def _to_device(self, images: list[Tensor], targets: list[dict]) -> tuple[list, list]:
        return ([i.to(self.device, non_blocking=True) for i in images],
                [{k: v.to(self.device, non_blocking=True) for k, v in t.items()} for t in targets])

    def _report(self, progress: ProgressLine, meter: Meter, done: int, rate: float) -> None:
        found = meter.take()
        losses, seconds = found.values, found.seconds / found.steps
        total = sum(losses.values())
        progress.record(f"iteration {done}/{self.config['SOLVER.MAX_ITER']}", dict(
            loss=total, **losses, lr=rate,
            images_per_s=self.config['SOLVER.IMS_PER_BATCH'] / seconds))
        if distributed.is_main():
            self.metrics.write(dict(iteration=done, total_loss=total, **losses, lr=rate,
                                    time=seconds))

    # ------------------------------------------------------------------ checkpoints

    @property
    def _last(self) -> Path | None:
        last = self.output_dir / LAST
        if not last.exists():
            return None
        return self.output_dir / last.read_text(encoding='utf-8').strip()

    def _save(self, name: str, iteration: int, step: OptimizerStep) -> None:
        if distributed.is_main():
            save(dict(kind=KIND, model=self.model.state_dict(),
                      optimizer=step.optimizer.state_dict(), scaler=step.scaler.state_dict(),
                      iteration=iteration, initialised=self.initialised, trained=self.trained,
                      body=getattr(self.model.get_submodule('backbone'), 'config', None),
                      recipe=self.config.dump()), self.output_dir / name)
            (self.output_dir / LAST).write_text(name, encoding='utf-8')
        distributed.barrier()

    def _resume(self, step: OptimizerStep) -> int:
        """Load the last checkpoint of OUTPUT_DIR if there is one; return its iteration."""
        path, stop = self._last, self.config['SOLVER.MAX_ITER']
        if path is None:
            return 0
        checkpoint = load(path)
        refuse_spoilt(checkpoint, str(path))
        changes, done = self.config.changes(checkpoint['recipe']), checkpoint['iteration']
        refuse_shorter(done, stop, 'SOLVER.MAX_ITER', path)
        for change in changes:
            self.log.warning('the config has changed: %s', change)
        self.model.load_state_dict(checkpoint['model'])
        if checkpoint.get('scaler'):  # empty but for fp16
            step.scaler.load_state_dict(checkpoint['scaler'])
        optimizer = step.optimizer
        own = [{k: v for k, v in g.items() if k != 'params'} for g in optimizer.param_groups]
        optimizer.load_state_dict(checkpoint['optimizer'])
        for group, settings in zip(optimizer.param_groups, own):
            group.update(settings)  # of the config as it is now
        self.initialised, self.trained = checkpoint['initialised'], checkpoint['trained']
        self.log.info('going on from %s, iteration %d', path.name, done)
        if 'scaler' not in checkpoint and done < stop:
            self.log.info('this run began with an earlier version: from here on its image sizes, '
                          'anchors and regions are drawn otherwise')
        return done

    # ------------------------------------------------------------------ prediction

    @torch.no_grad()
    def predict(self, dataset: str) -> list[dict]:
        """Return COCO results, on rank 0 those of all ranks."""
        data = InstanceDataset(self.data[dataset].folder, self.data[dataset].truth)
        results = []
        with eval_mode(self.model):
            for index in range(distributed.rank(), len(data), self.world):
                with autocast(self.device, self.amp):
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
                    device=str(self.device), processes=self.world, precision=NAMES[self.amp],
                    config=self.config.path, initialised=self.initialised, seed=self.seed,
                    masks=self.config['MODEL.MASK_ON'],
                    detections_per_image=self.config['TEST.DETECTIONS_PER_IMAGE'], **self.trained)
