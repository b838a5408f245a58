"""The fields of a training config. Nothing here takes time to import."""

import dataclasses
from typing import Annotated, Any, Literal

from ..values import Amp, ClipBy, Count, Positive, Range, Seed, Whole, accepts

_Mean = Annotated[float, Range(0, 1)]
_Std = Annotated[float, Range(0, 1, above=True)]


@dataclasses.dataclass(frozen=True)
class Channels:
    """Rule for ``normalize``: mean and std of three channels, for values in [0, 1]."""

    text = ('with mean and std, three numbers each, for values in [0, 1]: mean from 0 to 1, '
            'std above 0')

    def holds(self, value: dict) -> bool:
        """Return whether mean and std are there and lie in their ranges."""
        return (set(value) == {'mean', 'std'}
                and accepts(value['mean'], tuple[_Mean, _Mean, _Mean])
                and accepts(value['std'], tuple[_Std, _Std, _Std]))

    def hint(self, value: Any) -> str | None:
        """Say how values for 0..255, OpenMMLab's habit, are written here."""
        numbers = tuple[Positive, Positive, Positive]
        if not (isinstance(value, dict) and {'mean', 'std'} <= set(value)
                and accepts(value['mean'], numbers) and accepts(value['std'], numbers)
                and max(*value['mean'], *value['std']) > 1):
            return None
        scaled = {key: [round(number / 255, 4) for number in value[key]]
                  if max(value[key]) > 1 else list(value[key]) for key in ('mean', 'std')}
        return (f"is for values in 0..255, OpenMMLab's habit; divide by 255: "
                f"dict(mean={scaled['mean']}, std={scaled['std']})")


@dataclasses.dataclass(frozen=True)
class Imports:
    """Rule for ``custom_imports``: names of modules under ``imports``."""

    text = "of the form dict(imports=['my_methods'])"

    def holds(self, value: dict) -> bool:
        """Return whether there is a list of names and nothing else that we do not know."""
        return (set(value) <= {'imports', 'allow_failed_imports'}
                and accepts(value.get('imports', []), list[str]))


def _imagenet() -> dict[str, list[float]]:
    from ..training.normalization import IMAGENET_MEAN, IMAGENET_STD
    return dict(mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD))


@dataclasses.dataclass
class PretrainConfig:
    """The top-level fields of a training config, with their defaults.

    Attributes:
        model: the algorithm with its backbone, neck and so on (``type`` in ALGORITHMS).
        dataset: what delivers views (``type`` in DATASETS).
        optimizer: ``type`` SGD, Adam, AdamW or LARS; ``lr`` is for ``base_batch_size`` if given.
        schedule: learning rate over the run (``type`` in SCHEDULES).
        epochs: passes over the tiles.
        global_batch_size: tiles of one optimiser step, over all ranks and accumulation.
        accumulate: forward / backward passes of one optimiser step.
        base_batch_size: if given, lr is multiplied by global_batch_size / base_batch_size.
        amp: 'auto' (bf16 where the device computes in it, else float32), 'bf16', 'fp16' (GPU only)
            or 'off'.
        channels_last: memory format of images and convolutions.
        compile: compile the forward pass with torch.compile.
        parallel: what several ranks share: 'ddp' the work, 'fsdp' also parameters, gradients and
            momenta, for networks too large for one GPU; each rank writes its part of a checkpoint.
        clip_grad: largest L2 norm of the gradient, None for no clipping.
        clip_grad_by: what that is the norm of: 'all' gradients, those of each 'part' of the
            method (backbone, heads), or of each 'tensor'.
        normalize: ``mean`` and ``std`` of the input channels, for values in [0, 1].
        render: where views are rendered: 'worker' (loader's workers, on the CPU), 'device' (where
            the model is) or 'auto', the device if it is a GPU and recipe and tiles allow it.
        workers: the loader's processes or threads in one rank, None to fit the machine.
        drop_last: drop the last tiles of an epoch that do not fill a global batch.
        seed: seed of everything random.
        deterministic: use deterministic kernels only (slower on a GPU).
        pretrained: weights the backbone starts from (any checkpoint that we can read).
        log_interval: optimiser steps between two lines of metrics.jsonl.
        checkpoint_interval: epochs between two kept ``epoch_N.pth``.
        save_every: also refresh ``latest.pth`` after this many optimiser steps, None for
            the end of each epoch only.
        keep_checkpoints: how many ``epoch_N.pth`` to keep, None for all.
        custom_imports: your own modules to import first, ``dict(imports=['my_methods'])``.
        hooks: further hooks (``type`` in HOOKS).
        work_dir: where everything is written; default ``work_dirs/<config name>``.
    """

    model: dict
    dataset: dict
    optimizer: dict
    schedule: dict
    epochs: Count
    global_batch_size: Count
    accumulate: Count = 1
    base_batch_size: Count | None = None
    amp: Amp = 'auto'
    channels_last: bool = True
    compile: bool = False
    parallel: Literal['ddp', 'fsdp'] = 'ddp'
    clip_grad: Positive | None = None
    clip_grad_by: ClipBy = 'all'
    normalize: Annotated[dict, Channels()] = dataclasses.field(default_factory=_imagenet)
    render: Literal['auto', 'worker', 'device'] = 'auto'
    workers: Whole | None = None
    drop_last: bool = True
    seed: Seed = 0
    deterministic: bool = False
    pretrained: str | None = None
    log_interval: Count = 50
    checkpoint_interval: Count = 10
    save_every: Count | None = None
    keep_checkpoints: Count | None = None
    custom_imports: Annotated[dict, Imports()] | None = None
    hooks: Annotated[list, "a list of dicts with 'type'"] = dataclasses.field(default_factory=list)
    work_dir: str | None = None
