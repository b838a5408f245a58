import argparse
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from openselfsup.cli.arguments import add_config_arguments
from openselfsup.cli.run import run
from openselfsup.errors import UserError, nearest

REPO = Path(__file__).resolve().parents[2]


def status_of(main) -> int:
    with pytest.raises(SystemExit) as left:
        run(main)
    return left.value.code


def raising(error):
    def main():
        raise error
    return main


def test_a_users_mistake_is_one_line_and_status_2(capsys):
    error = UserError('no such file', where='a.py', expected='a config', nearest='b.py')
    assert status_of(raising(error)) == 2
    assert capsys.readouterr().err == (
        "error: a.py: no such file; expected a config; did you mean 'b.py'?\n")


def test_a_missing_system_library_is_named_with_its_remedy(capsys):
    error = ImportError('libGL.so.1: cannot open shared object file: No such file or directory')
    assert status_of(raising(error)) == 2
    said = capsys.readouterr().err
    assert 'libGL.so.1' in said and 'apt install libgl1' in said


def test_other_errors_keep_their_traceback():
    with pytest.raises(ImportError, match='of our own'):
        run(raising(ImportError('a mistake of our own')))
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


def test_status_and_interruption_are_handed_on():
    assert status_of(lambda: None) is None
    assert status_of(lambda: 143) == 143
    assert status_of(raising(KeyboardInterrupt())) == 130


def test_nearest_names_only_what_comes_close():
    assert nearest('momentun', ['momentum', 'lr']) == 'momentum'
    assert nearest('DENSECL', ['DenseCL', 'MoCo']) == 'DenseCL'
    assert nearest('zzz', ['momentum', 'lr']) is None


def test_overrides_take_no_other_argument_and_none_replaces_another(capsys):
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    args = parser.parse_args(['c.py', '--cfg-options', 'a=1', 'b=2', '--cfg-options', 'c=3'])
    assert args.config == 'c.py' and args.cfg_options == ['a=1', 'b=2', 'c=3']
    assert parser.parse_args(['c.py']).cfg_options == []
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', 'a=1', 'c.py'])
    assert "'c.py' is not of the form KEY=VALUE; CONFIG comes before" in capsys.readouterr().err


def test_what_the_system_says_of_a_file_is_one_sentence(tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert status_of(lambda: (tmp_path / 'file' / 'x').write_text('')) == 2
    said = capsys.readouterr().err
    assert said == f'error: {tmp_path / "file" / "x"}: part of its path is a file, not a folder\n'
    assert status_of(raising(OSError(errno.ENOSPC, 'No space left on device'))) == 2
    assert capsys.readouterr().err == 'error: the disk is full\n'
    with pytest.raises(OSError, match='of our own'):
        run(raising(OSError('a mistake of our own')))


RANK = ('import sys; from openselfsup.cli.run import run; from openselfsup.errors import '
        'UserError\ndef main():\n    raise UserError(sys.argv[1])\nrun(main)')


def ranks_that_say(messages, tmp_path, **environment):
    """Start a process for each message, as torchrun would; return what they print."""
    processes = [subprocess.Popen(
        [sys.executable, '-c', RANK, message], stderr=subprocess.PIPE, text=True, cwd=REPO,
        env={**os.environ, 'RANK': str(rank), 'WORLD_SIZE': str(len(messages)),
             'TMPDIR': str(tmp_path), 'TORCHELASTIC_ERROR_FILE': str(tmp_path / f'{rank}.json'),
             **environment}) for rank, message in enumerate(messages)]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2] * len(messages)
    return said


def test_a_mistake_of_all_ranks_is_told_once_and_that_of_one_rank_by_it(tmp_path):
    said = ranks_that_say(['no such file', 'no such file', 'a broken disk'], tmp_path)
    assert said == ['error: no such file\n', '', '[rank 2] error: a broken disk\n']
    # torchrun shows these at the end of its report.
    assert json.loads((tmp_path / '2.json').read_text())['message'] == 'error: a broken disk'


def test_nothing_is_kept_back_from_whoever_starts_again(tmp_path):
    for _ in range(2):
        assert ranks_that_say(['no such file'] * 2, tmp_path)[0] == 'error: no such file\n'
        assert ranks_that_say(['alone'], tmp_path) == ['error: alone\n']
