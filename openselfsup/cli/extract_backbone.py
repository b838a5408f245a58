"""Extract the backbone of a training checkpoint of ours or of published PLM.

Example:
    openselfsup extract-backbone work_dirs/demo/latest.pth backbone.pth

The result holds the query encoder's backbone under 'state_dict', without any prefix: what
torchvision's ResNets load strictly once their fc is left out. Of a checkpoint of ours it also says,
under 'meta', how the backbone is built and the normalisation of the images it was trained on.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import (
    Architecture,
    architecture_of,
    backbone_record,
    backbone_state_dict,
    load,
    refuse_spoilt,
    save,
)
from ..checkpoints.names import OPENSELFSUP, OURS, PLM, shorten, summary
from ..errors import UserError


def torchvision_names(network: Architecture | None) -> set[str]:
    """Return the tensors of the same network in torchvision, fc aside; none if it has none."""
    if network is None or network.torchvision_name is None:
        return set()
    import torchvision
    with torch.device('meta'):
        model = torchvision.models.get_model(network.torchvision_name)
    return {name for name in model.state_dict() if not name.startswith('fc.')}


def holds(path: Path, content: dict[str, Any]) -> bool:
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup extract-backbone``."""
    parser.add_argument('checkpoint', help='e.g. work_dirs/demo/latest.pth')
    parser.add_argument('out', help='file to write, e.g. work_dirs/demo/backbone.pth; '
                                    'one that holds something else is refused')


def main(args: argparse.Namespace) -> None:
    """Read, refuse or extract, write, and say what was done."""
    source, out = Path(args.checkpoint), Path(args.out)
    checkpoint = load(source)
    expected = 'a training checkpoint of ours, or of published PLM'
    try:
        state, kind = backbone_state_dict(checkpoint)
    except UserError as error:
        raise UserError(error.what, where=str(source), expected=expected) from None
    if kind not in (OURS, PLM, OPENSELFSUP):
        raise UserError(f'these are weights of another kind ({kind}); found '
                        f'{summary(checkpoint)}', where=str(source), expected=expected)
    refuse_spoilt(state, str(source))
    if out.exists() and out.samefile(source):
        raise UserError('this would replace the checkpoint by its own backbone', where=args.out)
    there = out.exists()
    content = dict(state_dict=state)
    if record := backbone_record(checkpoint, str(source)):
        content['meta'] = dict(backbone=replace(record, prefix='').as_dict())
    if there and not holds(out, content):
        raise UserError('this file holds something else than this backbone', where=args.out,
                        expected='another name, or this file removed')
    save(content, out)

    network = architecture_of(state) or (record and record.config and record.config['type'])
    names = torchvision_names(architecture_of(state))
    print(f'{source}: {"our" if kind == OURS else kind} checkpoint, {network or "no ResNet"}')
    if names:
        print(f'{len(names & state.keys())}/{len(names)} tensors of torchvision\'s '
              f'{network.torchvision_name} (without fc) matched')
        if missing := sorted(names - state.keys()):
            print(f'missing: {shorten(missing)}')
    print(f'{"had already" if there else "wrote"} {out}: {len(state)} tensors')
