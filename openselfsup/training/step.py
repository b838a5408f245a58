"""One optimiser step: forward and backward in the chosen precision, accumulation, update."""

import contextlib
import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import UserError
from ..models.parts import total_loss
from .precision import DTYPES
from .preprocessor import Preprocessor


class TrainStep:
    """Make one optimiser step out of one or several batches.

    mmengine's AmpOptimWrapper refuses bf16 on a CPU, where it is worth a factor of two;
    this is the same few lines without that limit.

    An algorithm whose outputs hold ``skip_step`` (a scalar that is equal on all ranks, 1 to skip)
    leaves the optimiser as it is where that is 1: gradients are dropped and a loss scale backs
    off. Only such an algorithm makes the step wait for the device.

    Args:
        model: the algorithm, possibly wrapped for distributed training.
        preprocessor: brings a batch to the device and normalises it.
        optimizer: over the algorithm's parameters.
        amp: 'off', 'bf16' or 'fp16' (with loss scaling).
        clip_grad: largest L2 norm of the gradient, or None.
    """

    def __init__(self, model: nn.Module, preprocessor: Preprocessor,
                 optimizer: torch.optim.Optimizer, amp: str = 'bf16',
                 clip_grad: float | None = None):
        self.model, self.preprocessor, self.optimizer = model, preprocessor, optimizer
        self.device = preprocessor.scale.device
        self.dtype, self.clip_grad = DTYPES[amp], clip_grad
        self.algorithm = getattr(model, 'module', model)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=amp == 'fp16')

    def __call__(self, batches: Iterable[dict], count: int, lr: float) -> dict[str, Tensor]:
        """Take a step.

        Args:
            batches: yields at least ``count`` batches of the loader.
            count: batches that make up this step.
            lr: learning rate of the step.

        Returns:
            The algorithm's losses and monitors, detached scalars averaged over the
            batches, and ``loss``, their sum.
        """
        outputs: dict[str, Tensor] = {}
        skips: list[LateFlag] = []
        scale: Tensor | float = 1.0
        if self.scaler.is_enabled():
            scale = self.scaler.scale(torch.ones((), device=self.device))
        for i in range(count):
            views, view_to_tile = self.preprocessor(next(batches))
            self.algorithm.begin_pass(first=i == 0, loss_scale=scale)
            with self._no_sync(last=i == count - 1):
                out = self.forward(views, view_to_tile)
                if 'skip_step' in out:  # read while a GPU is at the backward pass
                    skips.append(LateFlag())
                    skips[-1].put(out['skip_step'])
                loss = total_loss(out)
                self.scaler.scale(loss / count if count > 1 else loss).backward()
            out['loss'] = loss
            for key, value in out.items():
                value = value.detach().float() / count
                outputs[key] = outputs[key] + value if i else value
        if any(skip.take() > 0 for skip in skips):  # the same on all ranks
            self._leave_out()
        else:
            self._update(lr)
        return outputs

    def forward(self, views: list[Tensor], view_to_tile: Tensor | None) -> dict[str, Tensor]:
        """Return the losses and monitors of one batch in the chosen precision."""
        try:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                return self.model(views, view_to_tile)
        except ValueError as error:
            if not str(error).startswith('Expected more than 1 value per channel'):
                raise
            raise UserError(
                f'{len(views[0])} tile(s) of {views[0].shape[-1]} px at a time leave batch norm '
                'one value per channel, whose variance is 0', where='global_batch_size',
                expected='at least 2 tiles per rank and forward pass, or larger views') from None

    def _no_sync(self, last: bool) -> contextlib.AbstractContextManager:
        """Let ranks exchange gradients in the last backward pass of a step only."""
        wrapped = isinstance(self.model, DistributedDataParallel)
        return contextlib.nullcontext() if last or not wrapped else self.model.no_sync()

    def _leave_out(self) -> None:
        """Drop the gradients of a step that an algorithm asked to skip; lower the loss scale."""
        if self.scaler.is_enabled():
            self.scaler.update(self.scaler.get_scale() * self.scaler.get_backoff_factor())
        self.optimizer.zero_grad(set_to_none=True)

    def _update(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group['lr'] = float(lr)  # a numpy number would end up in checkpoints
        if self.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for g in self.optimizer.param_groups for p in g['params']]
            nn.utils.clip_grad_norm_(parameters, self.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)


class LateFlag:
    """A few numbers, read some work after they are known so that a GPU never waits for the host.

    Attributes:
        waited: seconds that the host waited for a GPU. Where it hardly waits, it is the host
            that limits the run.
    """

    def __init__(self):
        self.waited = 0.0
        self._host: Tensor | None = None
        self._event: torch.cuda.Event | None = None

    def put(self, flags: Tensor) -> None:
        """Start copying ``flags`` (any small tensor) to the host."""
        self._host = flags.to('cpu', non_blocking=True)
        if flags.is_cuda:
            self._event = torch.cuda.Event()
            self._event.record()

    def take(self) -> list | float | None:
        """Return the numbers put last, once, as a list or a scalar; None if there are none."""
        if self._host is None:
            return None
        if self._event is not None:
            start = time.perf_counter()
            self._event.synchronize()
            self.waited += time.perf_counter() - start
        host, self._host = self._host, None
        return host.tolist()
