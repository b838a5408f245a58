"""A checkpoint to give away: the weights and what says how to use them, and nothing of the run."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..files import atomic_file
from .backbone import backbone_record
from .names import weights_of
from .reading import load
from .values import refuse_spoilt
from .writing import check_plain

DIGITS = 8  # of the hash in the name, which torch.hub checks


def publish(source: Path, out: Path | None = None) -> Path:
    """Write a checkpoint without optimiser, scaler, config and paths, named after its hash.

    The config names folders of the machine that it ran on; what is needed to use the backbone
    (``meta.backbone``) is kept.

    Args:
        source: a checkpoint of any kind we know.
        out: the name to write, into which the hash is put: ``plm.pth`` gives
            ``plm-1a2b3c4d.pth``. Default: the name of ``source``.

    Returns:
        The file that was written. The same weights have the same name and content.

    Raises:
        UserError: the file cannot be read, or its weights are spoilt.
    """
    checkpoint, out = load(source), source if out is None else out
    try:
        state = weights_of(checkpoint)
    except UserError as error:
        raise UserError(error.what, where=str(source), expected=error.expected) from None
    refuse_spoilt(state, str(source))
    content: dict[str, Any] = dict(state_dict=dict(state))
    meta = checkpoint.get('meta')
    kept = ({key: meta[key] for key in ('version', 'epoch', 'method') if key in meta}
            if isinstance(meta, dict) else {})
    if record := backbone_record(checkpoint, str(source)):
        kept['backbone'] = record.as_dict()
    if kept:
        content['meta'] = kept
    check_plain(content, 'checkpoint')
    memory = io.BytesIO()
    torch.save(content, memory)
    digest = hashlib.sha256(memory.getvalue()).hexdigest()[:DIGITS]
    target = out.with_name(f'{out.name.removesuffix(".pth")}-{digest}.pth')
    with atomic_file(target) as file:
        file.write(memory.getvalue())
    return target
