"""Every key of published configs with a value of another kind: one sentence each, or a change."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_published_configs import STEPS, options

from openselfsup.errors import UserError
from openselfsup.lineage import configs
from openselfsup.lineage.configs import load
from openselfsup.lineage.reading import PublishedConfig, read

OTHERS = ['OpenSelfSup/configs/selfsup/byol/r50_bs256_accumulate16_ep300.py',
          'OpenSelfSup/configs/selfsup/moco/r50_v1_fp16.py',
          'OpenSelfSup/configs/benchmarks/linear_classification/imagenet/r50_multihead_sobel.py',
          'OpenSelfSup/configs/benchmarks/linear_classification/places205/r50_multihead.py',
          'OpenSelfSup/configs/benchmarks/semi_classification/imagenet_1percent/'
          'r50_lr0_01_head10.py',
          'OpenSelfSup/configs/classification/cifar10/r50.py']
FEW: list[Any] = [{'type': 'x'}]
MANY: list[Any] = [*FEW, ['a'], None, 'text', '', -1, 0.5, 1e9, float('nan'), [], {}, b'x',
                   object]

NOTHING = {'optimizer_config', 'checkpoint_config', 'log_config'}  # None says as much as {}


def paths(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yield the key paths of all dicts, lists and leaves below a value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else (
        enumerate(value) if isinstance(value, (list, tuple)) else ())
    for key, item in items:
        yield from paths(item, (*path, key))


def at(value: Any, path: tuple) -> Any:
    for key in path:
        value = value[key]
    return value


def changed(value: Any, path: tuple, new: Any) -> Any:
    """Return a copy of a value with another one at a key path."""
    if not path:
        return new
    key, *rest = path
    if isinstance(value, dict):
        return {**value, key: changed(value[key], tuple(rest), new)}
    items = list(value)
    items[key] = changed(items[key], tuple(rest), new)
    return type(value)(items)


def outcome(published: PublishedConfig, monkeypatch) -> Any:
    """Return all that a config leads to, or the sentences that refuse it."""
    monkeypatch.setattr(configs, 'read', lambda path: published)
    try:
        found = load(published.path, options(str(published.path)), 1)
    except UserError as error:
        return str(error)
    return found.cfg.to_dict(), list(map(str, found.notes)), found.resume


def check(names: list[str], wrong: list[Any], monkeypatch) -> int:
    """Put wrong values at every key of some configs, equal keys once; return how many."""
    seen, count, faults = set(), 0, []
    for name in names:
        published = read(Path(name))
        whole = outcome(published, monkeypatch)
        assert isinstance(whole, tuple), whole
        for path in paths(published.values):
            value, key = at(published.values, path), '.'.join(map(str, path))
            kind = [type(value), *(part for part in path if isinstance(part, str))]
            if path[0] == 'model':
                kind.append(published.values['model']['type'])
            if path[0] not in configs.TOP or tuple(kind) in seen or (
                    path[0] == 'img_norm_cfg' and not published.values.get('prefetch')):
                continue  # img_norm_cfg is read through the pipeline, where it is checked
            if path[:3] == ('data', 'train', 'data_source') and options(name):
                continue  # other tiles are there
            if path[0] == 'custom_hooks' and len(path) > 2 and (
                    at(published.values, path[:2])['type'] == 'ValidateHook'):
                continue  # a note says that nothing of it is read
            seen.add(tuple(kind))
            for new in wrong:
                if type(new) is type(value) or new == value:
                    continue  # of the same kind, or 0 for False
                if new is None and key in NOTHING:
                    continue
                other = PublishedConfig(published.path, changed(published.values, path, new),
                                        published.files, published.repaired, published.used)
                count += 1
                try:
                    said = outcome(other, monkeypatch)
                except Exception as error:  # what a user would see as a traceback
                    faults.append(f'{name}: {key}={new!r}: {error!r}')
                    continue
                if said == whole:
                    faults.append(f'{name}: {key}={new!r} goes unnoticed')
                if isinstance(said, str):
                    assert len(said) < 1000 and said.count('\n') < 8, said
    assert not faults, '\n'.join(faults)
    return count


def test_no_value_of_another_kind_goes_unnoticed_or_ends_in_a_traceback(there, monkeypatch):
    assert check([STEPS[1], OTHERS[0], STEPS[9]], FEW, monkeypatch) > 100


@pytest.mark.slow
@pytest.mark.parametrize('name', STEPS + OTHERS)
def test_no_value_of_any_kind_does(name, there, monkeypatch):
    # 'text' for a bool or a number, 1e9 for a momentum, an empty list for one that is full
    assert check([name], MANY, monkeypatch) > 300
