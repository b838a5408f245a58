"""Find the command that is asked for, read its arguments and run it."""

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from .. import __version__
from ..errors import UserError, nearest
from .run import run

# Read before any module of a command is imported.
COMMANDS = {
    'demo': 'pretrain on the bundled tiles, evaluate, show what happened',
    'prepare': 'official archives and folders of public datasets to what we train on',
    'verify': 'check tiles before training',
    'pack': 'pack tiles into one memory-mapped file, for fast reading',
    'browse': 'draw what a config shows the model',
    'slides browse': 'draw slides: where their tissue is, and tiles of it',
    'slides embed': 'write the features of whole slides, one file of each',
    'slides map': 'draw what such features tell apart, and where a region has its like',
    'print-config': 'print a config as it will run',
    'translate': 'turn a published config into one of ours',
    'count-parameters': 'count the parameters of a model, part by part',
    'train': 'pretrain a backbone',
    'analyze': 'plot the curves of one run or several',
    'extract-backbone': 'extract the backbone of a checkpoint',
    'merge': 'write a checkpoint in parts into one file',
    'publish': 'write a checkpoint to give away, named after its hash',
    'upgrade': 'write an older checkpoint under the names of today',
    'extract': 'write the features of tiles into one file',
    'test': 'accuracy of a classifier that was trained with labels',
    'evaluate': 'linear probe, nearest neighbours, fine-tuning',
    'report': 'write the report of an evaluation, or compare several',
    'convert': 'convert a backbone for detectron2',
    'segment instance': 'fine-tune Mask R-CNN and score it',
    'segment semantic': 'train a U-Net and score it',
    'summarize': 'mean and deviation of several fine-tunes',
}


def main() -> None:
    """Run ``openselfsup COMMAND ...`` and leave with its status."""
    run(lambda: dispatch(sys.argv[1:]))


def command(name: str) -> None:
    """Run one command with the arguments of this process: all that the published scripts do."""
    run(lambda: execute(name, sys.argv[1:]))


def dispatch(words: Sequence[str]) -> int | None:
    """Run the command that ``words`` begin with.

    Args:
        words: the command line behind ``openselfsup``.

    Returns:
        The exit status.

    Raises:
        UserError: there is no such command.
    """
    if words and words[0] == '--version':
        print(f'openselfsup {__version__}')
        return 0
    for length in (2, 1):
        if (name := ' '.join(words[:length])) in COMMANDS:
            return execute(name, words[length:], prog=f'openselfsup {name}')
    group = f'{words[0]} ' if words and any(c.startswith(f'{words[0]} ') for c in COMMANDS) else ''
    rest = words[1:] if group else words
    if rest and rest[0] not in ('-h', '--help'):
        choices = [name.removeprefix(group) for name in COMMANDS if name.startswith(group)]
        raise UserError(f"there is no command '{group}{rest[0]}'", expected=', '.join(choices),
                        nearest=nearest(rest[0], choices))
    print(overview(group))
    return 0 if rest else 2


def execute(name: str, words: Sequence[str], prog: str | None = None) -> int | None:
    """Read the arguments of a command and run it.

    Args:
        name: a key of :data:`COMMANDS`.
        words: its arguments.
        prog: what its usage is told to begin with; default: the name of the script.

    Returns:
        The exit status.
    """
    return module_of(name).main(parse(name, words, prog))


def parse(name: str, words: Sequence[str], prog: str | None = None) -> argparse.Namespace:
    """Read the arguments of a command from its words."""
    parser = parser_of(name, prog)
    parser.words = words
    if getattr(module_of(name), 'INTERMIXED', False):  # options may stand between the words
        return parser.parse_intermixed_args(words)
    return parser.parse_args(words)


class _Parser(argparse.ArgumentParser):
    """Says which option is near to one that there is not, or which field of a config it is."""

    words: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        """Leave with the message, status 2."""
        if message.startswith('unrecognized arguments: '):
            unknown = [word.partition('=')[0] for word in message.split() if word[:2] == '--']
            fields = {option: set_by for option in unknown if (set_by := self._field(option))}
            close = {found for option in unknown if option not in fields
                     and (found := nearest(option, self._option_string_actions, 0.7))}
            if close:
                message += '; did you mean ' + ', '.join(sorted(close)) + '?'
            if fields:
                message += ('; a field of the config is set by --cfg-options '
                            + ' '.join(fields.values()))
        super().error(message)

    def _field(self, option: str) -> str | None:
        """Return KEY=VALUE for an unknown option that is a field of the config, else None."""
        from ..engine.fields import PretrainConfig
        name = option[2:].replace('-', '_')
        if ('--cfg-options' not in self._option_string_actions
                or name.split('.')[0] not in PretrainConfig.__annotations__):
            return None
        words = iter(self.words)
        value = next((word.partition('=')[2] or next(words, '--') for word in words
                      if word.partition('=')[0] == option), '--')
        return shlex.quote(f"{name}={'...' if value.startswith('--') else value}")


def parser_of(name: str, prog: str | None = None) -> _Parser:
    """Return what reads the arguments of a command, and knows its help."""
    module = module_of(name)
    parser = _Parser(prog=prog, description=module.__doc__,
                     formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    return parser


def module_of(name: str) -> ModuleType:
    """Import the module of a command."""
    return importlib.import_module(f".{name.replace(' ', '_').replace('-', '_')}", __package__)


def overview(group: str = '') -> str:
    """Return the list of all commands, or of those whose names begin with ``group``."""
    found = {name: what for name, what in COMMANDS.items() if name.startswith(group)}
    width = max(map(len, found))
    lines = [f'  {name:<{width}}  {what}' for name, what in found.items()]
    return '\n'.join([f'usage: openselfsup {group}COMMAND ...', '',
                      'Self-supervised pretraining on histopathology tiles.', '',
                      'commands:', *lines, '',
                      f'openselfsup {group}COMMAND --help shows the arguments and an example, '
                      'openselfsup --version\nthe version.'])
