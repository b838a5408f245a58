"""Arguments that several commands share."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, located
from ..shipped import find_config, is_config
from ..values import AMP, accepts, describe

if TYPE_CHECKING:
    from ..datasets import ImageFolder


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the positional ``config`` and ``--cfg-options`` to a tool's arguments."""
    parser.add_argument('config', help='config file, or the name of one of ours: demo/plm_r18')
    add_overrides(parser, 'override single fields, e.g. optimizer.lr=0.01 epochs=5')


def add_overrides(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--cfg-options``: it takes KEY=VALUE only, and may be given several times."""
    parser.add_argument('--cfg-options', nargs='+', action='extend', default=[], type=_pair,
                        metavar='KEY=VALUE', help=what)


def add_amp(parser: argparse._ActionsContainer, what: str, default: str | None = None) -> None:
    """Add ``--amp``: the precisions of :data:`openselfsup.values.AMP`."""
    parser.add_argument('--amp', choices=AMP, help=what, default=default)


def checked(annotation: Any) -> Callable[[str], int | float]:
    """Return what argparse takes as the ``type`` of a number, such as ``checked(Count)``.

    Args:
        annotation: of :mod:`openselfsup.values`: its type and its range.
    """
    def parse(text: str) -> int | float:
        for kind in (int, float):
            try:
                value = kind(text)
            except ValueError:
                continue
            if accepts(value, annotation):
                return value
            break
        raise argparse.ArgumentTypeError(f'must be {describe(annotation)}, not {text}')
    return parse


def folder_or_config(target: str, labels: bool) -> 'ImageFolder | dict[str, Any]':
    """Return the tiles of a folder, or what a config says, as plain types.

    Args:
        target: a folder of tiles, a config file, or the name of a config of ours.
        labels: whether the names of a folder's folders are labels.

    Raises:
        UserError: it is neither, or one that cannot be used.
    """
    from ..datasets import ImageFolder
    from ..lineage.configs import load_config
    if is_config(target):
        return load_config(target).to_dict()
    try:
        return ImageFolder(target, labels=labels)
    except UserError as no_folder:
        if Path(target).exists():
            raise
        try:
            find_config(target)
        except UserError as no_config:
            close = [error.nearest for error in (no_config, no_folder) if error.nearest]
            if no_config.nearest:
                raise UserError('no such folder or config', where=located(target),
                                nearest="' or '".join(close)) from None
        raise


def name_runs(runs: list[str]) -> dict[str, Path]:
    """Name each run: as given before '=', else after its folder.

    Args:
        runs: ``RUN`` or ``NAME=RUN``, where RUN is a folder or its ``metrics.jsonl``.

    Raises:
        UserError: two runs have the same name.
    """
    named: dict[str, Path] = {}
    for text in runs:
        name, equals, path = text.partition('=')
        if not equals or Path(text).exists():
            path = text
            folder = Path(path).parent if Path(path).suffix == '.jsonl' else Path(path)
            name = folder.resolve().name
        if name in named:
            raise UserError(f"two runs are called '{name}'", where=text,
                            expected=f'a name for each: first={named[name]} second={path}')
        named[name] = Path(path)
    return named


def _pair(word: str) -> str:
    if '=' not in word:  # an option that takes several words takes a CONFIG behind them too
        raise argparse.ArgumentTypeError(f"'{word}' is not of the form KEY=VALUE; CONFIG comes "
                                         'before --cfg-options')
    return word
