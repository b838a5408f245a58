"""Find the command that is asked for, read its arguments and run it."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

from .. import __version__
from ..errors import UserError, nearest
from .run import run

# Read before any module of a command is imported.
COMMANDS = {
    'train': 'pretrain a backbone',
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
    module = module_of(name)
    parser = parser_of(module, prog)
    # A command whose options may stand between its words says how to read them.
    parse: Callable = getattr(module, 'parse', argparse.ArgumentParser.parse_args)
    return module.main(parse(parser, words))


def module_of(name: str) -> ModuleType:
    """Import the module of a command."""
    return importlib.import_module(f".{name.replace(' ', '_').replace('-', '_')}", __package__)


def parser_of(module: ModuleType, prog: str | None = None) -> argparse.ArgumentParser:
    """Return what reads the arguments of a command."""
    parser = argparse.ArgumentParser(prog=prog, description=module.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    return parser


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
