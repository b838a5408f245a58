"""Reading configs: mmengine's Config (``_base_`` inheritance) with strict overrides.

A config is a Python file of plain dicts. Its top-level fields are those of
:class:`Settings`; each dict with a ``type`` describes one registered class and its
arguments. There are no second copies of anything, so overriding a field in a child config
or with ``--cfg-options`` changes what runs.
"""

import ast
import dataclasses
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from ..errors import UserError, nearest


@dataclasses.dataclass
class Settings:
    """The top-level fields of a training config, with their defaults.

    Attributes:
        model: the algorithm with its backbone, neck and so on (``type`` in ALGORITHMS).
        dataset: what delivers views (``type`` in DATASETS).
        optimizer: ``type`` SGD, AdamW or LARS; ``lr`` is for ``base_batch_size`` if given.
        schedule: learning rate over the run (``type`` in SCHEDULES).
        epochs: passes over the tiles.
        global_batch_size: tiles of one optimiser step, over all ranks and accumulation.
        accumulate: forward / backward passes of one optimiser step.
        base_batch_size: if given, lr is multiplied by global_batch_size / base_batch_size.
        amp: 'bf16', 'fp16' (GPU only) or 'off'.
        channels_last: memory format of images and convolutions.
        compile: compile the forward pass with torch.compile.
        clip_grad: largest L2 norm of the gradient, None for no clipping.
        normalize: ``mean`` and ``std`` of the input channels, for values in [0, 1].
        workers: loader threads of one rank, None to fit the machine.
        drop_last: drop the last tiles of an epoch that do not fill a global batch.
        seed: seed of everything random.
        deterministic: use deterministic kernels only (slower on a GPU).
        pretrained: weights the backbone starts from (any checkpoint that we can read).
        log_interval: optimiser steps between two lines of metrics.jsonl.
        checkpoint_interval: epochs between two kept ``epoch_N.pth``.
        save_every: also refresh ``latest.pth`` after this many optimiser steps, None for
            the end of each epoch only.
        keep_checkpoints: how many ``epoch_N.pth`` to keep, None for all.
        hooks: further hooks (``type`` in HOOKS).
        work_dir: where everything is written; default ``work_dirs/<config name>``.
    """

    model: dict
    dataset: dict
    optimizer: dict
    schedule: dict
    epochs: int
    global_batch_size: int
    accumulate: int = 1
    base_batch_size: int | None = None
    amp: str = 'bf16'
    channels_last: bool = True
    compile: bool = False
    clip_grad: float | None = None
    normalize: dict = dataclasses.field(
        default_factory=lambda: dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]))
    workers: int | None = None
    drop_last: bool = True
    seed: int = 0
    deterministic: bool = False
    pretrained: str | None = None
    log_interval: int = 50
    checkpoint_interval: int = 10
    save_every: int | None = None
    keep_checkpoints: int | None = None
    hooks: list = dataclasses.field(default_factory=list)
    work_dir: str | None = None


def load_config(path: str | Path, options: list[str] | None = None) -> Config:
    """Read a config with its bases and apply ``KEY=VALUE`` overrides.

    Args:
        path: the config file.
        options: overrides such as ``'optimizer.lr=0.01'``; list items by position,
            ``'dataset.recipe.steps.0.p=1'``. Values are Python literals, else strings.

    Returns:
        The config with the defaults of :class:`Settings` filled in. Use
        :func:`openselfsup.engine.config_check.check_config` before building from it.

    Raises:
        UserError: no such file, not Python, or an override that leads nowhere.
    """
    path = Path(path)
    if not path.is_file():
        siblings = path.parent.glob('*.py') if path.parent.is_dir() else ()
        raise UserError('no such config file', where=str(path),
                        nearest=nearest(path.name, (p.name for p in siblings)))
    try:
        cfg = Config.fromfile(str(path), format_python_code=False)
    except SyntaxError as error:
        raise UserError(f'not valid Python: {error.msg}', where=f'{path}:{error.lineno}') from None
    except FileNotFoundError as error:
        raise UserError(f'a _base_ of this config is missing: {error}', where=str(path)) from None
    except Exception as error:  # a config is code: whatever it raises is the user's to see
        raise UserError(f'{type(error).__name__}: {error}', where=str(path)) from error
    for option in options or []:
        _override(cfg, option)
    for field in dataclasses.fields(Settings):
        if field.name not in cfg and field.default is not dataclasses.MISSING:
            cfg[field.name] = field.default
        elif field.name not in cfg and field.default_factory is not dataclasses.MISSING:
            cfg[field.name] = field.default_factory()
    return cfg


def split_option(option: str) -> tuple[list[str], Any]:
    """Split ``'a.b=value'`` into its key path and its parsed value."""
    key, equals, text = option.partition('=')
    if not equals or not key:
        raise UserError(f"'{option}' is not of the form KEY=VALUE", where='--cfg-options')
    words = {'true': True, 'false': False, 'none': None, 'null': None}
    if text.lower() in words:
        return key.split('.'), words[text.lower()]
    try:
        return key.split('.'), ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return key.split('.'), text


def _override(cfg: Config, option: str) -> None:
    keys, value = split_option(option)
    place: Any = cfg._cfg_dict
    for depth, key in enumerate(keys[:-1]):
        place = _child(place, key, '.'.join(keys[:depth + 1]))
    last, full = keys[-1], '.'.join(keys)
    if isinstance(place, list):
        _child(place, last, full)
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = ConfigDict(value) if isinstance(value, dict) else value
    else:
        raise UserError(f"'{full}' leads into {place!r}, which has no fields",
                        where='--cfg-options')


def _child(place: Any, key: str, path: str) -> Any:
    if isinstance(place, list):
        if key.isdigit() and int(key) < len(place):
            return place[int(key)]
        raise UserError(f"'{path}' is no position in a list of {len(place)}",
                        where='--cfg-options', expected=f'0 to {len(place) - 1}')
    if isinstance(place, dict) and key in place:
        return place[key]
    choices = list(place) if isinstance(place, dict) else []
    raise UserError(f"nothing is called '{path}' in this config", where='--cfg-options',
                    expected='one of ' + ', '.join(choices) if choices else None,
                    nearest=nearest(key, choices))
