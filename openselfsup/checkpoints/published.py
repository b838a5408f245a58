"""The training state of published PLM, DenseCL and MoCo, to ours and back."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import UserError
from .names import OUR_PREFIX, shorten, summary

_PARTS = {'0': 'backbone', '1': 'neck', '2': 'matching_neck'}
_NUMBERS = {part: number for number, part in _PARTS.items()}
_QUEUES = {'queue': 'queue', 'queue2': 'queue_dense'}


def training_state_from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn the state of a published PLM, DenseCL or MoCo algorithm into that of ours.

    Queues turn from D x K to K x D and count as full: what a published queue still holds
    from its random start cannot be told. The second copy of the backbone, ``backbone.*``, is
    dropped; if it is not the same, that is logged as a warning.

    Args:
        state: tensors named as in published checkpoints (:func:`weights_of`).

    Raises:
        UserError: a name that such a state does not have.
    """
    ours: dict[str, Tensor] = {}
    for name, value in state.items():
        head, _, rest = name.partition('.')
        number, _, tail = rest.partition('.')
        if head in ('encoder_q', 'encoder_k') and number in _PARTS:
            ours[f'{head}.{_PARTS[number]}.{tail}'] = value
        elif name in _QUEUES:
            ours[f'{_QUEUES[name]}.vectors'] = value.t().contiguous()  # K x D
            ours[f'{_QUEUES[name]}.filled'] = torch.tensor([value.shape[1]])
        elif name.removesuffix('_ptr') in _QUEUES:
            ours[f"{_QUEUES[name.removesuffix('_ptr')]}.pointer"] = value.clone()
        elif head != 'backbone':
            raise UserError(f"'{name}' is no tensor of a published PLM, DenseCL or MoCo state; "
                            f'found {summary(state)}')
    if not any(name.startswith(OUR_PREFIX) for name in ours):
        raise UserError(f'no query encoder in this state; found {summary(state)}',
                        expected='encoder_q.0.*, as in published PLM checkpoints')
    _warn_if_copies_differ(state)
    return ours


def _warn_if_copies_differ(state: Mapping[str, Tensor]) -> None:
    different = [name for name in state if name.startswith('backbone.') and not (
        (query := state.get('encoder_q.0.' + name[len('backbone.'):])) is not None
        and torch.equal(query, state[name]))]
    if different:
        logging.getLogger(__name__).warning(
            'the two copies of the backbone in this checkpoint differ; encoder_q.0 is used, '
            'not %s', shorten(different))


def training_state_to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn the state of our PLM, DenseCL or MoCo into the published names and shapes.

    How full the queues are has no place there and is left out.

    Args:
        state: ``state_dict()`` of an algorithm of ours.

    Raises:
        UserError: a name that the published form has no place for.
    """
    published: dict[str, Tensor] = {}
    numbers_of_queues = {ours: theirs for theirs, ours in _QUEUES.items()}
    for name, value in state.items():
        head, _, rest = name.partition('.')
        part, _, tail = rest.partition('.')
        if head in ('encoder_q', 'encoder_k') and part in _NUMBERS:
            published[f'{head}.{_NUMBERS[part]}.{tail}'] = value
        elif head in numbers_of_queues and rest in ('vectors', 'pointer', 'filled'):
            if rest == 'vectors':
                published[numbers_of_queues[head]] = value.t().contiguous()  # D x K
            elif rest == 'pointer':
                published[numbers_of_queues[head] + '_ptr'] = value.clone()
        else:
            raise UserError(f"published checkpoints have no place for '{name}'")
    copies = {'backbone.' + name[len('encoder_q.0.'):]: value
              for name, value in published.items() if name.startswith('encoder_q.0.')}
    return published | copies
