"""The adversarial step of CA2CL: the same view through an encoder with one weight attacked."""

import copy
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ... import distributed
from ...errors import UserError, nearest
from ...registry import HEADS
from ...values import NotNegative, Positive
from ..parts import total_loss

Norm = Literal['l2', 'linf']
NORMS = get_args(Norm)
BatchNorm = Literal['shared', 'frozen', 'auxiliary']
BN = get_args(BatchNorm)

Encode = Callable[[nn.Module, Tensor], tuple[Tensor, ...]]


@HEADS.register_module()
class WeightAdversary(nn.Module):
    """Moves one weight w of the encoder to where the clean loss rises, and asks for the same.

    Cluster-aware adversarial contrastive learning (JBHI 2025). With g = ∇_w of the clean loss,
    averaged over ranks so that they share one attack, the offset is

        r = ε g / ‖g‖₂    (norm 'l2')      or      r = ε sign(g)    (norm 'linf'),

    and one more loss asks that the view encoded with w + r meets the same partner. r is a
    constant; it enters the forward pass through :func:`torch.func.functional_call`, so that no
    weight is ever changed, and the gradients of both passes meet in the one backward of the
    step: one synchronisation between ranks, wherever in the encoder w lies.

    If g is not finite on any rank, the offset is 0 on all ranks, which keeps the statistics of
    BatchNorm finite, and ``skip_step`` is 1: the engine then leaves the step out.

    The defaults are the published behaviour.

    Args:
        encoder: the encoder that is attacked; the algorithm passes it.
        target: name of the attacked parameter in the encoder; if None its first convolution that
            learns, which is published.
        epsilon: ε, the size of the offset.
        relative: whether ε is a fraction of the same norm of w, which makes its effect
            independent of how the weight was initialised.
        norm: 'l2' or 'linf'.
        bn: what normalises the attacked pass: 'shared' is the encoder's BatchNorm, whose
            running statistics see both passes (published); 'frozen' leaves the running
            statistics as the clean pass left them; 'auxiliary' has BatchNorm layers of its own
            (AdvProp, arXiv 1911.09665).
        detach_anchor: whether the partner gets no gradient from the adversarial loss. Keys of a
            momentum encoder get none anyway.
        weight: factor on the adversarial loss.

    Attributes:
        last_offset: the newest r, to look at; None before the first step.

    Raises:
        UserError: the encoder has no such parameter that learns, or a setting is impossible; in
            the first step, the adversarial loss does not depend on the parameter.
    """

    filled_in = ('encoder',)  # by the method, not by a config

    def __init__(self, encoder: nn.Module, target: str | None = None,
                 epsilon: Positive = 1.0, relative: bool = False, norm: Norm = 'l2',
                 bn: BatchNorm = 'shared', detach_anchor: bool = False,
                 weight: NotNegative = 1.0):
        super().__init__()
        learning = [name for name, parameter in encoder.named_parameters()
                    if parameter.requires_grad]
        target = target or next((f'{name}.weight' for name, layer in encoder.named_modules()
                                 if isinstance(layer, nn.Conv2d)
                                 and f'{name}.weight' in learning), None)
        if target is None:
            raise UserError('no convolution of the encoder learns that could be attacked',
                            where='model.adversary.target',
                            expected=f"a parameter that learns, such as '{learning[-1]}'"
                            if learning else 'fewer frozen stages')
        if target not in learning:
            frozen = target in dict(encoder.named_parameters())
            raise UserError(f"target is '{target}'" + (', which is frozen' if frozen else ''),
                            where='model.adversary.target',
                            expected='the name of a parameter of the encoder that learns',
                            nearest=nearest(target, learning))
        for name, value, choices in (('norm', norm, NORMS), ('bn', bn, BN)):
            if value not in choices:
                raise UserError(f"{name} is '{value}'", where=f'model.adversary.{name}',
                                expected='one of ' + ', '.join(choices),
                                nearest=nearest(str(value), choices))
        if not epsilon > 0:
            raise UserError(f'epsilon is {epsilon}', where='model.adversary.epsilon',
                            expected='a positive number')
        self.target, self.epsilon, self.relative, self.norm = target, epsilon, relative, norm
        self.bn, self.detach_anchor, self.weight = bn, detach_anchor, weight
        self.last_offset: Tensor | None = None
        self.auxiliary = nn.ModuleDict({
            name.replace('.', '/'): copy.deepcopy(layer) for name, layer in norm_layers(encoder)
            if bn == 'auxiliary'})

    def copy_norms(self, encoder: nn.Module) -> None:
        """Let the auxiliary BatchNorm layers, if any, start as the encoder's now are."""
        for name, layer in norm_layers(encoder):
            if self.bn == 'auxiliary':
                self.auxiliary[name.replace('.', '/')].load_state_dict(layer.state_dict())

    def forward(self, encoder: nn.Module, encode: Encode, images: Tensor,
                outputs: dict[str, Tensor], loss_of: Callable[[tuple[Tensor, ...]], Tensor],
                loss_scale: Tensor | float = 1.0) -> dict[str, Tensor]:
        """Attack, and return the adversarial loss and monitors.

        Args:
            encoder: the encoder, in training mode.
            encode: maps (encoder, images) to what ``loss_of`` takes.
            images: the view to encode again, of shape (B, 3, S, S).
            outputs: the clean losses (``loss*``) of this step, their graph still alive, and
                monitors, which are not used.
            loss_of: maps the attacked view's encoding to the adversarial loss.
            loss_scale: what the engine will multiply the losses with before backward; small
                gradients vanish in float16 without it.

        Returns:
            ``loss_adversarial``; ``perturbation``, ‖r‖/‖w‖; ``skip_step``, 1 if ∇w is not
            finite, else 0.
        """
        weight = encoder.get_parameter(self.target)
        clean = total_loss(outputs)
        offset, finite = self.offset(weight, clean, loss_scale)
        first, self.last_offset = self.last_offset is None, offset
        if first:
            offset = offset.clone().requires_grad_()
        # w + r is no leaf, so autocast never takes the cast of w that it remembers for it.
        loss = loss_of(self.encode_attacked(encoder, encode, images, offset))
        if first and torch.autograd.grad(loss, offset, retain_graph=True,
                                         allow_unused=True)[0] is None:
            raise UserError(f"'{self.target}' takes no part in the adversarial loss, so that "
                            'attacking it changes nothing', where='model.adversary.target',
                            expected='a parameter on the way to that loss, such as the first '
                                     'convolution (None)')
        relative_size = self.last_offset.norm() / weight.detach().norm().clamp_min(_tiny(weight))
        return {'loss_adversarial': self.weight * loss, 'perturbation': relative_size,
                'skip_step': (~finite).float()}

    def offset(self, weight: Tensor, loss: Tensor,
               loss_scale: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """Return r, of the shape of ``weight``, and a bool scalar: was the gradient finite?"""
        gradient, = torch.autograd.grad(loss * loss_scale, weight, retain_graph=True)
        gradient = distributed.all_reduce_mean(gradient)
        finite = torch.isfinite(gradient).all()
        gradient = torch.where(finite, gradient, 0)
        order = 2 if self.norm == 'l2' else torch.inf
        if self.norm == 'l2':
            # In two steps, since the square of a scaled gradient can leave float32.
            gradient = gradient / gradient.abs().amax().clamp_min(_tiny(gradient))
            direction = gradient / gradient.norm().clamp_min(_tiny(gradient))
        else:
            direction = gradient.sign()
        size = self.epsilon
        if self.relative:
            size = size * torch.linalg.vector_norm(weight.detach(), order)
        return size * direction, finite

    def encode_attacked(self, encoder: nn.Module, encode: Encode, images: Tensor,
                        offset: Tensor) -> tuple[Tensor, ...]:
        """Encode ``images`` with the offset added to the attacked weight."""
        tensors = {self.target: encoder.get_parameter(self.target) + offset}
        for name, layer in norm_layers(encoder):
            if self.bn == 'auxiliary':
                own = self.auxiliary[name.replace('.', '/')]
                tensors |= {f'{name}.{key}': value for key, value in own.named_parameters()}
                tensors |= {f'{name}.{key}': value for key, value in own.named_buffers()}
            elif self.bn == 'frozen':  # copies take what the pass would add, and are dropped
                tensors |= {f'{name}.{key}': value.clone()
                            for key, value in layer.named_buffers()}
        return functional_call(_Encode(encoder, encode),
                               {f'encoder.{name}': value for name, value in tensors.items()},
                               (images,))


class _Encode(nn.Module):
    """``encode(encoder, images)`` as a module, which functional_call wants."""

    def __init__(self, encoder: nn.Module, encode: Encode):
        super().__init__()
        self.encoder, self.encode = encoder, encode

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.encode(self.encoder, images)


def norm_layers(encoder: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the layers of an encoder that keep running statistics, with their names."""
    return [(name, layer) for name, layer in encoder.named_modules()
            if isinstance(layer, nn.modules.batchnorm._NormBase)]


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny
