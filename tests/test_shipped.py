"""Configs of ours are found by their names, from anywhere; a file of the user's wins."""

from pathlib import Path

import pytest

from openselfsup.engine.config import load_config
from openselfsup.errors import UserError
from openselfsup.shipped import ROOT, find_config, is_config

NAME = 'PLM_SSL/r18_bs256_ep200_lambda_1.0'
OURS = ROOT / f'configs/{NAME}.py'


@pytest.mark.parametrize('name', [NAME, f'{NAME}.py', f'configs/{NAME}', f'configs/{NAME}.py'])
def test_a_config_has_a_name_that_is_known_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == OURS and is_config(name)
    assert load_config(name).model.loss_lambda == 1.0


def test_the_yaml_of_segmentation_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = 'segmentation/detection/configs'
    for name in ('GlaS/GlaS_R_18_FPN_1x', f'{folder}/GlaS/GlaS_R_18_FPN_1x.yaml'):
        assert find_config(name, folder, '.yaml') == ROOT / folder / 'GlaS/GlaS_R_18_FPN_1x.yaml'


def test_a_file_of_the_users_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'PLM_SSL').mkdir()
    Path(f'{NAME}.py').write_text("_base_ = ['../mine.py']\nseed = 3\n")
    Path('mine.py').write_text("_base_ = 'MoCo/r18_v2_bs256_ep200'\nepochs = 7\n")
    assert find_config(NAME) == Path(f'{NAME}.py')
    cfg = load_config(NAME)
    assert (cfg.seed, cfg.epochs, cfg.model['type']) == (3, 7, 'MoCo')


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no such config file; did you mean '(PLM_SSL/\S+' or ')+"):
        find_config('PLM_SSL/r18_bs256_ep200_lamda_1.0')
    with pytest.raises(UserError, match='no such config file$'):
        find_config('nothing like it')
    (tmp_path / 'tiles').mkdir()
    assert not is_config('tiles') and not is_config('no_folder')


@pytest.mark.parametrize('name', ['plm_r18', 'ca2cl_r18'])
def test_a_copied_demo_still_finds_its_tiles(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / f'configs/demo/{name}.py').read_text()
    Path('copied.py').write_text(text.replace("'../_base_/", "'configs/_base_/"))
    for config in ('copied.py', f'demo/{name}'):
        cfg = load_config(config)
        assert cfg.dataset.source.root == str(ROOT / 'data/demo') and 'shipped' not in cfg


def test_a_mistake_in_a_child_of_a_shipped_config_is_located(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('mine.py').write_text(f"_base_ = '{NAME}'\nepoch = 5\n")
    with pytest.raises(UserError, match=r"^mine.py:2: epoch: .*did you mean 'epochs'"):
        load_config('mine')
    Path('mine.py').write_text("_base_ = 'PLM_SSL/none'\n")
    with pytest.raises(UserError, match=r"mine.py:1: _base_ 'PLM_SSL/none' lies neither beside"):
        load_config('mine')
