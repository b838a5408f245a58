"""Parameters, gradients and momenta shared out over ranks (FSDP2).

``torch.distributed.fsdp.fully_shard``: each rank keeps a part of every tensor; a block's are whole
while it computes. The steps are those of DistributedDataParallel. Each rank writes its part of a
checkpoint, and what was written may be taken up by any number of ranks, shared out or not.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """Return what networks within a module list as their ``blocks``: those of ViTs."""
    return [block for part in module.modules()
            if isinstance(blocks := getattr(part, 'blocks', None), (nn.Sequential, nn.ModuleList))
            for block in blocks]


def shard(module: nn.Module, amp: str = 'off') -> None:
    """Share the tensors of a module out over all ranks, in place; all of them call it.

    Each of :func:`blocks_of` is gathered when it is entered, forward and backward, and what is
    outside of them for the whole step.

    Args:
        module: equal on all ranks, on its device.
        amp: 'bf16' gathers the parameters of blocks in bfloat16; gradients are summed in float32.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard  # takes a second
    for tensor in module.parameters():  # channels_last is for convolutions of a whole network
        tensor.data = tensor.data.contiguous()
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if amp == 'bf16' else None,
        reduce_dtype=torch.float32 if amp == 'bf16' else None, cast_forward_inputs=False)
    for block in blocks_of(module):
        fully_shard(block, mp_policy=policy)
    fully_shard(module, reshard_after_forward=False)


def is_sharded(module: nn.Module) -> bool:
    """Return whether the tensors of a module are shared out."""
    return hasattr(module, 'set_requires_gradient_sync')


def _is_part(value: Any) -> bool:
    return hasattr(value, 'full_tensor')  # a DTensor, without the second that its import takes


def whole(value: Any, keep: bool = True) -> Any:
    """Return a state whose shared-out tensors are whole, on the host; all ranks call it.

    Args:
        value: tensors, plain values, and dicts, lists and tuples of such.
        keep: whether this rank wants it; others return None in place of such tensors.
    """
    if _is_part(value):
        found = value.detach().full_tensor()
        return found.cpu() if keep else None
    if isinstance(value, Mapping):
        return {key: whole(one, keep) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(whole(one, keep) for one in value)
    return value


def like(value: Any, own: Any) -> Any:
    """Return this rank's part of a whole tensor where ``own``, of its shape, is shared out."""
    if (not _is_part(own) or _is_part(value) or not isinstance(value, Tensor)
            or value.shape != own.shape):
        return value
    from torch.distributed.tensor import distribute_tensor
    return distribute_tensor(value.to(own.device, own.dtype), own.device_mesh, own.placements,
                             src_data_rank=None)


def room_for(module: nn.Module, optimizer: torch.optim.Optimizer
             ) -> Callable[[tuple, Tensor], Tensor]:
    """Return what gives room for this rank's part of a tensor of a checkpoint.

    It is called with the keys that lead to a tensor and a tensor of its shape and type.
    """
    own, parameters = module.state_dict(), _parameters(optimizer)

    def room(keys: tuple, tensor: Tensor) -> Tensor:
        ours: Any = (own.get(keys[1]) if keys[:1] == ('state_dict',)
                else parameters[keys[2]] if keys[:2] == ('optimizer', 'state')
                and keys[2] < len(parameters) else None)
        if _is_part(ours) and ours.shape == tensor.shape:
            return torch.empty_like(ours.detach(), dtype=tensor.dtype)
        return torch.empty_like(tensor, device='cpu')

    return room


def load_state(module: nn.Module, state: Mapping[str, Any], strict: bool = True) -> None:
    """Fill a module, shared out or not, from whole tensors by their names, or this rank's parts."""
    if is_sharded(module):
        own = module.state_dict()
        state = {name: like(value, own.get(name)) for name, value in state.items()}
    module.load_state_dict(state, strict=strict)


def part_of_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Return this rank's part of an optimiser's whole ``state_dict()``."""
    parameters = _parameters(optimizer)
    return dict(state, state={
        i: {name: like(value, parameters[i]) for name, value in one.items()}
        if i < len(parameters) else one for i, one in state['state'].items()})


def _parameters(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [p for group in optimizer.param_groups for p in group['params']]


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor that ranks share, another tensor as it is."""
    return tensor.to_local() if hasattr(tensor, 'to_local') else tensor


def norm_of(gradients: list[Tensor]) -> Tensor:
    """Return the L2 norm of gradients together, a scalar that is equal on all ranks."""
    norm: Any = nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if _is_part(norm) else norm
