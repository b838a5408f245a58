"""Training and scoring of a U-Net on tiles with masks."""

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...checkpoints import load, load_backbone_weights, refuse_spoilt, save
from ...datasets.prepare.mask_codes import CodeTable
from ...datasets.prepare.mask_folders import judge, pair_masks, survey
from ...datasets.prepare.report import Report
from ...datasets.scan import listed
from ...errors import UserError
from ...files import write_json
from ..instance.data import batch_indices
from .data import MaskDataset, crop_batch, read_classes
from .metrics import Confusion
from .settings import Settings
from .unet import UNet

PROTOCOL = 'semantic-segmentation-v1'
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def data_sets(settings: Settings) -> tuple[MaskDataset, MaskDataset, Report]:
    """Read what the settings name, down to the last mask.

    Returns:
        The training and the test set, and what was found in them: facts and notes.

    Raises:
        UserError: everything that cannot be trained on or scored, in one report.
    """
    s = settings
    folders = [s.train_images, s.train_masks, s.test_images, s.test_masks]
    classes, ignore = s.classes, s.ignore_index
    if s.data is not None:
        folders = [str(Path(s.data) / split / kind) for split in ('train', 'test')
                   for kind in ('images', 'masks')]
        if classes is None:
            classes, ignore = read_classes(s.data)
    if None in folders or not classes:
        raise UserError('the config names no data', expected='data: FOLDER, or train_images, '
                        'train_masks, test_images, test_masks and classes')
    table, report = CodeTable(classes, ignore, s.codes), Report('tiles with masks')
    pairs = [pair_masks(*folders[:2], report), pair_masks(*folders[2:], report)]
    found = [survey(own, table, name, report) for own, name in zip(pairs, ('train', 'test'))]
    if not report.problems:
        judge(*found, table, report)
    if report.problems:
        raise UserError(listed(f'{len(report.problems)} problems of the images and masks',
                               report.problems))
    return MaskDataset(pairs[0], table), MaskDataset(pairs[1], table), report


def loss_function(logits: Tensor, masks: Tensor, ignore_index: int) -> Tensor:
    """Cross-entropy plus soft Dice over the pixels that count.

    Args:
        logits: [B, C, H, W], float32.
        masks: classes, int64 [B, H, W].
        ignore_index: value of pixels that do not count; a batch without any other gives 0.
    """
    counted = masks != ignore_index
    target = masks.masked_fill(~counted, 0)
    entropy = F.cross_entropy(logits, target, reduction='none')[counted].sum()
    entropy = entropy / counted.sum().clamp(min=1)
    truth = F.one_hot(target, logits.shape[1]).movedim(-1, 1) * counted[:, None]
    found = logits.softmax(1) * counted[:, None]
    both, sizes = (truth * found).sum((0, 2, 3)), (truth + found).sum((0, 2, 3))
    there = truth.sum((0, 2, 3)) > 0
    dice = 1 - 2 * both / sizes.clamp(min=1e-6)
    return entropy + (dice * there).sum() / there.sum().clamp(min=1)


class SemanticTrainer:
    """A U-Net, its training and its scores.

    Args:
        settings: what to run.
        device: where.

    Raises:
        UserError: images or masks that cannot be used.
    """

    def __init__(self, settings: Settings, device: torch.device):
        self.settings, self.device = settings, device
        self.log = logging.getLogger('openselfsup.transfer')
        self.train_set, self.test_set, self.found = data_sets(settings)
        for name, fact in self.found.facts.items():
            self.log.info('%s: %s', name, fact)
        for note in self.found.notes:
            self.log.warning('%s', note)
        torch.manual_seed(settings.seed)
        model = UNet(settings.depth, len(self.train_set.classes), settings.width)
        if settings.backbone:
            self.log.info('%s', load_backbone_weights(model.backbone, settings.backbone))
        else:
            self.log.info('random initialisation: the config names no backbone')
        if settings.freeze:
            model.backbone.requires_grad_(False)
        self.model = model.to(device, memory_format=torch.channels_last)
        self.started_at = 0

    def fit(self, resume: bool = False) -> None:
        """Train; write ``latest.pth`` every tenth of the way, and go on from it to resume."""
        s, out = self.settings, Path(self.settings.out)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, s.lr, weight_decay=s.weight_decay)
        if resume and (out / 'latest.pth').exists():
            checkpoint = load(out / 'latest.pth')
            refuse_spoilt(checkpoint, str(out / 'latest.pth'))
            for change in s.changes(checkpoint.get('settings', {})):
                self.log.warning('the config has changed: %s', change)
            self.model.load_state_dict(checkpoint['model'])
            optimizer.load_state_dict(checkpoint['optimizer'])
            for group in optimizer.param_groups:  # of the config as it is now
                group['weight_decay'] = s.weight_decay
            self.started_at = min(checkpoint['iteration'], s.iterations)
        self.model.train()
        if s.freeze:
            self.model.backbone.eval()  # its statistics belong to its weights
        since, total = time.perf_counter(), 0.0
        every = max(s.iterations // 10, 1)
        with ThreadPoolExecutor(1, 'tiles') as pool:
            waiting = pool.submit(self._batch, self.started_at)
            for iteration in range(self.started_at, s.iterations):
                images, masks = waiting.result()
                waiting = pool.submit(self._batch, iteration + 1)
                for group in optimizer.param_groups:
                    group['lr'] = s.lr * _cosine(iteration, s.iterations)
                with self._autocast():
                    logits = self.model(self._normalised(images))
                loss = loss_function(logits.float(), masks.to(self.device),
                                     self.train_set.ignore_index)
                if not torch.isfinite(loss):
                    raise UserError(f'the loss is not finite at iteration {iteration}',
                                    expected='a smaller lr')
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += float(loss.detach())
                if (iteration + 1) % every == 0 or iteration + 1 == s.iterations:
                    count = (iteration % every) + 1
                    self.log.info('iteration %d  loss %.3f  %.2f s/it', iteration + 1,
                                  total / count, (time.perf_counter() - since) / count)
                    save(dict(model=self.model.state_dict(), optimizer=optimizer.state_dict(),
                              iteration=iteration + 1, settings=asdict(s)), out / 'latest.pth')
                    since, total = time.perf_counter(), 0.0

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
        outcome = dict(protocol=PROTOCOL, run=dict(
            torch=torch.__version__, device=str(self.device), settings=asdict(self.settings),
            initialised=self.settings.backbone or 'random'), tiles=len(self.test_set),
            data=dict(facts=self.found.facts, notes=self.found.notes),
            scores=confusion.scores())
        write_json(Path(self.settings.out) / 'results.json', outcome)
        return outcome

    @torch.no_grad()
    def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the classes, uint8 [H, W], of an image, uint8 [H, W, 3] RGB."""
        self.model.eval()
        height, width = image.shape[:2]
        pad = [(0, -height % 32), (0, -width % 32), (0, 0)]
        pixels = torch.from_numpy(np.pad(image, pad, mode='edge')).permute(2, 0, 1)[None]
        with self._autocast():
            logits = self.model(self._normalised(pixels))
        return logits[0, :, :height, :width].argmax(0).to(torch.uint8).cpu().numpy()

    def _batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        s = self.settings
        indices = batch_indices(len(self.train_set), s.batch_size, iteration, s.seed)
        rng = np.random.default_rng((s.seed, 2, iteration))
        return crop_batch(self.train_set, indices, s.crop, rng)

    def _normalised(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (_MEAN, _STD))
        images = (images.to(self.device).float() - mean) / std
        return images.contiguous(memory_format=torch.channels_last)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.amp)


def _cosine(iteration: int, iterations: int) -> float:
    warmup = max(iterations // 20, 1)
    if iteration < warmup:
        return (iteration + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (iteration - warmup) / max(iterations - warmup, 1)))


def result_lines(outcome: dict) -> str:
    """Return the scores as lines of text, one a class."""
    scores = outcome['scores']
    lines = [f'{"class":<24}{"Dice":>8}{"IoU":>8}{"share":>8}']
    total = sum(c['pixels'] for c in scores['classes'].values()) or 1
    for name, c in scores['classes'].items():
        cells = ''.join(f'{"-":>8}' if c[k] is None else f'{c[k]:8.3f}' for k in ('dice', 'iou'))
        lines.append(f'{name:<24}{cells}{c["pixels"] / total:8.3f}')
    lines.append(f'{"mean":<24}{scores["mean_dice"]:8.3f}{scores["mean_iou"]:8.3f}')
    return '\n'.join([*lines, *outcome['data']['notes']])
