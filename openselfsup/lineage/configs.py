"""Published configs → ours: a config in either dialect, by one name."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..engine import config as engine
from ..engine.config import Config, check_fields, report
from ..engine.config_check import Problem
from ..errors import UserError, nearest
from ..shipped import find_config
from ..values import Count, accepts
from . import running
from .data import translate_data
from .fields import Fields, Log, Note, Stop
from .hooks import Rest, translate_hooks
from .models import translate_model
from .reading import PublishedConfig, is_published, read

#: Names at the top of a published config that its trainer reads.
TOP = {'model', 'data', 'optimizer', 'optimizer_config', 'lr_config', 'checkpoint_config',
       'log_config', 'custom_hooks', 'total_epochs', 'prefetch', 'img_norm_cfg', 'use_fp16',
       'load_from', 'resume_from', 'work_dir', 'seed', *running.NOT_NEEDED}
_ALIKE = 0.8  # a name of the file's own that looks more than this like one of TOP is a misspelling


class Translation(NamedTuple):
    """A published config in our dialect.

    Attributes:
        fields: our top-level fields.
        notes: what is not one to one.
        files: the published file and its bases.
        resume: the checkpoint that ``resume_from`` names, None without it.
    """

    fields: dict[str, Any]
    notes: list[Note]
    files: list[Path]
    resume: str | None


class Loaded(NamedTuple):
    """A config that is ready to run, and what to say about it.

    Attributes:
        cfg: of :func:`openselfsup.engine.config.load_config`.
        notes: what a translation has changed; empty for a config of ours.
        resume: the checkpoint that a published config goes on from.
    """

    cfg: Config
    notes: list[Note]
    resume: str | None


def load(path: str | Path, options: list[str] | None = None, processes: int | None = None
         ) -> Loaded:
    """Read a config of ours or a published one.

    Args:
        path: the file, or the name of a config of ours.
        options: overrides of our fields, see :func:`~openselfsup.engine.config.load_config`.
        processes: how many train; None for as many as a published config means.

    Raises:
        UserError: see :func:`~openselfsup.engine.config.load_config` and :func:`translate`.
    """
    path = find_config(path)
    if not is_published(path):
        return Loaded(engine.load_config(path, options), [], None)
    found = translate(path, processes)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of '\\d' in strings of the file that are not raw
        cfg = check_fields(found.fields, path, found.files, options)
    return Loaded(cfg, found.notes, found.resume)


def load_config(path: str | Path, options: list[str] | None = None) -> Config:
    """Return a config of ours or a published one; see :func:`load`."""
    return load(path, options).cfg


def remarks(loaded: Loaded) -> list[str]:
    """Return the lines with which a run of a translated config begins."""
    if not loaded.notes:
        return []
    told = [note for note in loaded.notes if note.kind in ('repaired', 'differs')]
    return [f'published config, translated: {len(loaded.notes)} notes '
            f'(openselfsup translate {loaded.cfg.filename} shows all)', *map(str, told)]


def translate(path: Path, processes: int | None = None) -> Translation:
    """Translate a published config.

    Args:
        path: the file.
        processes: how many train; None for as many as the config means.

    Raises:
        UserError: all keys that nobody knows, and all values that mean nothing here, each with
            its file, line and key path.
    """
    if not is_published(path):
        raise UserError('this config is not in the published dialect', where=str(path),
                        expected='one with data, lr_config and total_epochs')
    published, log = read(path), Log()
    top = Fields(published.values, (), log)
    ours: dict[str, Any] = {}
    for file, written, found in published.repaired:
        log.notes.append(Note('repaired', '_base_', f"'{written}' of {file.name} is not there; "
                              f'read instead: {found}'))
    for part in _model, _run, _batch, _rest:
        try:
            part(top, ours, published, processes)
        except Stop:
            pass
    _own_names(top, published)
    if log.problems:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            raise report(log.problems, path, published.files)
    if ours['accumulate'] == 1:
        del ours['accumulate']
    return Translation(ours, log.notes, published.files, published.values.get('resume_from'))


def _model(top: Fields, ours: dict[str, Any], published: PublishedConfig,
           processes: int | None) -> None:
    """Translate the model and the hooks, some of which are about it."""
    hooks = top.take('custom_hooks', (), list)
    model = top.part('model')
    if (pretrained := model.take('pretrained', None)) is not None:
        ours['pretrained'] = pretrained
    ours['model'] = translate_model(model)
    if found := translate_hooks(hooks, ours['model'], _rest_of(published), top.log):
        ours['hooks'] = found


def _rest_of(published: PublishedConfig) -> Rest:
    """Return what hooks must agree with; None where it is not said, or of another kind."""
    def at(*keys: str) -> Any:
        value: Any = published.values
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value
    passes = at('optimizer_config', 'update_interval')
    return Rest(at('data', 'train', 'data_source'), at('img_norm_cfg'),
                1 if passes is None else passes)


def _run(top: Fields, ours: dict[str, Any], published: PublishedConfig,
         processes: int | None) -> None:
    """Translate what says how long and how fast is trained."""
    schedule, epochs = top.take('lr_config'), top.take('total_epochs', kind=Count)
    ours['optimizer'] = running.translate_optimizer(top.part('optimizer'))
    ours['schedule'] = running.translate_schedule(top.part_of(schedule, 'lr_config'), epochs)
    ours['epochs'] = epochs


def _batch(top: Fields, ours: dict[str, Any], published: PublishedConfig,
           processes: int | None) -> None:
    """Translate the data and the size of a batch, which the number of processes decides."""
    data = top.part('data')
    config = top.part_or_empty('optimizer_config')
    prefetch, norm = top.take('prefetch', False, bool), top.take('img_norm_cfg', None)
    each = data.take('imgs_per_gpu', kind=Count)
    ours.update(translate_data(data, prefetch, norm))
    ours['amp'] = running.precision(top, config)
    ours.update(running.translate_optimizer_config(config))
    meant = _meant_batch(published)
    if processes is None:
        processes = _number('num_gpu', published) or (meant or each) // each or 1
    total = each * processes
    ours['global_batch_size'] = total * ours['accumulate']
    said = f'{each} tiles x {processes} process{"es" * (processes > 1)}'
    if ours['accumulate'] > 1:
        said += f" x {ours['accumulate']} passes of a step"
    said += f" = {ours['global_batch_size']}; the learning rate is not scaled by it"
    if meant and meant not in (total, ours['global_batch_size']):  # names count either
        data.note('differs', f'{said}, and the config is meant for {meant} in {meant // each} '
                  f'processes: start so many, or set global_batch_size={meant * ours["accumulate"]}'
                  f' and accumulate={max(meant // total, 1) * ours["accumulate"]}',
                  'global_batch_size', key='imgs_per_gpu')
    else:
        data.note('kept', said + ('' if meant else ', and nothing in the config says how many '
                  'processes it is for'), 'global_batch_size', key='imgs_per_gpu')


def _meant_batch(published: PublishedConfig) -> int | None:
    """Return the batch of all processes, as a config's own ``batch_size`` or its name says it."""
    found = re.search(r'bs(\d+)', published.path.stem)
    return _number('batch_size', published) or (int(found[1]) if found else None)


def _number(name: str, published: PublishedConfig) -> int | None:
    """Return a count under a name of the file's own, None where it is none."""
    value = published.values.get(name)
    return value if accepts(value, Count) else None


def _rest(top: Fields, ours: dict[str, Any], published: PublishedConfig,
          processes: int | None) -> None:
    """Translate checkpoints and logs; say what is not needed."""
    ours.update(running.translate_checkpoints(top.part_or_empty('checkpoint_config')))
    ours.update(running.translate_log(top.part_or_empty('log_config')))
    ours.update(top.given('work_dir', 'seed'))
    top.take('resume_from', None, str | None)
    if top.take('load_from', None) is not None:
        top.mistake('load_from', "it would start from all of another run's weights; expected None, "
                    'or model.pretrained for those of a backbone')
    for name, why in running.NOT_NEEDED.items():
        top.ignore(why, name)


def _own_names(top: Fields, published: PublishedConfig) -> None:
    """Tell the file's own names, which are allowed, from misspellings."""
    for name in top.left:
        if name in TOP or name in published.used or name.startswith('_'):
            continue  # a mistake stopped us before it, or it stands in an expression
        if close := nearest(name, TOP, _ALIKE):
            top.log.problems.append(Problem((name,), f"the published trainer reads no '{name}'",
                                            close))
        else:
            top.note('ignored', f'{top.left[name]!r}: a name of the file that nothing reads',
                     key=name)
