"""One optimiser step: forward and backward in the chosen precision, accumulation, update."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import UserError
from ..models.method import Method, Progress
from ..models.parts import total_loss
from ..values import ClipBy
from .clipping import Clip
from .finite import LateFlag
from .optimizer_step import OptimizerStep, enough_for_batch_norm
from .preprocessor import Preprocessor
from .sharding import is_sharded


class TrainStep:
    """Make one optimiser step out of one or several batches.

    An algorithm whose outputs hold ``skip_step`` (a scalar that is equal on all ranks, 1 to skip)
    leaves the optimiser as it is where that is 1: gradients are dropped and a loss scale backs
    off. Only such an algorithm makes the step wait for the device.

    Args:
        model: the algorithm, possibly wrapped for distributed training.
        preprocessor: brings a batch to the device and normalises it.
        optimizer: over the algorithm's parameters.
        amp: 'off', 'bf16' or 'fp16' (with loss scaling).
        clip_grad: largest L2 norm of the gradient, or None.
        clip_grad_by: what that is the norm of, see :class:`.clipping.Clip`; norms are among what
            a step returns where there is a bound, or anything but 'all' is asked for.
    """

    def __init__(self, model: nn.Module, preprocessor: Preprocessor,
                 optimizer: torch.optim.Optimizer, amp: str = 'bf16',
                 clip_grad: float | None = None, clip_grad_by: ClipBy = 'all'):
        self.model, self.preprocessor = model, preprocessor
        unwrapped: Any = getattr(model, 'module', model)
        self.algorithm: Method = unwrapped
        self.clip = (None if clip_grad is None and clip_grad_by == 'all'
                     else Clip(unwrapped, clip_grad, clip_grad_by))
        self.optimizer_step = OptimizerStep(optimizer, preprocessor.device, amp, self.clip)
        self.scaler = self.optimizer_step.scaler
        self._unchecked = True  # its outputs
        self._unseen = isinstance(model, DistributedDataParallel)  # its first gradients

    def __call__(self, batches: Iterator[dict], count: int, lr: float,
                 progress: Progress = Progress(), decay: float = 1.0, rows: int | None = None
                 ) -> dict[str, Tensor]:
        """Take a step.

        Args:
            batches: yields at least ``count`` batches of the loader.
            count: batches that make up this step.
            lr: learning rate of the step.
            progress: where the run stands.
            decay: factor on the weight decay.
            rows: tiles of all these batches together, where they may differ; a batch counts by its
                share of them.

        Returns:
            The algorithm's losses and monitors, detached scalars averaged over the
            batches, ``loss``, their sum, and norms of gradients where they are bounded.

        Raises:
            UserError: the algorithm returns no dict of scalar tensors, or none of them is a loss.
        """
        outputs: dict[str, Tensor] = {}
        skips: list[LateFlag] = []
        scale = self.optimizer_step.loss_scale()
        self.algorithm.begin_step(progress)
        for i in range(count):
            batch = next(batches)
            views, view_to_tile = self.preprocessor(batch)
            self.algorithm.begin_pass(first=i == 0, loss_scale=scale)
            with self._no_sync(last=i == count - 1):
                out = self.forward(views, view_to_tile, batch)
                if self._unchecked:
                    self._unchecked = False
                    _check_outputs(out, type(self.algorithm).__name__)
                if 'skip_step' in out:  # read while a GPU is at the backward pass
                    skips.append(LateFlag())
                    skips[-1].put(out['skip_step'])
                loss = total_loss(out)
                parts = rows / len(views[0]) if rows else count
                self.optimizer_step.backward(loss, parts)
            if self._unseen and i == count - 1:
                self._refuse_idle()
            out['loss'] = loss
            for key, value in out.items():
                value = value.detach().float() / parts
                outputs[key] = outputs[key] + value if i else value
        if any(any(skip.take() or ()) for skip in skips):  # the same on all ranks
            self.optimizer_step.leave_out()
        else:
            if self.optimizer_step.update(lr, self.algorithm.rate_factors(), decay):
                self.algorithm.end_step()
            outputs |= self.clip.norms if self.clip is not None else {}
        return outputs

    def _refuse_idle(self) -> None:
        """Refuse parameters without a gradient, for which ranks would wait in the next step."""
        self._unseen = False
        module: Any = self.algorithm
        idle = [name for name, parameter in module.named_parameters()
                if parameter.requires_grad and parameter.grad is None]
        if idle:
            raise UserError(f'{len(idle)} parameters take no part in the loss, such as {idle[0]}, '
                            'and several ranks would wait for their gradients', where='model',
                            expected='parts whose trainable parameters are all used, or one '
                                     'process')

    def forward(self, views: list[Tensor], view_to_tile: Tensor | None, batch: dict
                ) -> dict[str, Tensor]:
        """Return the losses and monitors of one batch in the chosen precision."""
        device = self.preprocessor.device
        asked = {key: batch[key].to(device, non_blocking=True)
                 for key in self.algorithm.batch_keys}
        with self.optimizer_step.autocast(), enough_for_batch_norm(views[0], 'global_batch_size'):
            return self.model(views, view_to_tile, **asked)

    def _no_sync(self, last: bool) -> contextlib.AbstractContextManager:
        """Let ranks exchange gradients in the last backward pass of a step only."""
        if is_sharded(self.model):
            self.model.set_requires_gradient_sync(last)  # type: ignore[operator]
            return contextlib.nullcontext()
        if last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()


def _check_outputs(outputs: Any, name: str) -> None:
    """Refuse what a method returns if it is no dict of scalar tensors."""
    if not isinstance(outputs, dict):
        raise UserError(f'what {name} returns is {_described(outputs)}', where='model.type',
                        expected='a dict of scalar tensors, such as dict(loss=...)')
    for key, value in outputs.items():
        if not isinstance(value, Tensor) or value.ndim:
            raise UserError(f"the output '{key}' of {name} is {_described(value)}",
                            where='model.type', expected='a scalar tensor'
                            + (', such as its mean()' if isinstance(value, Tensor) else ''))


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f'a tensor of shape {tuple(value.shape)}'
    return f'of the type {type(value).__name__}'
