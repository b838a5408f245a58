"""Precision: the number format of forward passes, and whether this machine is good at it."""

import logging
import platform
from collections.abc import Callable

import torch

from ..errors import UserError

DTYPES = dict(off=None, bf16=torch.bfloat16, fp16=torch.float16)
NAMES = dict(off='float32', bf16='bfloat16', fp16='float16')  # as results have them

logger = logging.getLogger(__name__)


def resolve(amp: str, device: torch.device, where: str = 'amp',
            tell: Callable[[str], object] = logger.warning) -> str:
    """Return the precision that a device shall compute in: 'bf16', 'fp16' or 'off' (float32).

    Args:
        amp: 'auto' takes bf16 where the device computes in it and float32 elsewhere; another
            value is returned as it is, with a warning where it is slow.
        device: where the model is.
        where: what an error calls the place of the value.
        tell: takes the warning.

    Raises:
        UserError: fp16, which needs loss scaling on a GPU, on a CPU.
    """
    check_precision(amp, device, where)
    fast = computes_in_bf16(device)
    if amp == 'auto':
        return 'bf16' if fast else 'off'
    if amp == 'bf16' and not fast:
        tell(f"this {'GPU' if device.type == 'cuda' else 'processor'} has no bf16 instructions and "
             'imitates them, several times slower than float32: amp=auto or amp=off is faster')
    return amp


def check_precision(amp: str, device: torch.device, where: str = 'amp') -> None:
    """Refuse what a device cannot do, before any work; arguments and error as :func:`resolve`."""
    if amp == 'fp16' and device.type != 'cuda':
        raise UserError('fp16 needs a GPU', where=where, expected='auto, bf16 or off',
                        nearest='bf16' if computes_in_bf16(device) else 'auto')


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """Return the context of a forward pass in a precision of :func:`resolve`."""
    return torch.autocast(device.type, DTYPES[amp], enabled=amp != 'off')


def computes_in_bf16(device: torch.device) -> bool:
    """Return whether a device has bf16 instructions; else it is slower in bf16 than in float32."""
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != 'cpu':
        return False
    if platform.machine().lower() in ('x86_64', 'amd64'):
        # oneDNN also takes bf16 on AVX-512 and AVX2 alone, where it converts each number.
        return torch.cpu._is_avx512_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
