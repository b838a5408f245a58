"""From a loss to changed weights: what all training loops do alike."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .precision import autocast

Clip = Callable[[list[nn.Parameter]], object]


class OptimizerStep:
    """Precision, loss scaling, clipping and update of one optimiser.

    ::

        with step.autocast():
            loss = ...
        step.backward(loss)
        step.update(lr)

    Args:
        optimizer: over the parameters to train.
        device: where they are.
        amp: 'off', 'bf16' or 'fp16' (with loss scaling), see :func:`.precision.resolve`.
        clip: bounds the gradients of a list of parameters in place, or None.

    Attributes:
        scaler: of the loss; its state belongs into checkpoints. It does nothing but for fp16.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device, amp: str = 'off',
                 clip: Clip | None = None):
        self.optimizer, self.device, self.amp, self.clip = optimizer, device, amp, clip
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == 'fp16')
        self.decays = [group.get('weight_decay') for group in optimizer.param_groups]
        self._moved = False
        optimizer.register_step_post_hook(self._note_move)

    def autocast(self) -> torch.autocast:
        """Return the context of forward passes; losses are computed in float32."""
        return autocast(self.device, self.amp)

    def loss_scale(self) -> Tensor | float:
        """Return what losses are multiplied by before they are propagated."""
        if not self.scaler.is_enabled():
            return 1.0
        return self.scaler.scale(torch.ones((), device=self.device))

    def backward(self, loss: Tensor, parts: float = 1) -> None:
        """Add the gradients of a loss that is of one of so many equal parts of this step."""
        self.scaler.scale(loss / parts if parts > 1 else loss).backward()

    def update(self, lr: float, factors: Mapping[str, float] = {}, decay: float = 1.0) -> bool:
        """Move the weights at a rate, or a group's multiple of it, and forget the gradients.

        Whether gradients overflowed, the scaler fetches from the device, once a step of fp16, and
        does not tell: that it called the optimiser does, so nothing more is waited for.

        Args:
            lr: learning rate of the step.
            factors: on the rates of groups, by what they are ``paced`` by; 0 leaves a group as
                it is, momenta and all.
            decay: factor on the weight decay that the groups began with.

        Returns:
            Whether the optimiser moved: not where the gradients of fp16 overflowed.
        """
        for group, weight_decay in zip(self.optimizer.param_groups, self.decays):
            factor = factors.get(group.get('paced', ''), 1.0)
            # float: a numpy number would end up in checkpoints
            group['lr'] = float(lr) * group.get('lr_mult', 1.0) * factor
            if decay != 1.0 and weight_decay is not None:
                group['weight_decay'] = weight_decay * float(decay)
            if factor == 0:
                for parameter in group['params']:
                    parameter.grad = None
        if self.clip is not None:
            self.scaler.unscale_(self.optimizer)
            self.clip([p for g in self.optimizer.param_groups for p in g['params']])
        self._moved = False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return self._moved

    def _note_move(self, optimizer: Any, *_: object) -> None:
        overflow = getattr(optimizer, 'found_inf', None)  # fused ones are given it unread
        self._moved = overflow is None or not overflow.item()

    def leave_out(self) -> None:
        """Forget the gradients without an update, and lower the loss scale."""
        if self.scaler.is_enabled():
            self.scaler.update(self.scaler.get_scale() * self.scaler.get_backoff_factor())
        self.optimizer.zero_grad(set_to_none=True)


@contextlib.contextmanager
def enough_for_batch_norm(images: Tensor, where: str) -> Iterator[None]:
    """Make a batch that leaves batch norm nothing to normalise over a mistake of the user.

    Args:
        images: what the forward pass within sees, [B, C, H, W].
        where: the setting of B, as an error names it.

    Raises:
        UserError: there is one tile a forward pass, and its last map is one pixel, or a vector.
    """
    try:
        yield
    except ValueError as error:
        if not str(error).startswith('Expected more than 1 value per channel'):
            raise
        vectors = re.search(r'\[1, \d+\]', str(error))  # the size of what was to be normalised
        raise UserError(
            f'{len(images)} tile(s) of {images.shape[-1]} px at a time leave batch norm one value '
            'per channel, whose variance is 0', where=where,
            expected='at least 2 tiles per rank and forward pass'
            + ('' if vectors else ', or larger views')) from None
