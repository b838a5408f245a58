"""Modules of the user's own that a config imports first."""

from pathlib import Path

import pytest

from openselfsup.engine.config import load_config
from openselfsup.engine.own_modules import import_modules
from openselfsup.errors import UserError

FOUND = 'a module that Python finds, for instance with PYTHONPATH=.'


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    """Lie in a folder that Python searches."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path('my_parts_of_mine.py').write_text('import os\n\nimport not_installed\n')
    Path('lazy_parts.py').write_text('from importlib import import_module\n\n\n\n'
                                     "import_module('not_installed')\n")
    package = Path('my_package_of_mine')
    package.mkdir()
    (package / '__init__.py').write_text('')
    (package / 'methods.py').write_text('from .gone import nothing\n')


@pytest.mark.parametrize('name, said', [
    ('my_parts_of_mine', "my_parts_of_mine.py:3 imports 'not_installed', which Python does not "
     'find'),
    ('lazy_parts', "lazy_parts.py:5 imports 'not_installed', which Python does not find"),
    ('my_package_of_mine.methods', f"{Path('my_package_of_mine', 'methods.py')}:1 imports "
     "'my_package_of_mine.gone', which Python does not find"),
    ('my_parts_of_mime', f"No module named 'my_parts_of_mime'; expected {FOUND}; did you mean "
     "'my_parts_of_mine'?"),
    ('my_package_of_mine.metods', f"No module named 'my_package_of_mine.metods'; expected {FOUND}; "
     "did you mean 'my_package_of_mine.methods'?"),
    ('my_packages_of_mine', f"No module named 'my_packages_of_mine'; expected {FOUND}; did you "
     "mean 'my_package_of_mine'?"),
    ('qqq', f"No module named 'qqq'; expected {FOUND}"),
    ('my_parts_of_mine.py', "'my_parts_of_mine.py' is the name of a file; expected the name of a "
     "module, without .py; did you mean 'my_parts_of_mine'?"),
    ('./my_package_of_mine/methods.py', "'./my_package_of_mine/methods.py' is the name of a file; "
     "expected the name of a module, without .py; did you mean 'my_package_of_mine.methods'?")])
def test_a_module_that_is_not_there_is_told_from_what_it_imports(name, said):
    with pytest.raises(UserError) as caught:
        import_modules([name], 'custom_imports')
    assert str(caught.value) == f'custom_imports: {said}'


def test_a_list_of_modules_that_is_none_is_told_alone():
    Path('mine.py').write_text("_base_ = 'demo/simclr_r18'\ncustom_imports = 'my_parts_of_mine'\n"
                               "model = dict(_delete_=True, type='Mine', own=1)\n")
    with pytest.raises(UserError) as caught:
        load_config('mine.py')
    assert str(caught.value) == (
        'mine.py:2: custom_imports: custom_imports must be a dict of the form '
        "dict(imports=['my_methods']) or None, not 'my_parts_of_mine'")
