from pathlib import Path

import pytest

from openselfsup.checkpoints.config_text import read_config_text
from openselfsup.datasets.recipes import view_recipes
from openselfsup.engine.config import load_config
from openselfsup.engine.config_text import config_text
from openselfsup.engine.overrides import split_option
from openselfsup.errors import UserError

REPO = Path(__file__).resolve().parents[2]
CONFIGS = sorted(p for p in (REPO / 'configs').rglob('*.py') if '_base_' not in p.parts)
PLM = REPO / 'configs/PLM_SSL/r18_bs256_ep200.py'


CA2CL = REPO / 'configs/CA2CL/r18_bs1792_ep100.py'


def write(tmp_path: Path, text: str, base: Path = PLM) -> Path:
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = '{base}'\n" + text)
    return path


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: str(p.relative_to(REPO / 'configs')))
def test_every_config_passes_its_own_check(path):
    assert load_config(path).epochs > 0


def test_a_base_that_is_computed_is_named(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(f"epochs = 3\n_base_ = ['{PLM.parent}/' + '{PLM.name}']\n")
    with pytest.raises(UserError, match=r'mine.py:2: _base_ is computed here; expected the path'):
        load_config(path)


def test_overriding_one_field_changes_that_field_only(tmp_path):
    base = load_config(PLM)
    child = load_config(write(
        tmp_path, 'dataset = dict(recipe=dict(steps=dict(jitter=dict(p=0.1))))'))
    assert child.dataset.recipe.steps.jitter.p == 0.1
    assert child.dataset.recipe.steps.jitter.hue == base.dataset.recipe.steps.jitter.hue
    assert list(child.dataset.recipe.steps) == list(base.dataset.recipe.steps)


def test_a_child_changes_one_field_of_one_view(tmp_path):
    text = 'dataset = dict(recipe=dict(strong=dict(steps=dict(clahe=dict(p=0.1)))))'
    child, base = load_config(write(tmp_path, text, CA2CL)), load_config(CA2CL)
    assert list(child.dataset.recipe) == ['strong', 'weak']
    assert child.dataset.recipe.strong.steps.clahe == dict(type='CLAHE', clip=4.0, p=0.1)
    child.dataset.recipe.strong.steps.clahe.p = 0.7
    assert child.to_dict() == base.to_dict()
    # Views that had no names were named by their position.
    assert (load_config(CA2CL, ['dataset.recipe.0.steps.clahe.p=0.1']).to_dict()
            == load_config(CA2CL, ['dataset.recipe.strong.steps.clahe.p=0.1']).to_dict())
    third = load_config(CA2CL, ['dataset.recipe.third=' + str(base.dataset.recipe.weak.to_dict())])
    assert list(third.dataset.recipe) == ['strong', 'weak', 'third']


def test_views_of_a_child_in_all_their_forms(tmp_path):
    recipe = "dict(type='ViewRecipe', size=32, steps=dict())"
    for views, names in [(f'[{recipe}, {recipe}, {recipe}]', ['view 1', 'view 2', 'view 3']),
                         (f'dict(_delete_=True, a={recipe}, b={recipe})', ['a', 'b'])]:
        cfg = load_config(write(tmp_path, f'dataset = dict(recipe={views}, n_views=None)'))
        assert list(view_recipes(cfg.dataset.recipe)) == names
    with pytest.raises(UserError, match="takes no argument 'strong'; to name .*_delete_=True"):
        load_config(write(tmp_path, f'dataset = dict(recipe=dict(strong={recipe}))'))
    with pytest.raises(UserError, match="takes no argument 'weak'; to name .*_delete_=True"):
        load_config(write(tmp_path, f'dataset = dict(recipe={recipe})', CA2CL))


@pytest.mark.parametrize('option, words', [
    ('dataset.recipe.strong.steps.blur.p=2', 'dataset.recipe.strong.steps.blur.p: p must be'),
    ('dataset.recipe.1.steps.hsv.heu=2', "recipe.weak.steps.hsv.heu: .*did you mean 'hue'"),
    ('dataset.recipe.weak.sise=1', "dataset.recipe.weak.sise: .*did you mean 'size'"),
    ('dataset.recipe.other={"size": 3}', "dataset.recipe.other: this recipe has no 'type'"),
    ('dataset.recipe.other=3', "dataset.recipe.other: 'other' must be a dict with 'type'"),
    ('dataset.recipe.weak=None', None)])
def test_mistakes_name_the_view(option, words):
    if words is None:
        assert load_config(CA2CL, [option]).dataset.recipe.weak is None
        return
    with pytest.raises(UserError, match=words):
        load_config(CA2CL, [option])


@pytest.mark.parametrize('value', [0.0, 0.25, 0.5, 0.75, 1.0])
def test_published_lambda_is_what_the_name_says(value):
    path = PLM.with_name(f'r18_bs256_ep200_lambda_{value}.py')
    cfg = load_config(path)
    assert cfg.model.loss_lambda == value
    assert (cfg.global_batch_size, cfg.epochs, cfg.optimizer.lr) == (256, 200, 0.03)


def test_all_mistakes_come_at_once_with_file_line_and_nearest_name(tmp_path):
    path = write(tmp_path, '''
epoch = 5
model = dict(
    backbone=dict(deph=50),
    neck=dict(type='DenseCLNek'))
optimizer = dict(momentun=0.8)
''')
    with pytest.raises(UserError) as caught:
        load_config(path, ['dataset.recipe.steps.jitter.hu=0.2', 'schedule.typo=1'])
    text = str(caught.value)
    assert '6 mistakes' in text
    for line, key, hint in [(3, 'epoch', 'epochs'), (5, 'model.backbone.deph', 'depth'),
                            (6, 'model.neck.type', 'DenseCLNeck'),
                            (7, 'optimizer.momentun', 'momentum')]:
        found = next(row for row in text.splitlines() if f': {key}:' in row)
        assert f'mine.py:{line}:' in found and f"did you mean '{hint}'" in found
    assert '--cfg-options dataset.recipe.steps.jitter.hu=0.2' in text
    assert '--cfg-options schedule.typo=1' in text


def test_an_option_may_name_what_only_the_class_knows():
    cfg = load_config(PLM, ['model.backbone.norm_cfg.type=GN', 'clip_grad=1.0', 'workers=3'])
    assert cfg.model.backbone.norm_cfg.type == 'GN'
    assert (cfg.clip_grad, cfg.workers) == (1.0, 3)


@pytest.mark.parametrize('option, words', [
    ('model.bakbone.depth=18', ["takes no argument 'bakbone'", "did you mean 'backbone'"]),
    ('epochs.first=1', ['has no fields']),
    ('dataset.recipe.steps.new.p=1', ["this recipe step has no 'type'"]),
    ('dataset.recipe.steps.jiter.hue=0.1', ["has no 'type'", "did you mean 'jitter'"]),
    ('hooks.2.interval=1', ['no position in a list of 0']),
    ('nonsense', ['not of the form KEY=VALUE']),
    ('amp=bf61', ["did you mean 'bf16'"]),
    ('global_batch_size=0', ['at least 1']),
    ('lr=0.1', ["unknown field 'lr'; did you mean 'optimizer.lr'?"]),
    ('LR=0.1', ["unknown field 'LR'; did you mean 'optimizer.lr'?"]),
    ('optimiser.lr=0.1', ["unknown field 'optimiser'; did you mean 'optimizer.lr'?"]),
    ('epoch=3', ["unknown field 'epoch'; did you mean 'epochs'?"]),
    ('hooks=Probe', ["hooks must be a list of dicts with 'type', not 'Probe'"]),
    ('hooks=[dict(type=Probe)]', ["hooks: [dict(type=Probe)] is no Python literal",
                                  """such as 'hooks=[dict(type="...")]'"""]),
    ('dataset.source=dict(type=X)', ["""such as 'dataset.source=dict(key="text")'"""]),
])
def test_options_that_lead_nowhere(option, words):
    with pytest.raises(UserError) as caught:
        load_config(PLM, [option])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize('option', ['type=x', 'NOBODY=3'])
def test_no_option_is_a_variable(option):
    with pytest.raises(UserError, match=r"unknown field '\w+'$"):
        load_config(PLM, [option])


def test_option_values_are_python_literals_or_strings():
    assert split_option('a.b=1e-3') == (['a', 'b'], 1e-3)
    assert split_option('a=(1, 2)') == (['a'], (1, 2))
    assert split_option('a=true') == (['a'], True)
    assert split_option('a=[{"b": false, "c": null}]') == (['a'], [{'b': False, 'c': None}])
    assert split_option('a=None') == (['a'], None)
    assert split_option('a=/data/x y=z') == (['a'], '/data/x y=z')


def test_wrong_paths_name_the_nearest(tmp_path):
    with pytest.raises(UserError, match="did you mean 'r18_bs256_ep200.py'"):
        load_config(PLM.with_name('r18_bs256_ep20.py'))
    with pytest.raises(UserError, match=r"bad.py:1: _base_ './nowhere.py' lies neither beside"):
        bad = tmp_path / 'bad.py'
        bad.write_text("_base_ = './nowhere.py'\n")
        load_config(bad)
    with pytest.raises(UserError, match='not valid Python'):
        bad.write_text('model = dict(\n')
        load_config(bad)


def test_a_resolved_config_can_be_read_again(tmp_path):
    cfg = load_config(PLM, ['epochs=3'])
    (tmp_path / 'config.py').write_text(config_text(cfg))
    assert load_config(tmp_path / 'config.py').to_dict() == cfg.to_dict()


VALUES = '''
import enum
from pathlib import Path
import numpy as np
from openselfsup.models.backbones.resnet import ResNet
class Kind(str, enum.Enum):
    RISING = 'alphabetical'
work_dir = Path('out') / 'mine'
epochs = np.int64(3)
optimizer = dict(_delete_=True, type='AdamW', lr=0.03 * np.sqrt(2), betas=np.array([0.9, 0.99]))
model = dict(backbone=dict(type=ResNet, out_indices=range(4, 5)))
dataset = dict(source=dict(root=Path('data')))
normalize = dict(mean=np.array([0.5, 0.5, 0.5]), std=(0.1, np.float32(0.25), 1))
'''


def test_what_a_text_cannot_hold_becomes_what_it_stands_for(tmp_path):
    cfg = load_config(write(tmp_path, VALUES))
    assert (cfg.work_dir, cfg.epochs, cfg.dataset.source.root) == ('out/mine', 3, 'data')
    assert cfg.optimizer.lr == 0.03 * 2 ** 0.5 and cfg.optimizer.betas == [0.9, 0.99]
    assert (cfg.model.backbone.type, cfg.model.backbone.out_indices) == ('ResNet', [4])
    assert list(cfg.normalize.std) == [0.1, 0.25, 1]
    again = read_config_text(config_text(cfg))
    assert again == cfg.to_dict()
    (tmp_path / 'config.py').write_text(config_text(cfg))
    assert load_config(tmp_path / 'config.py').to_dict() == cfg.to_dict()


@pytest.mark.parametrize('line, words', [
    ("hooks = [dict(type='KNNProbeHook', interval=lambda: 1)]", 'interval'),
    ("model = dict(backbone=dict(_delete_=True, type='TimmBackbone', model='resnet18', "
     'act_layer=set))', "mine.py:.*model.backbone.act_layer: act_layer is <class 'set'>, a class "
                        'that nothing registers; expected a number'),
    ("model = dict(backbone=dict(_delete_=True, type='TimmBackbone', model='resnet18', "
     "init_values=float('inf')))", 'init_values is inf, nothing that a run can write')])
def test_what_no_text_can_hold_is_refused(tmp_path, line, words):
    with pytest.raises(UserError, match=words):
        load_config(write(tmp_path, line))


def test_own_modules_are_imported_also_from_an_option(tmp_path, monkeypatch):
    (tmp_path / 'my_own_step.py').write_text(
        'from openselfsup.registry import SCHEDULES\n'
        '@SCHEDULES.register_module()\n'
        'def Mine(base_lr, epochs, steps_per_epoch):\n    return []\n')
    monkeypatch.syspath_prepend(tmp_path)
    options = ['schedule={"type": "Mine"}']
    with pytest.raises(UserError, match="no schedule is called 'Mine'"):
        load_config(PLM, options)
    with pytest.raises(UserError, match='custom_imports: No module named'):
        load_config(PLM, ['custom_imports={"imports": ["not_there"]}', *options])
    cfg = load_config(PLM, ['custom_imports={"imports": ["my_own_step"]}', *options])
    assert cfg.schedule.type == 'Mine'
