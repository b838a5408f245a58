"""Checkpoints of older generations under the names of today."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import UserError
from .backbone import BackboneRecord, backbone_record
from .loading import TRAINING_KEYS
from .names import OURS, TORCHVISION, detect, recorded_prefix, weights_of
from .published import published_method, training_state_from_published
from .reading import load
from .values import refuse_spoilt
from .writing import save

# What the names of a backbone begin with here; the first that fits.
_PREFIXES = ('encoder_q.backbone.', 'online_net.backbone.', 'backbone.', '')


def upgrade(source: Path, out: Path) -> str:
    """Write a checkpoint under the names of today, with a record of where its backbone is.

    Args:
        source: a training checkpoint of ours from before there was such a record, a published one
            of PLM, ConCL, OpenSelfSup, CA2CL or VICRegL, or the bare weights of a backbone, as
            OpenSelfSup first released them.
        out: file to write; an existing one is replaced only by another run of this.

    Returns:
        What was done, in a few lines.

    Raises:
        UserError: there is nothing to change, the names are unknown, weights are spoilt, or
            ``out`` is ``source``.
    """
    checkpoint = load(source)
    if out.exists() and out.samefile(source):
        raise UserError('this would replace the checkpoint itself', where=str(out),
                        expected='another name')
    if recorded_prefix(checkpoint) is not None:
        raise UserError('this checkpoint has the names of today already', where=str(source))
    content, what = _upgraded(checkpoint, str(source))
    refuse_spoilt(content['state_dict'], str(source))
    save(content, out)
    prefix = content['meta']['backbone']['prefix']
    return (f'{source}: {what}\nwrote {out}: {len(content["state_dict"])} tensors, the backbone '
            + (f'is {prefix[:-1]}' if prefix else 'and nothing else'))


def _upgraded(checkpoint: Mapping[str, Any], where: str) -> tuple[dict[str, Any], str]:
    """Return the content of the new file, and what the old one is."""
    try:
        kind, state = detect(checkpoint), weights_of(checkpoint)
    except UserError as error:
        raise UserError(error.what, where=where, expected=error.expected) from None
    if kind == OURS:
        record = backbone_record(checkpoint, where) or BackboneRecord(_PREFIXES[0])
        meta = {**checkpoint.get('meta', {}), 'backbone': record.as_dict()}
        content = dict(checkpoint) if 'state_dict' in checkpoint else dict(state_dict=state)
        return {**content, 'meta': meta}, 'our checkpoint'
    if kind == TORCHVISION:
        bare = {name: value for name, value in state.items()
                if not name.startswith(('head', 'fc.'))}
        return dict(state_dict=bare, meta=dict(backbone=BackboneRecord('').as_dict())), (
            'bare weights of a backbone')
    method = published_method(state)
    if method is None and not any(name.startswith('backbone.') for name in state):
        raise UserError(f'these are weights of another kind ({kind}), whose names nothing here '
                        'had', where=where, expected='a checkpoint of ours, PLM, ConCL, '
                        'OpenSelfSup, CA2CL or VICRegL; `openselfsup extract-backbone` takes more')
    renamed = training_state_from_published(state)
    prefix = next(p for p in _PREFIXES if any(name.startswith(p) for name in renamed))
    meta = dict(backbone=BackboneRecord(prefix).as_dict(), method=method, **_progress(checkpoint))
    return dict(state_dict=renamed, meta=meta), f'published {method or kind} checkpoint'


def _progress(checkpoint: Mapping[str, Any]) -> dict[str, int]:
    """Return what a published checkpoint says of how long it was trained."""
    meta = checkpoint.get('meta')
    epoch = (meta if isinstance(meta, Mapping) else checkpoint).get('epoch')
    return dict(epoch=epoch) if isinstance(epoch, int) else {}


def initial_state(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Tensor], str | None] | None:
    """Return the weights that a whole method can start from, of a file without a run's state.

    Args:
        checkpoint: what a file holds: a published training checkpoint, or one of :func:`upgrade`.

    Returns:
        Tensors under our names, and the method if that is known; None for a file that a run can
        go on from, or whose names nothing here had.
    """
    if set(TRAINING_KEYS) <= checkpoint.keys():
        return None
    try:
        state = weights_of(checkpoint)
        if recorded_prefix(checkpoint) is not None:
            method = checkpoint['meta'].get('method')
            return state, method if isinstance(method, str) else None
        return training_state_from_published(state), published_method(state)
    except UserError:
        return None
