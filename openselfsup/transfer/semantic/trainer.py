"""Training and scoring of a U-Net on tiles with masks."""

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...checkpoints import load, load_backbone_weights, refuse_spoilt, save
from ...datasets.prefetch import prefetch
from ...errors import UserError
from ...files import write_json
from ...models.parts import total_loss
from ...training.finite import FiniteCheck, last_good
from ...training.modes import eval_mode
from ...training.normalization import Normalize, Wanted, normalization_of
from ...training.optimizer_step import OptimizerStep, enough_for_batch_norm
from ...training.optimizers import layer_factors, paced_groups
from ...training.precision import NAMES, autocast, resolve
from ...training.progress import Meter, ProgressLine
from ...training.schedules import half_cosine
from ...training.seeding import seed_step
from ..instance.data import batch_indices
from ..instance.job import refuse_shorter
from ..vit_pyramid import vit_of
from .config import SWITCH, SemanticConfig
from .data import crop_batch, open_data_sets
from .losses import segmentation_losses
from .metrics import Confusion
from .unet import UNet

PROTOCOL = 'semantic-segmentation-v1'
LATEST = 'latest.pth'


class SemanticTrainer:
    """A U-Net, its training and its scores.

    Args:
        config: what to run.
        device: where.

    Raises:
        UserError: images or masks that cannot be used, or a precision that the device lacks.
    """

    def __init__(self, config: SemanticConfig, device: torch.device):
        self.config, self.device = config, device
        self.amp = resolve(config.amp, device)
        self.log = logging.getLogger('openselfsup.transfer')
        self.train_set, self.test_set, self.found = open_data_sets(config)
        for name, fact in self.found.facts.items():
            self.log.info('%s: %s', name, fact)
        for note in self.found.notes:
            self.log.warning('%s', note)
        torch.manual_seed(config.seed)
        weights = load(config.backbone) if config.backbone else None
        vit = vit_of(weights, str(config.backbone)) if weights else None
        if vit is None and config.layer_decay != 1:
            raise UserError(f'layer_decay is {config.layer_decay:g}, for the layers of a ViT',
                            where='layer_decay', expected='backbone FILE of a ViT, or 1')
        self.wanted = Wanted()
        model = UNet(config.depth, len(self.train_set.classes), config.width, vit)
        if config.backbone:
            self.log.info('%s', load_backbone_weights(model.backbone, config.backbone))
            self.wanted = normalization_of(config.backbone, weights)
            self.log.info('%s', self.wanted)
        else:
            self.log.info('random initialisation: the config names no backbone')
        if config.freeze:
            model.backbone.requires_grad_(False)
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.normalize = Normalize(self.wanted.mean, self.wanted.std).to(device)
        self.started_at = 0

    def fit(self, resume: bool = False) -> None:
        """Train; write ``latest.pth`` every tenth of the way, and go on from it to resume.

        A run that goes on equals one that was never interrupted: batches, rates and what the
        model draws are functions of the iteration.

        Raises:
            UserError: the checkpoint is of another model or of a longer run, or a loss is not
                finite.
        """
        c, every = self.config, max(self.config.iterations // 10, 1)
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        decay = c.layer_decay if c.layer_decay != 1 and not c.freeze else None
        optimizer = torch.optim.AdamW(paced_groups(
            trained, [dict(params=[p]) for p in trained.values()], layer_factors(trained, decay),
            ()), c.lr, weight_decay=c.weight_decay)
        step = OptimizerStep(optimizer, self.device, self.amp)
        if resume and self._latest.exists():
            self._resume(step)
        rates = learning_rates(c.lr, c.iterations)
        self.model.train()
        if c.freeze:
            self.model.backbone.eval()  # its statistics belong to its weights
        finite, meter = FiniteCheck(self._advice), Meter()
        batches = prefetch(self._batch, range(self.started_at, c.iterations), 1, 2, 'tiles')
        with ProgressLine(self.log, c.iterations, self.started_at) as progress:
            progress.open('iteration', c.iterations, self.started_at)
            for iteration, batch in enumerate(batches, self.started_at):
                losses = self._step(step, batch, iteration, rates[iteration])
                finite.watch(losses, f'iteration {iteration + 1}')
                meter.add(losses)
                progress.advance()
                if (iteration + 1) % every == 0 or iteration + 1 == c.iterations:
                    finite.check()  # before anything is saved
                    found = meter.take()
                    progress.record(f'iteration {iteration + 1}/{c.iterations}', dict(
                        loss=sum(found.values.values()), **found.values, lr=rates[iteration],
                        images_per_s=c.batch_size * found.steps / found.seconds))
                    save(dict(model=self.model.state_dict(), optimizer=optimizer.state_dict(),
                              scaler=step.scaler.state_dict(), iteration=iteration + 1,
                              settings=asdict(c)), self._latest)

    def evaluate(self, each: Callable[[int, np.ndarray, np.ndarray], None] | None = None) -> dict:
        """Score the test set, pixels pooled; write and return ``results.json``.

        Args:
            each: called with index, true and found classes of every tile.
        """
        confusion = Confusion(self.test_set.classes, self.test_set.ignore_index)
        for index in range(len(self.test_set)):
            image, mask = self.test_set.read(index)
            found = self.predict(image)
            confusion.add(mask, found)
            if each is not None:
                each(index, mask, found)
        results = dict(protocol=PROTOCOL, run=dict(
            torch=torch.__version__, device=str(self.device), precision=NAMES[self.amp],
            settings=asdict(self.config), initialised=self.config.backbone or 'random',
            normalize=dict(mean=list(self.wanted.mean), std=list(self.wanted.std))),
            tiles=len(self.test_set), data=dict(facts=self.found.facts, notes=self.found.notes),
            scores=confusion.scores())
        write_json(Path(self.config.out) / 'results.json', results)
        return results

    @torch.no_grad()
    def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the classes, uint8 [H, W], of an image, uint8 [H, W, 3] RGB."""
        height, width = image.shape[:2]
        pad = [(0, -height % 32), (0, -width % 32), (0, 0)]
        pixels = torch.from_numpy(np.pad(image, pad, mode='edge')).permute(2, 0, 1)[None]
        with eval_mode(self.model), autocast(self.device, self.amp):
            logits = self.model(self.normalize(pixels))
        return logits[0, :, :height, :width].argmax(0).to(torch.uint8).cpu().numpy()

    @property
    def _latest(self) -> Path:
        return Path(self.config.out) / LATEST

    def _step(self, step: OptimizerStep, batch: tuple[Tensor, Tensor], iteration: int,
              lr: float) -> dict[str, Tensor]:
        """Take one optimiser step; return its losses."""
        seed_step(self.config.seed, 0, iteration)
        images, masks = batch
        with step.autocast(), enough_for_batch_norm(images, 'batch_size'):
            logits = self.model(self.normalize(images))
        losses = segmentation_losses(logits.float(), masks.to(self.device),
                                     self.train_set.ignore_index)
        step.backward(total_loss(losses))
        step.update(lr)
        return losses

    def _resume(self, step: OptimizerStep) -> None:
        """Load ``latest.pth`` and say what has changed since."""
        checkpoint = load(self._latest)
        refuse_spoilt(checkpoint, str(self._latest))
        before = checkpoint.get('settings', {})
        changes = self.config.changes(before)
        self.started_at = checkpoint['iteration']
        refuse_shorter(self.started_at, self.config.iterations, 'iterations', self._latest)
        if 'amp' in before:
            amp = SWITCH.get(before['amp'], before['amp'])
            if amp == 'auto':
                amp = resolve(amp, self.device)
            if amp != self.amp:
                changes.append(f"amp was '{amp}', is now '{self.amp}'")
        for change in changes:
            self.log.warning('the config has changed: %s', change)
        self.model.load_state_dict(checkpoint['model'])
        step.optimizer.load_state_dict(checkpoint['optimizer'])
        if checkpoint.get('scaler'):  # empty but for fp16
            step.scaler.load_state_dict(checkpoint['scaler'])
        for group in step.optimizer.param_groups:  # of the config as it is now
            group['weight_decay'] = self.config.weight_decay

    def _advice(self) -> str:
        return f'finite losses; {last_good(self._latest)}, try a smaller lr or amp off'

    def _batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        c = self.config
        indices = batch_indices(len(self.train_set), c.batch_size, iteration, c.seed)
        rng = np.random.default_rng((c.seed, 2, iteration))
        return crop_batch(self.train_set, indices, c.crop, rng)


def learning_rates(lr: float, iterations: int) -> np.ndarray:
    """Return the rate of each iteration: a line to ``lr`` over 5 %, then half a cosine to 0."""
    warmup, time = max(iterations // 20, 1), np.arange(iterations)
    falling = half_cosine((time - warmup) / max(iterations - warmup, 1))
    return lr * np.where(time < warmup, (time + 1) / warmup, falling)
