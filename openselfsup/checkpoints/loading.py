"""Loading weights into a backbone, and saying how much of it was filled."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from .backbone import backbone_record
from .names import (
    OURS,
    architecture_of,
    backbone_state_dict,
    recorded_prefix,
    shorten,
    summary,
)
from .reading import load
from .values import refuse_spoilt, unusable

# What a checkpoint needs for a run to go on from it.
TRAINING_KEYS = ('state_dict', 'optimizer', 'scaler', 'meta')


@dataclass
class LoadReport:
    """What became of the weights; ``str()`` says it in one line.

    Attributes:
        matched: tensors of the module that were filled.
        expected: tensors the module has. BatchNorm's ``num_batches_tracked`` counts only
            where the weights have it: older files lack it, and it changes nothing.
        missing: tensors of the module that the weights lack.
        unexpected: tensors of the weights that the module lacks.
        mismatched: tensors of both, of different shapes; none was filled.
        kind: naming scheme of the weights, see :mod:`.names`.
        source: path of the file, '' for weights given as a dict.
    """

    matched: int
    expected: int
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    kind: str = ''
    source: str = ''

    def __str__(self) -> str:
        kind = 'our' if self.kind == OURS else self.kind
        text = (f'{self.matched}/{self.expected} tensors matched '
                f'({f"{kind} checkpoint {self.source}".strip()})')
        for word in ('missing', 'unexpected', 'mismatched'):
            if names := getattr(self, word):
                text += f'; {word}: {shorten(names, 3)}'
        return text


def load_backbone_weights(module: nn.Module, weights: str | Path | Mapping[str, Any],
                          strict_shapes: bool = True, allow_partial: bool = False,
                          advice: str = '') -> LoadReport:
    """Fill a backbone from a checkpoint of any kind we know.

    Args:
        module: a ResNet whose parameters have torchvision's names; or, for a checkpoint that
            says where its backbone is, a backbone of the class it was trained as. A module with
            other names has ``adapted_weights``, which does what :func:`backbone_state_dict` does,
            for these, may name tensors in ``may_lack`` that weights need not have, and may
            refuse in ``check_reading`` what its weights were trained to be read by.
        weights: path of a checkpoint, or what :func:`load` returned.
        strict_shapes: refuse tensors of other shapes; else they are left as they were.
        allow_partial: accept that tensors are missing or left over.
        advice: how a caller's user has that accepted, for the error.

    Returns:
        What matched. The module is changed only if nothing is refused.

    Raises:
        UserError: the file cannot be read, its naming scheme is unknown, nothing matched, not
            everything matched and that was not allowed, or weights are NaN or infinite.
    """
    source = '' if isinstance(weights, Mapping) else str(weights)
    checkpoint = weights if isinstance(weights, Mapping) else load(weights)
    own = module.state_dict()
    adapted = getattr(module, 'adapted_weights', backbone_state_dict)
    state, kind = (backbone_state_dict if recorded_prefix(checkpoint) is not None else adapted)(
        checkpoint, source or None)
    may_lack = getattr(module, 'may_lack', ())
    expected = [name for name in own
                if name in state or not _is_batch_count(name) and name not in may_lack]
    matching = {name: state[name] for name in expected
                if name in state and not _difference(state[name], own[name])}
    report = LoadReport(
        len(matching), len(expected), [name for name in expected if name not in state],
        [name for name in state if name not in own and not _is_batch_count(name)
         and not _is_of_a_left_out_layer(name, own)],
        _mismatches(state, own), kind, source)
    if (not matching or (report.mismatched and strict_shapes)
            or ((report.missing or report.unexpected) and not allow_partial)):
        theirs, ours = architecture_of(state), architecture_of(own)
        what = (f'these weights are of a {theirs}, the model is a {ours}'
                if theirs and ours and theirs != ours
                else 'nothing in these weights fits the model' if not matching
                else 'these weights do not fit the model')
        remedy = None
        if matching and not report.mismatched:
            remedy = 'weights of the whole backbone and nothing else'
            if advice:
                remedy += f'; to take what fits, {advice}'
        raise UserError(f'{what}; {report}', where=source or None, expected=remedy)
    check = getattr(module, 'check_reading', None)
    if check is not None and (record := backbone_record(checkpoint, source)):
        check(record.config, source or None)
    refuse_spoilt(matching, source or None)
    module.load_state_dict(matching, strict=False)
    return report


def _is_batch_count(name: str) -> bool:
    return name.endswith('num_batches_tracked')


def _is_of_a_left_out_layer(name: str, own: Mapping[str, Tensor]) -> bool:
    """Return whether a model with fewer layers has nothing of the tensor's layer or block."""
    layer = re.match(r'layer\d+\.|net\.(blocks|stages)\.\d+\.', name)
    return layer is not None and not any(other.startswith(layer[0]) for other in own)


def _mismatches(state: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    return [f'{name} ({difference})' for name in own
            if isinstance(own[name], Tensor) and name in state
            and (difference := _difference(state[name], own[name]))]


def _difference(theirs: Any, ours: Tensor) -> str:
    """Say why a value of a file cannot take the place of a tensor of a model; '' if it can."""
    if not isinstance(theirs, Tensor):
        return f'a {type(theirs).__name__}, no tensor'
    if theirs.shape != ours.shape:
        sizes = ['x'.join(map(str, tensor.shape)) or 'scalar' for tensor in (theirs, ours)]
        return f'{sizes[0]}, the model has {sizes[1]}'
    return unusable(theirs, ours.dtype) or ''


def differences(state: Mapping[str, Any], own: Mapping[str, Tensor],
                may_lack: Collection[str] = ()) -> str:
    """Say how weights differ from the tensors of a model in names and shapes, '' if they do not.

    Args:
        state: the weights.
        own: tensors of the model.
        may_lack: those that the weights need not have.
    """
    found = dict(missing=[name for name in own if name not in state and name not in may_lack],
                 unexpected=[name for name in state if name not in own],
                 mismatched=_mismatches(state, own))
    return '; '.join(f'{word}: {shorten(names, 3)}' for word, names in found.items() if names)


def check_training_state(checkpoint: Mapping[str, Any], model: nn.Module, where: str) -> None:
    """Make sure that training can go on from a checkpoint.

    Args:
        checkpoint: what :func:`load` returned.
        model: the algorithm that is to go on.
        where: path of the checkpoint.

    Raises:
        UserError: it is no training checkpoint of ours, one of another model, or one that holds
            NaN or infinity.
    """
    lacking = [key for key in TRAINING_KEYS if key not in checkpoint]
    if lacking:
        raise UserError(f"no run can go on from this file: it lacks {', '.join(lacking)}; found "
                        f'{summary(checkpoint)}', where=where,
                        expected='an epoch_N.pth or latest.pth of a work directory (other '
                                 'weights are for --pretrained)')
    wrong = [key for key in TRAINING_KEYS if not isinstance(checkpoint[key], Mapping)]
    if wrong:
        raise UserError(f"no run can go on from this file: {', '.join(wrong)} is no dict",
                        where=where)
    if found := differences(checkpoint['state_dict'], model.state_dict()):
        raise UserError(f'this is a checkpoint of another model; {found}', where=where)
    refuse_spoilt({key: checkpoint[key] for key in ('state_dict', 'optimizer')}, where)
