"""What is wrong with a config is told with the file and the line where it is mended."""

from pathlib import Path

import pytest

from openselfsup.engine.config import load_config
from openselfsup.errors import UserError


def refusal(name: str, options: list[str] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_config(name, options)
    return str(caught.value)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_misspelt_base_is_told_with_its_line_and_the_nearest_name():
    Path('mine.py').write_text("epochs = 3\n_base_ = 'SimCLR/r18_smal.py'\n")
    said = refusal('mine.py')
    assert said.startswith("mine.py:2: _base_ 'SimCLR/r18_smal.py' lies neither beside this config "
                           "nor among ours; did you mean 'SimCLR/r18_small'")
    Path('parts').mkdir()
    Path('parts/tiles.py').write_text('dataset = dict()\n')
    Path('mine.py').write_text("_base_ = [\n    'SimCLR/r18_small',\n    'parts/tile.py']\n")
    assert refusal('mine.py').startswith("mine.py:3: _base_ 'parts/tile.py' lies")
    assert refusal('mine.py').endswith("did you mean 'parts/tiles.py'?")
    Path('mine.py').write_text("_base_ = ''\n")
    assert refusal('mine.py').startswith("mine.py:1: _base_ '' lies neither")


@pytest.mark.parametrize('base, said', [
    ('5', 'mine.py:1: _base_ is 5; expected the path of a config, or a list of paths'),
    ("'mmdet::x.py'", "mine.py:1: _base_ 'mmdet::x.py' names a config of another package; "
                      'expected the path of a file, or the name of one of ours')])
def test_a_base_that_is_no_path_is_refused(base, said):
    Path('mine.py').write_text(f'_base_ = {base}\n')
    assert refusal('mine.py') == said


def test_bases_in_a_circle_are_named():
    Path('mine.py').write_text("_base_ = 'mine.py'\n")
    assert refusal('mine.py') == ('mine.py:1: the bases of this config lead back to one of them: '
                                  'mine.py -> mine.py')
    Path('top.py').write_text("_base_ = 'a.py'\n")
    Path('a.py').write_text("_base_ = 'b.py'\n")
    Path('b.py').write_text("\n_base_ = ['a.py']\n")
    assert refusal('top.py') == ('b.py:2: the bases of this config lead back to one of them: '
                                 'top.py -> a.py -> b.py -> a.py')


@pytest.mark.parametrize('line, said', [
    ('x = nothing', "NameError: name 'nothing' is not defined"),
    ("X = open('nowhere.txt')", 'FileNotFoundError: '),
    ("import helper", "ZeroDivisionError: division by zero"),
    ('X = (', "not valid Python: '(' was never closed"),
    ('return', "not valid Python: 'return' outside function")])
def test_what_python_says_of_a_base_comes_with_its_line(line, said, monkeypatch):
    monkeypatch.syspath_prepend('.')
    Path('helper.py').write_text('\n\n\n1 / 0\n')
    Path('base.py').write_text(f"_base_ = 'SimCLR/r18_small'\nepochs = 3\n{line}\n")
    Path('mine.py').write_text("_base_ = 'base.py'\n")
    assert f'base.py:3: {said}' in refusal('mine.py')


SOURCE = "_base_ = 'demo/simclr_r18'\ndataset = dict(source=dict(\n    type='{}', {}))\n"


def test_what_a_former_type_took_is_told_with_the_line_of_the_new_one():
    Path('mine.py').write_text(SOURCE.format('ImageList', "list_file='list.txt'"))
    said = refusal('mine.py')
    assert "small_tiles.py:6: dataset.source.labels: ImageList takes no argument 'labels'" in said
    assert said.endswith('; `type` was changed in mine.py:3; `_delete_=True` there begins anew')
    Path('list.txt').write_text('')
    Path('mine.py').write_text(SOURCE.format('ImageList', "list_file='list.txt', _delete_=True"))
    assert load_config('mine.py').dataset.source == dict(type='ImageList', list_file='list.txt')


@pytest.mark.parametrize('kind', ['ImageList', 'ImageFolder'])
def test_a_type_that_did_not_change_is_not_blamed(kind):
    Path('mine.py').write_text(SOURCE.format(kind, 'lables=True'))  # written beside the type
    said = next(line for line in refusal('mine.py').splitlines() if 'lables' in line)
    assert 'mine.py:3: dataset.source.lables:' in said and 'was changed' not in said
    Path('child.py').write_text(f"_base_ = 'mine.py'\ndataset = dict(source=dict(type='{kind}'))\n")
    said = next(line for line in refusal('child.py').splitlines() if 'lables' in line)
    assert 'mine.py:3: dataset.source.lables:' in said and 'was changed' not in said


def test_a_type_that_an_option_changed_is_told():
    options = ['dataset.source.type=ImageList', 'dataset.source.list_file=list.txt']
    assert refusal('demo/simclr_r18', options).endswith(
        '; `type` was changed in --cfg-options dataset.source.type=ImageList; '
        'dataset.source._delete_=True before it begins anew')
    assert load_config('demo/simclr_r18', ['dataset.source._delete_=True', *options])
    whole = 'dataset.source=dict(type="ImageList", list_file="x", labels=True)'
    assert refusal('demo/simclr_r18', [whole]).startswith(
        f"--cfg-options {whole}: dataset.source.labels: ImageList takes no argument 'labels'")
