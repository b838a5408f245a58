"""Whether the losses of a step were finite, learnt without making a GPU wait for the host."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import distributed
from ..errors import UserError
from .sharding import local


class NotFinite(UserError):
    """A loss or a weight was NaN or infinite."""


def last_good(checkpoint: Path | None) -> str:
    """Return in words from where a run can go on; None, or no such file, if nothing was saved."""
    if checkpoint is None or not checkpoint.exists():
        return 'nothing was saved yet'
    return f'the last good checkpoint is {checkpoint}'


def refuse_spoilt_weights(module: nn.Module, where: str, advice: Callable[[], str]) -> None:
    """Refuse weights that are not finite, on all ranks alike; a GPU is waited for.

    A gradient may be NaN where the loss that it is of was finite: the next loss would tell.

    Args:
        module: whose parameters are looked at.
        where: the step behind them, as an error names it.
        advice: as of :class:`FiniteCheck`.

    Raises:
        NotFinite: a parameter holds NaN or infinity.
    """
    spoilt = torch.stack([~torch.isfinite(local(parameter.detach())).all()
                          for parameter in module.parameters()])
    if distributed.all_reduce_max(spoilt.any().float()).item():
        names = [name for (name, _), bad in zip(module.named_parameters(), spoilt.tolist()) if bad]
        raise NotFinite('a gradient was not finite: the weights hold NaN or infinity'
                        + (f', such as {names[0]}' if names else ''), where=where,
                        expected=advice())


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

    def take(self) -> list[float] | None:
        """Return the numbers put last, once; None if there are none."""
        if self._host is None:
            return None
        if self._event is not None:
            start = time.perf_counter()
            self._event.synchronize()
            self.waited += time.perf_counter() - start
        host, self._host = self._host, None
        return host.flatten().tolist()


class FiniteCheck:
    """Learns one step late whether all loss terms were finite, and who wants to stop.

    Ranks share what they learn in one collective a step, so that all of them leave together.
    Call :meth:`check` before anything that must not hold spoilt weights is written.

    Args:
        advice: returns what an error tells the user to expect; called when there is one.

    Attributes:
        flag: what is read late; ``flag.waited`` tells how long the host waited for a GPU.
        stopped: whether a rank asked to stop.
    """

    def __init__(self, advice: Callable[[], str]):
        self.advice, self.flag, self.stopped = advice, LateFlag(), False
        self._terms: dict[str, Tensor] = {}
        self._where = ''

    def watch(self, losses: dict[str, Tensor], where: str, stop: bool = False) -> None:
        """Check the step before, and begin to learn of this one.

        Args:
            losses: scalar terms by name, on all ranks the same names.
            where: the step, as an error names it.
            stop: whether this rank wants to stop; alone it is heard at once.

        Raises:
            NotFinite: see :meth:`check`.
        """
        self.check()
        self._terms, self._where = {k: v.detach() for k, v in losses.items()}, where
        flags = (~torch.isfinite(torch.stack(list(self._terms.values())))).float()
        if distributed.is_distributed():
            flags = torch.cat([flags, flags.new_full((1,), float(stop))])
            flags = distributed.all_reduce_max(flags)
        else:
            self.stopped = self.stopped or stop
        self.flag.put(flags)

    def check(self) -> None:
        """Look at the step that was watched last, if that has not been done.

        Raises:
            NotFinite: a term of it was NaN or infinite; names the term and the step.
        """
        flags = self.flag.take()
        if flags is None:
            return
        self.stopped = self.stopped or any(flags[len(self._terms):])
        spoilt = [name for name, flag in zip(self._terms, flags) if flag]
        if spoilt:
            values = {name: self._terms[name].item() for name in spoilt}
            told = [f'{name} on another rank' if math.isfinite(value) else f'{name} = {value}'
                    for name, value in values.items()]
            raise NotFinite(f"{', '.join(told)} is not finite", where=self._where,
                            expected=self.advice())
