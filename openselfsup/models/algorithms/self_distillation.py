"""What DINO, iBOT and DINOv2 share: a student, the moving average that teaches it, their crops."""

import copy
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ... import distributed
from ...checkpoints import LoadReport, channels_of
from ...errors import UserError
from ...registry import BACKBONES, HEADS
from ...values import Fraction, NotNegative, Positive
from ...views import Draws
from .. import health
from ..losses import dino_loss
from ..masking import MaskedPatches
from ..method import BaseMethod, Progress
from ..parts import built, check_maps
from ..targets import TARGETS, Centre, Targets, sinkhorn_knopp
from ..token_pairs import Seen, TokenPairs, pair_globals, pair_locals, tokens_of

GLOBAL = 2  # crops that the teacher sees, the first of a recipe


class Crops(NamedTuple):
    """What student and teacher see of a batch of B tiles.

    Attributes:
        teacher: of both global crops, 2B images: all first ones, then all second ones.
        student: of the same crops, then of local crops; an entry for each run of crops of one
            size, crop by crop.
        numbers: which view each entry of ``student`` begins with.
        images: the global crops, (2B, 3, S, S).
        rows: B.
        mask: patches that the student did not see of the global crops, bool (2B, N), or None.
    """

    teacher: Seen
    student: list[Seen]
    numbers: list[int]
    images: Tensor
    rows: int
    mask: Tensor | None


class SelfDistillation(BaseMethod):
    """A student learns the teacher's distributions over prototypes; the teacher follows it.

    Args:
        backbone: config of a backbone, or a module.
        head: config of a :class:`DINOHead`, or a module.
        patch_head: config of a head of patches alone, or None for the same head.
        student_temperature: τ_s.
        teacher_temperature: τ at last.
        warmup_temperature: τ at first.
        temperature_epochs: epochs of the line from the one to the other.
        teacher_momentum: m of the teacher at first; it rises as half a cosine.
        final_momentum: m at the end.
        targets: 'centering' (DINO) or 'sinkhorn' (SwAV, DINOv2).
        centre_momentum: of the centre.
        freeze_last_layer: epochs in which prototypes do not learn.
        heads_only_epochs: epochs in which the backbone does not learn and the teacher's heads are
            the student's: for released weights, which come without heads.
        backbone_warmup_epochs: epochs after these in which the backbone's learning rate rises
            from 0 to the schedule's.
        matched: config of :class:`MatchedPatches`: cells matched by their exact place.
        alignment: config of :class:`KernelAlignment`.
        gram: config of :class:`GramAnchoring`.

    Attributes:
        student: what learns.
        teacher: its moving average, and what a checkpoint gives as backbone. Nothing is dropped
            in it; batch norms take their statistics from its own batches.
        features: class tokens of the student's first crop, (B, D), detached.

    Raises:
        UserError: a setting is impossible.
    """

    takes_views = GLOBAL, None
    can_shard = True
    trains_class_token = True
    seed: Tensor
    seed_number: int
    gram: Any

    def __init__(self, backbone: dict | nn.Module, head: dict | nn.Module,
                 patch_head: dict | nn.Module | None = None,
                 student_temperature: Positive = 0.1, teacher_temperature: Positive = 0.04,
                 warmup_temperature: Positive = 0.04, temperature_epochs: NotNegative = 0.,
                 teacher_momentum: Fraction = 0.996, final_momentum: Fraction = 1.0,
                 targets: Targets = 'centering', centre_momentum: Fraction = 0.9,
                 freeze_last_layer: NotNegative = 1., heads_only_epochs: NotNegative = 0.,
                 backbone_warmup_epochs: NotNegative = 0., matched: dict | nn.Module | None = None,
                 alignment: dict | nn.Module | None = None, gram: dict | nn.Module | None = None):
        super().__init__()
        if targets not in TARGETS:
            raise UserError(f"targets is '{targets}'", where='model.targets',
                            expected='one of ' + ', '.join(TARGETS))
        backbone = built(backbone, BACKBONES)
        width = channels_of(backbone)[-1]
        parts: dict[str, Any] = dict(backbone=backbone, head=_head(head, width))
        if patch_head is not None:
            parts['patch_head'] = _head(patch_head, width)
        self.student = nn.ModuleDict(parts)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.student_temperature, self.targets = student_temperature, targets
        self.teacher_temperature, self.warmup_temperature = teacher_temperature, warmup_temperature
        self.temperature_epochs = temperature_epochs
        self.teacher_momentum, self.final_momentum = teacher_momentum, final_momentum
        self.freeze_last_layer, self.heads_only_epochs = freeze_last_layer, heads_only_epochs
        self.backbone_warmup_epochs = backbone_warmup_epochs
        self.centre = Centre(parts['head'].prototypes, centre_momentum)
        self.patch_centre = Centre(parts.get('patch_head', parts['head']).prototypes,
                                   centre_momentum)
        self.matched, self.alignment = built(matched, HEADS), built(alignment, HEADS)
        self.gram = HEADS.build(gram, backbone=backbone) if isinstance(gram, dict) else gram
        self.needs_geometry = self.matched is not None or self.alignment is not None
        # What is drawn in a step depends on this, on the step and on the place in the batch.
        self.register_buffer('seed', torch.randint(2 ** 31, ()))
        self.drawn = 0  # passes of this step
        _read_seed(self)
        self.register_load_state_dict_post_hook(_read_seed)
        self.train()

    # ---- what training asks ----

    @property
    def backbone(self) -> nn.Module:
        """The teacher's backbone: what pretraining is for."""
        return self.teacher['backbone']

    def load_backbone(self, path: str, allow_partial: bool = False) -> LoadReport:
        """Start student and teacher from the backbone weights in a file."""
        report = super().load_backbone(path, allow_partial)
        self.student['backbone'].load_state_dict(self.backbone.state_dict())
        if self.gram is not None:
            self.gram.take(self.backbone)
        return report

    def train(self, mode: bool = True) -> 'SelfDistillation':
        """Set the mode of all but the teacher, of which batch norms alone are ever trained."""
        super().train(mode)
        for module in self.teacher.modules():  # a backbone keeps those of frozen stages as they are
            module.training = module.training and isinstance(module, _BatchNorm)
        return self

    def begin_pass(self, first: bool = True, loss_scale: Tensor | float = 1.0) -> None:
        """Count the passes of a step: each draws anew."""
        super().begin_pass(first, loss_scale)
        self.drawn = 0 if first else self.drawn + 1

    @property
    def epochs_done(self) -> float:
        """Epochs behind the run, with the fraction of the one that it is in."""
        return self.progress.step / self.progress.steps_per_epoch

    def rate_factors(self) -> dict[str, float]:
        """Keep the backbone still at first, then warm it up; keep prototypes still."""
        factors = {}
        if self.heads_only_epochs or self.backbone_warmup_epochs:
            since = self.epochs_done - self.heads_only_epochs
            rising = since / self.backbone_warmup_epochs if self.backbone_warmup_epochs else 1.
            factors['student.backbone.'] = 0. if since < 0 else min(rising, 1.)
        if self.freeze_last_layer:
            moves = float(self.epochs_done >= self.freeze_last_layer)
            factors |= {f'student.{name}.last_layer.': moves for name in self.student
                        if name != 'backbone'}
        return factors

    @property
    def momentum(self) -> float:
        """m of this step: half a cosine from ``teacher_momentum`` to ``final_momentum``."""
        rising = (1 + math.cos(math.pi * self.progress.step / self.progress.steps)) / 2
        return self.final_momentum + (self.teacher_momentum - self.final_momentum) * rising

    @property
    def temperature(self) -> float:
        """τ of this step: a line, then constant."""
        steps = round(self.temperature_epochs * self.progress.steps_per_epoch)
        share = self.progress.step / max(steps - 1, 1) if self.progress.step < steps else 1.
        return (self.warmup_temperature
                + (self.teacher_temperature - self.warmup_temperature) * share)

    def begin_step(self, progress: Progress) -> None:
        """Renew the earlier teacher of :class:`GramAnchoring` where it is due."""
        super().begin_step(progress)
        if self.gram is not None:
            self.gram.follow(self.backbone, progress)

    @torch.no_grad()
    def end_step(self) -> None:
        """θ_t ← m θ_t + (1 - m) θ_s, with m = 0 for heads that learn alone."""
        for name, part in self.student.items():
            alone = name != 'backbone' and self.epochs_done < self.heads_only_epochs
            torch._foreach_lerp_([*self.teacher[name].parameters()], [*part.parameters()],
                                 1. if alone else 1 - self.momentum)

    # ---- what a step is made of ----

    def look(self, views: list[Tensor], masks: MaskedPatches | None = None) -> Crops:
        """Let the teacher see both global crops, and the student all, masked where asked.

        Args:
            views: V tensors (B, 3, S, S); the first two are global crops of one size.
            masks: patches that the student is not to see of these.
        """
        images = torch.cat(views[:GLOBAL])
        mask = None if masks is None else torch.from_numpy(masks.mask).to(images.device,
                                                                          non_blocking=True)
        with torch.no_grad():  # first, while nothing is kept for backward
            teacher = tokens_of(self.teacher['backbone'], images)
        student = [tokens_of(self.student['backbone'], images, mask)]
        numbers, number = [0], GLOBAL
        while number < len(views):
            run = number + 1
            while run < len(views) and views[run].shape == views[number].shape:
                run += 1
            student.append(tokens_of(self.student['backbone'], torch.cat(views[number:run])))
            numbers.append(number)
            number = run
        return Crops(teacher, student, numbers, images, len(views[0]), mask)

    def check_crops(self, views: list[Tensor], view_to_tile: Tensor | None) -> None:
        """Raise a UserError if the views are not two global crops and smaller ones."""
        sizes = [tuple(view.shape[-2:]) for view in views]
        height, width = sizes[0]
        if len(sizes) < GLOBAL or sizes[0] != sizes[1] or any(
                h > height or w > width for h, w in sizes[GLOBAL:]):
            raise UserError('the views have ' + ', '.join(f'{h} x {w}' for h, w in sizes)
                            + ' pixels', where='dataset.recipe',
                            expected='two global crops of one size first, and none larger after')
        if self.needs_geometry:
            check_maps(view_to_tile, self)

    def draw_key(self, purpose: int) -> tuple[int, int, int, int]:
        """Return what names a draw of this pass."""
        return self.seed_number, self.progress.step, self.drawn, purpose

    @property
    def patch_head_name(self) -> str:
        """The head of patches: 'patch_head' where there is one, or that of class tokens."""
        return 'patch_head' if 'patch_head' in self.student else 'head'

    def soft_targets(self, logits: Tensor, centre: Centre, valid: Tensor | None = None,
                     move: bool = True) -> Tensor:
        """Return the teacher's probabilities; the centre moves after its use.

        Args:
            logits: the teacher's of this rank, (n, K).
            centre: of such logits.
            valid: 1 for rows that count, 0 for others, (n,); all if None.
            move: whether the centre follows these rows.
        """
        if self.targets == 'sinkhorn':
            return sinkhorn_knopp(logits, self.temperature, valid=valid)
        probabilities = centre(logits, self.temperature)
        if move and self.training and self.first_pass:
            centre.update(logits, valid)
        return probabilities

    def crop_targets(self, crops: Crops) -> Tensor:
        """Return the teacher's probabilities of the global crops, (2B, K)."""
        with torch.no_grad():
            return self.soft_targets(self.teacher['head'](crops.teacher.cls), self.centre)

    def crop_loss(self, crops: Crops, targets: Tensor) -> Tensor:
        """Return the loss of whole crops (DINO, eq. 3), the mean over pairs of different crops.

        Args:
            crops: what student and teacher see.
            targets: the teacher's probabilities, (2B, K).
        """
        logits = torch.cat([self.student['head'](seen.cls) for seen in crops.student])
        return dino_loss(targets.unflatten(0, (GLOBAL, crops.rows)),
                         logits.unflatten(0, (-1, crops.rows)), self.student_temperature)

    def finished(self, outputs: dict[str, Tensor], crops: Crops, targets: Tensor,
                 view_to_tile: Tensor | None) -> dict[str, Tensor]:
        """Return the outputs with the losses of the options, and with monitors.

        Args:
            outputs: the method's own losses.
            crops: of this batch.
            targets: the teacher's probabilities of the global crops, (2B, K).
            view_to_tile: maps (B, V, 2, 3).
        """
        self._add_terms(outputs, crops, view_to_tile)
        self._add_monitors(outputs, crops, targets)
        return outputs

    def _add_terms(self, outputs: dict[str, Tensor], crops: Crops, view_to_tile: Tensor | None
                   ) -> None:
        if self.needs_geometry:
            assert view_to_tile is not None, 'checked'
            pairs = self.pairs(crops, view_to_tile)
            if self.matched is not None:
                name = self.patch_head_name
                rank_rows = distributed.rank() * crops.rows + np.arange(crops.rows)
                outputs.update(self.matched(
                    pairs, (self.student[name], self.teacher[name]),
                    lambda logits, valid: self.soft_targets(
                        logits, self.patch_centre, valid, move=crops.mask is None),
                    Draws.at(*self.draw_key(1), positions=rank_rows), self.student_temperature))
            if self.alignment is not None:
                outputs.update(self.alignment(pairs))
        if self.gram is not None:
            outputs.update(self.gram(crops.images, crops.student[0].patches, self.progress))

    def pairs(self, crops: Crops, view_to_tile: Tensor) -> list[TokenPairs]:
        """Return which cells of the student's crops see what the teacher's see."""
        found = [pair_globals(crops.student[0], crops.teacher, view_to_tile, self.geometry,
                              crops.mask)]
        return found + [pair_locals(seen, crops.teacher, view_to_tile, number, self.geometry)
                        for seen, number in zip(crops.student[1:], crops.numbers[1:])]

    @torch.no_grad()
    def _add_monitors(self, outputs: dict[str, Tensor], crops: Crops, targets: Tensor) -> None:
        self.features = crops.student[0].cls[:crops.rows].detach()
        entropy, spread = health.target_entropies(targets)
        outputs.update(
            feature_std=health.feature_std(self.features),
            teacher_entropy=entropy, kl_to_uniform=spread,
            cls_cosine=health.mean_cosine(crops.teacher.cls[:crops.rows]),
            teacher_temperature=entropy.new_full((), self.temperature),
            target_momentum=entropy.new_full((), self.momentum))


def _head(head: dict | nn.Module, width: int) -> Any:
    """Return a head, built for features of this width; one that is built must fit.

    Raises:
        UserError: it takes features of another width.
    """
    made: Any = HEADS.build(dict(head, in_channels=width)) if isinstance(head, dict) else head
    if getattr(made, 'in_channels', width) != width:
        raise UserError(f'the head takes {made.in_channels} channels, the backbone gives {width}',
                        where='model.head.in_channels', expected=str(width))
    return made


def _read_seed(method: SelfDistillation, _: object = None) -> None:
    """Keep the seed where the host reads it without waiting."""
    method.seed_number = int(method.seed)
