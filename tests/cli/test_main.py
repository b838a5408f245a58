"""The command `openselfsup`: its commands, their help, and what is said of a typo."""

import shlex
import subprocess
import sys

import pytest

from openselfsup import __version__
from openselfsup.cli.main import COMMANDS, dispatch, parse
from openselfsup.errors import UserError


def test_the_overview_lists_every_command(capsys):
    assert dispatch(['--help']) == 0
    said = capsys.readouterr().out
    assert all(f'  {name} ' in said and what in said for name, what in COMMANDS.items())
    assert dispatch([]) == 2 and capsys.readouterr().out == said
    assert dispatch(['--version']) == 0
    assert capsys.readouterr().out == f'openselfsup {__version__}\n'


def test_an_unknown_command_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="no command 'trian'.*did you mean 'train'"):
        dispatch(['trian', 'config.py'])


def test_an_unknown_option_is_answered_with_the_nearest(capsys):
    for words, told in ((['--work_dirr', 'a'], "--work_dirr a; did you mean --work_dir?\n"),
                        (['--sed=3', '--zzz'], "--sed=3 --zzz; did you mean --seed?\n"),
                        (['--zzz'], 'unrecognized arguments: --zzz\n')):
        with pytest.raises(SystemExit):
            dispatch(['train', 'a.py', *words])
        assert capsys.readouterr().err.endswith(told)


def test_help_and_a_typo_wait_for_no_library():
    code = """
import sys
from openselfsup.cli.main import COMMANDS, dispatch
for words in [['--help'], ['trian'], ['train', 'x', '--epochs', '3'],
              *([*name.split(), '--help'] for name in COMMANDS)]:
    try:
        dispatch(words)
    except (SystemExit, Exception):
        pass
    found = {'torch', 'mmengine', 'numpy', 'cv2', 'matplotlib', 'rich'} & set(sys.modules)
    assert not found, (words, found)
"""
    done = subprocess.run([sys.executable, '-c', code], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('name', COMMANDS)
def test_the_help_of_a_command_shows_examples_that_can_be_run(name, capsys):
    with pytest.raises(SystemExit):
        dispatch([*name.split(), '--help'])
    said = capsys.readouterr().out
    assert said.startswith(f'usage: openselfsup {name} ')
    text = said.split('Example:\n')[1].split('\n\n')[0].replace('\\\n', ' ')
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        words = words[words.index('openselfsup') + 1:]
        assert ' '.join(words[:len(name.split())]) == name
        parse(name, words[len(name.split()):])
