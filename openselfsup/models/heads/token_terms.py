"""Further terms of self-distillation, from patch tokens: each is an option of any such method."""

import copy
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ... import distributed
from ...errors import UserError
from ...registry import HEADS
from ...values import Count, Fraction, NotNegative, Positive, Whole
from ...views import Draws
from ..losses import gram_anchoring, kernel_alignment, soft_cross_entropy
from ..method import Progress
from ..parts import weighted_mean
from ..token_pairs import TokenPairs, mixed_rows, tokens_of

Cells = Literal['visible', 'masked']
Mix = Literal['features', 'distributions']


@HEADS.register_module()
class MatchedPatches(nn.Module):
    """Cells of one crop predict what the teacher made of the same place in another crop.

    PLM's exact correspondence (arXiv 2212.12105) for the patch loss of iBOT. The teacher's tokens
    z_j of a global crop are mixed to Σ_j M_ij z_j for cell i of another crop, by the share of the
    cell that each covers, before the head; rows are drawn in proportion to their coverage, so
    that the mean over rows is that by coverage.

    Args:
        weight: λ of the loss.
        rows: cells drawn from each pair of global crops.
        local_rows: cells drawn from each pair of a local and a global crop, 0 for none.
        min_coverage: cells covered by less are not drawn.
        cells: 'visible' cells of the student, or 'masked' ones.
        mix: 'features' before the head, or 'distributions' behind it, which needs the teacher's
            head on all cells.

    Raises:
        UserError: a setting is none of these.
    """

    def __init__(self, weight: NotNegative = 0.5, rows: Count = 32, local_rows: Whole = 8,
                 min_coverage: Fraction = 0.5, cells: Cells = 'visible', mix: Mix = 'features'):
        super().__init__()
        for name, value, choices in (('cells', cells, Cells), ('mix', mix, Mix)):
            if value not in get_args(choices):
                raise UserError(f"{name} is '{value}'", where=f'model.matched.{name}',
                                expected='one of ' + ', '.join(get_args(choices)))
        self.weight, self.rows, self.local_rows = weight, rows, local_rows
        self.min_coverage, self.cells, self.mix = min_coverage, cells, mix

    def draw(self, pairs: TokenPairs, count: int, draws: Draws) -> tuple[Tensor, Tensor]:
        """Draw cells in proportion to their coverage, none twice.

        Args:
            pairs: crops of B tiles.
            count: cells of each pair of crops, all if there are fewer.
            draws: of the B tiles.

        Returns:
            Their numbers, int64 (G, B, L, n), and whether they count, bool of that shape: a pair
            may have fewer cells that do.
        """
        weight, tiles = pairs.weight, len(draws)
        allowed = (weight > 0) & (weight >= self.min_coverage)
        if pairs.visible is not None:
            allowed &= pairs.visible if self.cells == 'visible' else ~pairs.visible
        shape = weight.shape[0], *weight.shape[2:]
        uniform = draws.rand(*shape).view(tiles, *shape).transpose(0, 1)
        uniform = uniform.to(weight.device, non_blocking=True).clamp(1e-6, 1 - 1e-6)
        # The largest of log w + Gumbel noise are a draw by w (Efraimidis & Spirakis 2006).
        scores = weight.float().log() - (-uniform.log()).log()
        rows = scores.masked_fill(~allowed, -torch.inf).topk(
            min(count, weight.shape[-1]), -1).indices
        return rows, allowed.gather(-1, rows)

    def forward(self, pairs: Sequence[TokenPairs], heads: tuple[nn.Module, nn.Module],
                targets: Callable[[Tensor, Tensor], Tensor], draws: Draws, temperature: float
                ) -> dict[str, Tensor]:
        """Return ``loss_matched``, and ``matched_rows``, the share of drawn cells that count.

        Args:
            pairs: those of global crops, then those of local crops where there are any.
            heads: the student's and the teacher's, from tokens to logits.
            targets: maps the teacher's logits (n, K) and 1 or 0 for each row to probabilities.
            draws: of this rank's tiles.
            temperature: τ_s of the student.
        """
        if self.cells == 'masked' and pairs[0].visible is None:
            raise UserError('no cell is masked', where='model.matched.cells',
                            expected="'visible', or a method with masks (iBOT, DINOv2)")
        kept = [pairs[0], *(pairs[1:] if self.local_rows and self.cells == 'visible' else ())]
        drawn = [self.draw(pair, self.rows if i == 0 else self.local_rows, draws)
                 for i, pair in enumerate(kept)]
        valid = torch.cat([found.flatten() for _, found in drawn])
        with torch.no_grad():
            probabilities = self._targets(kept, [rows for rows, _ in drawn], valid, heads[1],
                                          targets)
        own = [pair.student.gather(3, rows[..., None].expand(*rows.shape, pair.student.shape[-1]))
               for pair, (rows, _) in zip(kept, drawn)]
        logits = heads[0](torch.cat([tokens.flatten(0, 3) for tokens in own]))
        with torch.autocast(logits.device.type, enabled=False):
            entropies = soft_cross_entropy(probabilities, logits, temperature)
            losses, counted = [], []
            parts = entropies.split([rows.numel() for rows, _ in drawn])
            for part, (rows, found) in zip(parts, drawn):
                found = found.to(part.dtype)
                count = found.sum(-1)
                losses.append(((part.view(rows.shape) * found).sum(-1)
                               / count.clamp_min(1)).flatten())
                counted.append((count > 0).to(part.dtype).flatten())
            loss = weighted_mean(torch.cat(losses), torch.cat(counted))
        return {'loss_matched': self.weight * loss, 'matched_rows': valid.float().mean()}

    def _targets(self, pairs: Sequence[TokenPairs], rows: Sequence[Tensor], valid: Tensor,
                 head: nn.Module, targets: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return the probabilities (n, K) of all drawn rows."""
        if self.mix == 'features':
            mixed = [mixed_rows(pair, chosen).flatten(0, 3) for pair, chosen in zip(pairs, rows)]
            return targets(head(torch.cat(mixed)), valid)
        tokens = pairs[0].teacher  # the same for all pairs, G B M D
        found = head(tokens.flatten(0, 2))
        found = targets(found, found.new_ones(len(found))).unflatten(0, tokens.shape[:3])
        return torch.cat([mixed_rows(pair._replace(teacher=found), chosen).flatten(0, 3)
                          for pair, chosen in zip(pairs, rows)])


@HEADS.register_module()
class KernelAlignment(nn.Module):
    """What cells of a crop are like one another is to be what the teacher finds (PaKA).

    arXiv 2509.05606, in an exact form: the teacher's tokens are mixed for each cell by the share
    that they cover, and a cell counts by its coverage. No further crops are needed.

    Args:
        weight: factor on the loss.
    """

    def __init__(self, weight: NotNegative = 1.0):
        super().__init__()
        self.weight = weight

    def forward(self, pairs: Sequence[TokenPairs]) -> dict[str, Tensor]:
        """Return ``loss_alignment``, the mean over pairs of crops with two cells in common."""
        losses, valid = [], []
        for pair in pairs:
            weight = pair.weight if pair.visible is None else pair.weight * pair.visible
            found = kernel_alignment(pair.student.flatten(0, 2),
                                     pair.seen_by_teacher().flatten(0, 2), weight.flatten(0, 2))
            losses.append(found.losses)
            valid.append(found.valid)
        return {'loss_alignment': self.weight * weighted_mean(torch.cat(losses), torch.cat(valid))}


@HEADS.register_module()
class GramAnchoring(nn.Module):
    """Similarities of patches stay those of an earlier teacher (DINOv3, arXiv 2508.10104).

    That teacher is the backbone as it starts, or the moving average at ``start``; for weights
    that are released, their own patch features are what is to be kept.

    Args:
        backbone: whose copy is the first such teacher; the method fills it in.
        weight: factor on the loss, 2 in DINOv3.
        start: epochs before the loss begins.
        refresh: epochs after which the moving average takes its place, again and again; None for
            never.
    """

    filled_in = ('backbone',)  # by the method, not by a config

    def __init__(self, backbone: nn.Module, weight: NotNegative = 2.0, start: NotNegative = 0.,
                 refresh: Positive | None = None):
        super().__init__()
        self.teacher = copy.deepcopy(backbone).requires_grad_(False)
        self.weight, self.start, self.refresh = weight, start, refresh

    def train(self, mode: bool = True) -> 'GramAnchoring':
        """Leave the teacher in the mode of evaluation."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, images: Tensor, patches: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return ``loss_gram``, 0 before it begins.

        Args:
            images: the global crops, (2B, 3, S, S).
            patches: the student's tokens of them, (2B, N, D).
            progress: where the run stands.
        """
        if progress.step < self._steps(self.start, progress):
            return {'loss_gram': 0 * patches.float().sum()}
        with torch.no_grad():
            kept = tokens_of(self.teacher, images).patches
        return {'loss_gram': self.weight * gram_anchoring(patches, kept)}

    def follow(self, backbone: nn.Module, progress: Progress) -> None:
        """Take the moving average where the loss begins, and where it is due anew.

        To be asked before each step: one that is left out after it changes nothing of that.
        """
        since = progress.step - self._steps(self.start, progress)
        again = self.refresh is not None and since > 0 and (
            since % max(self._steps(self.refresh, progress), 1) == 0)
        if again or since == 0 < progress.step:
            self.take(backbone)

    def take(self, backbone: nn.Module) -> None:
        """Take another backbone's weights, and rank 0's running statistics of it.

        Ranks have seen other tiles; those of rank 0 are what a checkpoint holds.
        """
        self.teacher.load_state_dict(backbone.state_dict())
        distributed.share_running_statistics(self.teacher)

    @staticmethod
    def _steps(epochs: float, progress: Progress) -> int:
        return round(epochs * progress.steps_per_epoch)
