import argparse

import pytest

from openselfsup.engine.cli import add_config_arguments, run
from openselfsup.errors import UserError, nearest


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
