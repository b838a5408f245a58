"""The training state of published methods, to ours and back.

Most methods have the same names here. MoCo and its descendants number the parts of their encoders,
and hold the query backbone twice; queues are D x K.
"""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import UserError
from .names import SOBEL, shorten, summary

_PARTS = {'0': 'backbone', '1': 'neck', '2': 'matching_neck'}
_NUMBERS = {part: number for number, part in _PARTS.items()}
_QUEUES = {'queue': 'queue', 'queue2': 'queue_dense', 'concept_queue': 'concepts.queue'}
_ENCODERS = ('encoder_q', 'encoder_k', 'online_net', 'target_net')
# How the names of methods without a second encoder begin, and how they begin here.
_BEGINNINGS = {
    'CA2CL': {'resnet.': 'encoder_q.backbone.', 'instance_projector.': 'encoder_q.neck.mlp.',
              'groupDis.0.': 'encoder_q.group_neck.'},
    'SimCLR': {'backbone.': 'encoder_q.backbone.', 'neck.': 'encoder_q.neck.'},
    'DeepCluster': {SOBEL: f'backbone.{SOBEL}', 'backbone.': 'backbone.backbone.',
                    'head.': 'head.'}}
# What tells a method from those below it.
_SIGNS = {
    'PLMConCL': ('encoder_q.2.', 'concept_queue'), 'ConCL': ('encoder_q.0.', 'concept_queue'),
    'PLM': ('encoder_q.2.', 'queue2'), 'DenseCL': ('encoder_q.1.mlp2.', 'queue2'),
    'MoCo': ('encoder_q.0.', 'queue'), 'BYOL': ('online_net.0.', 'head.predictor.'),
    'CA2CL': ('resnet.', 'groupDis.'), 'VICRegL': ('backbone.', 'projector.0.'),
    'DeepCluster': ('backbone.', SOBEL, 'head.'), 'ODC': ('backbone.', 'neck.fc0.', 'head.'),
    'SimCLR': ('backbone.', 'neck.fc0.'), 'RelativeLoc': ('backbone.', 'neck.fc.', 'head.'),
    'NPID': ('backbone.', 'neck.fc.')}


def published_method(state: Mapping[str, Tensor]) -> str | None:
    """Return our name of the method that a published state is of, None if its names do not tell.

    RotationPred, Classification and DeepCluster without Sobel have the same names, here too.

    Args:
        state: tensors named as in published checkpoints (:func:`weights_of`).
    """
    return next((method for method, signs in _SIGNS.items()
                 if all(any(name.startswith(sign) for name in state) for sign in signs)), None)


def training_state_from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn the state of a published method into that of ours.

    Queues turn from D x K to K x D and count as full: what a published queue still holds
    from its random start cannot be told. The second copy of the backbone, ``backbone.*``, is
    dropped; if it is not the same, that is logged as a warning. Memories of NPID and ODC are in
    no published checkpoint.

    Args:
        state: tensors named as in published checkpoints (:func:`weights_of`).

    Raises:
        UserError: a name that such a state does not have.
    """
    if any(name.startswith(_ENCODERS) or name.removesuffix('_ptr') in _QUEUES for name in state):
        return _of_encoders(state)
    beginnings = _BEGINNINGS.get(published_method(state) or '', {'': ''})
    ours = {}
    for name, value in state.items():
        begins = next((b for b in beginnings if name.startswith(b)), None)
        if begins is None:
            raise UserError(f"'{name}' is no tensor of a published {published_method(state)} "
                            f'state; found {summary(state)}')
        ours[beginnings[begins] + name[len(begins):]] = value
    return ours


def _of_encoders(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn the state of a method of two encoders into that of ours."""
    ours: dict[str, Tensor] = {}
    for name, value in state.items():
        head, _, rest = name.partition('.')
        number, _, tail = rest.partition('.')
        if head in _ENCODERS and number in _PARTS:
            ours[f'{head}.{_PARTS[number]}.{tail}'] = value
        elif name in _QUEUES:
            ours[f'{_QUEUES[name]}.vectors'] = value.t().contiguous()  # K x D
            ours[f'{_QUEUES[name]}.filled'] = torch.tensor([value.shape[1]])
        elif name.removesuffix('_ptr') in _QUEUES:
            ours[f"{_QUEUES[name.removesuffix('_ptr')]}.pointer"] = value.clone()
        elif head == 'head':  # BYOL's predictor
            ours[name] = value
        elif head != 'backbone':
            raise UserError(f"'{name}' is no tensor of a published PLM, DenseCL, MoCo, ConCL or "
                            f'BYOL state; found {summary(state)}')
    if not any(name.startswith(('encoder_q.backbone.', 'online_net.backbone.')) for name in ours):
        raise UserError(f'no query encoder in this state; found {summary(state)}',
                        expected='encoder_q.0.*, as in published PLM checkpoints')
    _warn_if_copies_differ(state)
    return ours


def _warn_if_copies_differ(state: Mapping[str, Tensor]) -> None:
    first = 'online_net.0.' if any(n.startswith('online_net.') for n in state) else 'encoder_q.0.'
    different = [name for name in state if name.startswith('backbone.') and not (
        (query := state.get(first + name[len('backbone.'):])) is not None
        and torch.equal(query, state[name]))]
    if different:
        logging.getLogger(__name__).warning(
            'the two copies of the backbone in this checkpoint differ; %s is used, not %s',
            first[:-1], shorten(different))


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
            continue
        head, _, rest = name.rpartition('.')
        if head in numbers_of_queues and rest in ('vectors', 'pointer', 'filled'):
            if rest == 'vectors':
                published[numbers_of_queues[head]] = value.t().contiguous()  # D x K
            elif rest == 'pointer':
                published[numbers_of_queues[head] + '_ptr'] = value.clone()
        else:
            raise UserError(f"published checkpoints have no place for '{name}'")
    copies = {'backbone.' + name[len('encoder_q.0.'):]: value
              for name, value in published.items() if name.startswith('encoder_q.0.')}
    return published | copies
