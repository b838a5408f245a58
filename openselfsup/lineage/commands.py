"""A published command line as one of ours."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..errors import UserError


@dataclasses.dataclass
class Command:
    """A command of ours that a published one stands for.

    Attributes:
        name: of the command, such as 'train'.
        words: its arguments.
        notes: what was said that means nothing here, or something else: a sentence each.
        one_process_per_gpu: whether every GPU that can be seen gets a process.
        environment: variables to set before it starts.
    """

    name: str
    words: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    one_process_per_gpu: bool = False
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


def without_blanks(words: Sequence[str]) -> list[str]:
    r"""Return words without blank ones, which a backslash before a blank makes.

    CA2CL's README has such lines: ``--ft_epoch 40 \ `` hands over the word ' ', and the shell
    takes what follows for other commands.

    Raises:
        UserError: the last word is blank, so the flags of the next lines never arrived.
    """
    if words and not words[-1].strip() and words[-1]:
        raise UserError('the command ends in a backslash and a blank, so that the shell cut it '
                        'there and the flags of the next lines did not arrive',
                        where=f'behind {words[-2]}' if len(words) > 1 else 'command line',
                        expected='a backslash as the last character of a line')
    return [word for word in words if word.strip() or not word]


def evaluation(words: Sequence[str]) -> Command:
    """Return what CA2CL's ``python ft_le.py`` stands for, whose README's lines cut commands.

    Raises:
        UserError: the last word is blank, or no weights are named: the README's second command has
            no backslashes, so that its first line is all that arrives.
    """
    words = without_blanks(words)
    if words and not {'--model_path', '-h', '--help'} & {word.split('=')[0] for word in words}:
        raise UserError('no weights are named; where a line of the command does not end in a '
                        'backslash, the flags of the next ones do not arrive',
                        where=f'behind {words[-1]}',
                        expected="--model_path CKPT, or --model_path '' for random weights")
    return Command('evaluate', words)


def typed(name: str, value: Any, like: Any, where: str) -> Any:
    """Return a value in the type of a default: 'False' is false, '6e-4' a number.

    Args:
        name: of the setting.
        value: text of a flag, or what YAML made of it.
        like: the default.
        where: what messages name.

    Raises:
        UserError: it is of no such type.
    """
    text = str(value).strip()
    if isinstance(like, bool):
        words = {'true': True, '1': True, 'yes': True, 'false': False, '0': False, 'no': False}
        if text.lower() in words:
            return words[text.lower()]
        expected = 'True or False'
    elif isinstance(like, (int, float)):
        kind = type(like)
        try:
            return kind(text)
        except ValueError:
            expected = 'a whole number' if kind is int else 'a number'
    else:
        return text
    raise UserError(f'{name} is {value!r}', where=where, expected=expected)
