"""Writing the backbone of a training checkpoint into a file of its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from .backbone import backbone_record
from .names import (
    CA2CL,
    DINO,
    MOCO,
    OPENSELFSUP,
    OURS,
    PLM,
    VICREGL,
    Architecture,
    architecture_of,
    backbone_state_dict,
    has_sobel,
    shorten,
    summary,
)
from .reading import load
from .values import refuse_spoilt
from .writing import save

# Files that hold more than a backbone.
_TRAINED = (OURS, PLM, OPENSELFSUP, CA2CL, MOCO, DINO, VICREGL)


def extract_backbone(source: Path, out: Path) -> str:
    """Write the backbone of a training checkpoint into a file of its own.

    Args:
        source: a training checkpoint of ours, or a published one of PLM, ConCL, OpenSelfSup,
            CA2CL, VICRegL, DINO or MoCo.
        out: file to write; one that holds this backbone already is written again.

    Returns:
        What was done, in a few lines.

    Raises:
        UserError: there is no such backbone in ``source``, or ``out`` holds something else.
    """
    checkpoint = load(source)
    expected = 'a training checkpoint of ours, or a published one'
    try:
        state, kind = backbone_state_dict(checkpoint)
    except UserError as error:
        raise UserError(error.what, where=str(source), expected=expected) from None
    if kind not in _TRAINED:
        raise UserError(f'these are weights of another kind ({kind}); found '
                        f'{summary(checkpoint)}', where=str(source), expected=expected)
    refuse_spoilt(state, str(source))
    if out.exists() and out.samefile(source):
        raise UserError('this would replace the checkpoint by its own backbone', where=str(out))
    there = out.exists()
    content: dict[str, Any] = dict(state_dict=state)
    if record := backbone_record(checkpoint, str(source)):
        content['meta'] = dict(backbone=replace(record, prefix='').as_dict())
    if there and not _holds(out, content):
        raise UserError('this file holds something else than this backbone', where=str(out),
                        expected='another name, or this file removed')
    save(content, out)

    network = architecture_of(state)
    what = network or (record and record.config and record.config['type']) or 'no ResNet'
    names = set[str]() if has_sobel(state) else _torchvision_names(network)
    lines = [f'{source}: {"our" if kind == OURS else kind} checkpoint, {what}']
    if network and names:
        lines.append(f'{len(names & state.keys())}/{len(names)} tensors of torchvision\'s '
                     f'{network.torchvision_name} (without fc) matched')
        if missing := sorted(names - state.keys()):
            lines.append(f'missing: {shorten(missing)}')
    lines.append(f'{"had already" if there else "wrote"} {out}: {len(state)} tensors')
    return '\n'.join(lines)


def _torchvision_names(network: Architecture | None) -> set[str]:
    """Return the tensors of the same network in torchvision, fc aside; none if it has none."""
    if network is None or network.torchvision_name is None:
        return set()
    import torchvision
    with torch.device('meta'):
        model = torchvision.models.get_model(network.torchvision_name)
    return {name for name in model.state_dict() if not name.startswith('fc.')}


def _holds(path: Path, content: dict[str, Any]) -> bool:
    """Return whether a file holds exactly this backbone, and so may be written again.

    One that was extracted before, with nothing beside the weights, does too.
    """
    try:
        found = load(path)
    except UserError:
        return False
    there, state = found.pop('state_dict', None), content['state_dict']
    return (found in ({}, {key: content[key] for key in content if key != 'state_dict'})
            and isinstance(there, dict) and there.keys() == state.keys()
            and all(torch.equal(there[name], value) for name, value in state.items()))
