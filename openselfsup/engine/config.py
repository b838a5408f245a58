"""Reading configs: mmengine's Config (``_base_`` inheritance) with strict overrides.

A config is a Python file of plain dicts. Its top-level fields are those of
:class:`PretrainConfig`; each dict with a ``type`` describes one registered class and its
arguments. There are no second copies of anything, so overriding a field in a child config
or with ``--cfg-options`` changes what runs.
"""

import contextlib
import dataclasses
import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from mmengine.config import Config

from ..errors import UserError
from ..shipped import find_config
from ..training.clipping import ClipBy
from ..training.normalization import IMAGENET_MEAN, IMAGENET_STD
from ..values import Amp, Count, Positive, Range, Seed, Whole, accepts
from .config_check import Problem, base_path, config_files, find_problems, locate, own_names
from .overrides import by_view_name, override

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


@dataclasses.dataclass
class PretrainConfig:
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
    normalize: Annotated[dict, Channels()] = dataclasses.field(
        default_factory=lambda: dict(mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD)))
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
    hooks: list = dataclasses.field(default_factory=list)
    work_dir: str | None = None


def load_config(path: str | Path, options: list[str] | None = None) -> Config:
    """Read a config with its bases, apply ``KEY=VALUE`` overrides and check every field.

    Args:
        path: the config file, or the name of one of ours: ``PLM_SSL/r18_bs256_ep200``.
        options: overrides such as ``'optimizer.lr=0.01'``; list items by position,
            ``'hooks.0.interval=5'``. Values are Python literals or ``dict(key=value)``, else
            strings. A dict replaces the one that stands there, as if it had ``_delete_=True``.

    Returns:
        The config with the defaults of :class:`PretrainConfig` filled in.

    Raises:
        UserError: no such file, not Python, or any number of mistakes in the fields: all
            of them are listed with file, line, key path and the nearest valid name.
    """
    path = find_config(path)
    cfg, files = _read(path), config_files(path)
    for name in own_names(cfg, files) - set(PretrainConfig.__annotations__):
        cfg._cfg_dict.pop(name)
    return _checked(cfg, path, files, options)


def check_fields(fields: dict[str, Any], path: Path, files: list[Path],
                 options: list[str] | None = None) -> Config:
    """Make a config of fields that were made from files in another dialect.

    Args:
        fields: the top-level fields.
        path: the file that the config is called after.
        files: where mistakes are looked for: the file and its bases.
        options: overrides, see :func:`load_config`.

    Raises:
        UserError: see :func:`load_config`.
    """
    return _checked(Config(fields, filename=str(path)), path, files, options)


def _checked(cfg: Config, path: Path, files: list[Path], options: list[str] | None) -> Config:
    """Fill in the defaults, apply the overrides, import the user's modules, check every field."""
    for field in dataclasses.fields(PretrainConfig):
        if field.name not in cfg and field.default is not dataclasses.MISSING:
            cfg[field.name] = field.default
        elif field.name not in cfg and field.default_factory is not dataclasses.MISSING:
            cfg[field.name] = field.default_factory()
    translated: list[str] = []
    problems: list[Problem] = []
    for option in options or []:  # each on what the ones before it left
        translated.append(by_view_name(cfg, option))
        if problem := override(cfg, translated[-1]):
            problems.append(problem)
    _import_modules(cfg)
    problems += find_problems(cfg, PretrainConfig)
    if problems:
        raise report(problems, path, files, translated)
    return cfg


def _get_base(base: str, file: str) -> tuple[str, str | None]:
    """Find a base as mmengine does, and one of ours by its name.

    Raises:
        UserError: it lies in another package (``package::config.py``), which is not read.
    """
    if '::' in base:
        raise UserError(f"_base_ '{base}' names a config of another package", where=file,
                        expected='the path of a file, or the name of one of ours')
    return str(base_path(base, file)), None


@contextlib.contextmanager
def _bases_by_name() -> Iterator[None]:
    """Let mmengine find our configs by name in what is read within, and in nothing else."""
    found = Config._get_cfg_path
    Config._get_cfg_path = staticmethod(_get_base)
    try:
        yield
    finally:
        Config._get_cfg_path = staticmethod(found)


def _read(path: Path) -> Config:
    try:
        # Not lazily: what a config imports it may call, and its bases are named by _base_.
        with _bases_by_name():
            return Config.fromfile(str(path), import_custom_modules=False,
                                   format_python_code=False, lazy_import=False)
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f'not valid Python: {error.msg}', where=f'{path}:{error.lineno}') from None
    except FileNotFoundError as error:
        raise UserError(f'a _base_ of this config is missing: {error}', where=str(path)) from None
    except Exception as error:  # a config is code: whatever it raises is the user's to see
        raise UserError(f'{type(error).__name__}: {error}', where=str(path)) from error


def _import_modules(cfg: Config) -> None:
    """Import the user's own modules, which register what the config names."""
    asked = cfg.custom_imports
    if not accepts(asked, PretrainConfig.__annotations__['custom_imports']):
        return  # the check of the fields says so
    import_modules((asked or {}).get('imports', []), 'custom_imports')


def import_modules(names: Iterable[str], where: str) -> None:
    """Import the user's own modules.

    Raises:
        UserError: Python does not find one.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise UserError(f'{error}', where=where,
                            expected='a module that Python finds, for instance with '
                                     'PYTHONPATH=.') from None


def report(problems: list[Problem], path: Path, files: list[Path], options: Iterable[str] = ()
           ) -> UserError:
    """Make one error of all problems, each with the place where it was written.

    Args:
        problems: what is wrong.
        path: the config.
        files: the config and its bases.
        options: overrides that may be the place.
    """
    lines = []
    for problem in problems:
        key = '.'.join(problem.path)
        overridden = [o for o in options if (o.split('=')[0] + '.').startswith(key + '.')]
        place = (f"--cfg-options {overridden[-1]}" if overridden
                 else locate(problem.path, files) or str(path))
        hint = f"; did you mean '{problem.nearest}'?" if problem.nearest else ''
        lines.append(f'{place}: {key}: {problem.what}{hint}')
    if len(lines) == 1:
        return UserError(lines[0])
    return UserError(f'{len(lines)} mistakes in this config:\n  ' + '\n  '.join(lines),
                     where=str(path))
