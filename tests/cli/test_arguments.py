"""What arguments may be, and what is said of others."""

import pytest

from openselfsup.cli.arguments import folder_or_config
from openselfsup.cli.main import parse
from openselfsup.errors import UserError

INSTANCE = ['--config-file', 'GlaS/GlaS_R_18_FPN_short']


@pytest.mark.parametrize('name, words, told', [
    ('segment instance', [*INSTANCE, '--num-gpus', '-1'], 'a whole number of at least 0, not -1'),
    ('segment instance', [*INSTANCE, '--cpu-processes', '0'], 'of at least 1, not 0'),
    ('evaluate', ['--gpu_index', 'x'], 'a whole number of at least 0, not x'),
    ('browse', ['demo/plm_r18', '--n', '0'], 'a whole number of at least 1, not 0')])
def test_a_number_out_of_its_range_is_refused(name, words, told, capsys):
    with pytest.raises(SystemExit) as left:
        parse(name, words)
    assert left.value.code == 2 and told in capsys.readouterr().err


@pytest.mark.parametrize('words, told', [
    (['NAME', '--epochs', '3'], 'a field of the config is set by --cfg-options epochs=3\n'),
    (['--epochs', '3', 'NAME'], 'a field of the config is set by --cfg-options epochs=3\n'),
    (['NAME', '--optimizer.lr=0.1', '--clip-grad', '--sed', '3'], 'did you mean --seed?; a field '
     'of the config is set by --cfg-options optimizer.lr=0.1 clip_grad=...\n'),
    (['NAME', '--lr', '3'], 'unrecognized arguments: --lr 3\n')])
def test_a_field_given_as_a_flag_is_answered_with_how_it_is_set(words, told, capsys):
    with pytest.raises(SystemExit):
        parse('train', words)
    assert capsys.readouterr().err.endswith(told)


def test_a_folder_of_tiles_or_a_config_is_found_or_answered_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folder_or_config('demo/plm_r18', labels=True)['model']['type'] == 'PLM'
    with pytest.raises(UserError, match="no such folder or config; did you mean 'demo/plm_r18'"):
        folder_or_config('demo/plm_r19', labels=True)
    (tmp_path / 'tiles').mkdir()
    with pytest.raises(UserError, match="no such folder; did you mean 'tiles'"):
        folder_or_config('tile', labels=True)
    with pytest.raises(UserError, match='tiles'):
        folder_or_config('tiles', labels=True)
