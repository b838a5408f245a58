"""Every argument of every registered class refuses wrong types and values out of range."""

import inspect
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import nn

from openselfsup import registry
from openselfsup.engine.config import load_config
from openselfsup.engine.config_check import filled_in, find_problems
from openselfsup.engine.fields import PretrainConfig
from openselfsup.errors import UserError
from openselfsup.training.preprocessor import Preprocessor
from openselfsup.training.step import TrainStep
from openselfsup.values import Range, accepts, annotations, fault
from tests.engine.test_config import PLM, write

NUMBERS = ('lr', 'p', 'size', 'temperature', 'weight', 'queue_len', 'interval')


def classes() -> list[tuple[registry.Registry, str, type]]:
    return [(table, name, table.get(name)) for table in registry.REGISTRIES
            for name in table.names()
            if table.get(name).__module__.startswith(('openselfsup', 'torch'))]


def scalars(annotation: Any) -> list[Any]:
    """Return the Annotated numbers in an annotation, wherever they stand in it."""
    if get_origin(annotation) is Annotated and get_args(annotation)[0] in (int, float):
        return [annotation]
    return [found for arg in get_args(annotation) for found in scalars(arg)]


def arguments() -> list[tuple]:
    found = [('PretrainConfig', name, hint) for name, hint in
             get_type_hints(PretrainConfig, include_extras=True).items()]
    for table, name, cls in classes():
        hints = annotations(cls)
        parameters = inspect.signature(cls).parameters.values()
        found += [(name, p.name, hints.get(p.name)) for p in parameters
                  if p.kind is not p.VAR_KEYWORD and p.name not in filled_in(table, cls)]
    return found


@pytest.mark.parametrize('owner, name, hint', arguments(), ids=lambda v: v if isinstance(v, str)
                         else '')
def test_each_argument_refuses_wrong_types_and_values_in_one_sentence(owner, name, hint):
    assert hint is not None, f'{owner}: {name} has no annotation'
    assert hint not in (int, float), f'{owner}: {name} has no range'
    wrong = [object(), b'bytes', float('nan'), float('inf'), -float('inf'), 1j]
    if not accepts(True, hint):
        wrong += [True]
    for number in scalars(hint):
        ends = [rule for rule in get_args(number)[1:] if isinstance(rule, Range)]
        assert ends, f'{owner}: {name} has no range'
        wrong += [end.low - 1 for end in ends if end.low > -float('inf')]
        wrong += [end.high + 1 for end in ends if end.high < float('inf')]
        wrong += [end.low for end in ends if end.above] + [end.high for end in ends if end.below]
        wrong += ['0.1', (0, 3), [[]]]
    lists = accepts((0.1, 1), hint) or accepts((0, 1), hint)
    wrong = [value for value in wrong if not (isinstance(value, tuple) and lists)]
    for value in wrong:
        said = fault(value, hint)
        assert said and said.startswith('must be ') and '\n' not in said, (value, hint)


@pytest.mark.parametrize('option, words', [
    ('optimizer.lr=0,3', 'a number of at least 0, not (0, 3); a decimal is written with a point'),
    ('optimizer.lr=-0.1', 'a number of at least 0, not -0.1'),
    ('optimizer.momentum=nan', "a number of at least 0, not 'nan'"),
    ('optimizer.decay_norm_and_bias=3', 'must be True or False, not 3'),
    ('seed=-1', 'a whole number from 0 to 4294967295'),
    ('workers=-1', 'a whole number of at least 0 or None'),
    ('model.temperature=0', 'a number above 0, not 0'),
    ("model.temperature='0.2'", "not '0.2'; a number is written without quotes"),
    ('dataset.recipe.steps.jitter.p=2', 'a number from 0 to 1, not 2'),
    ('dataset.recipe.steps.crop.scale=(1, 0.2)', 'in rising order, not (1, 0.2)'),
    ('dataset.recipe.steps.crop.scale=(0.1, 0.2, 1)', 'a list of 2'),
    ('dataset.recipe.size=0', 'a whole number of at least 1'),
    ('model.queue_len=0', 'a whole number of at least 1'),
    ('model.queue_len=True', 'a whole number of at least 1, not True'),
    ('model.backbone.out_indices=()', 'not empty'),
    ('model.backbone.depth=19', '18, 34, 50 or 101, not 19'),
    ('clip_grad=-1', 'a number above 0 or None'),
    ('epochs=0.5', 'a whole number of at least 1, not 0.5'),
    ('epochs=None', 'a whole number of at least 1, not None'),
    ('schedule.by=epcoh', "did you mean 'epoch'"),
    ('normalize={"mean": [0.5, 0.5, 0.5]}', 'with mean and std'),
    ('normalize=dict(mean=[0.5]*3)', 'dict(mean=[0.5]*3) is no Python literal'),
    ('normalize=dict(mean=[0.5, 0.5])', 'with mean and std'),
    ('normalize=dict(mean=[.5, .5, .5], std=[0, 1, 1])', 'std above 0'),
    ('custom_imports=5', "dict(imports=['my_methods'])"),
    ('hooks=[5]', "must be a dict with 'type'"),
])
def test_a_config_says_what_a_value_must_be(option, words):
    with pytest.raises(UserError) as caught:
        load_config(PLM, [option])
    assert words in str(caught.value) and option.split('=')[0] in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_openmmlabs_means_are_told_with_the_right_ones():
    with pytest.raises(UserError) as caught:
        load_config(PLM, ['normalize=dict(mean=[123.675, 116.28, 103.53], '
                          'std=[58.395, 57.12, 57.375])'])
    right = 'dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])'
    assert right in str(caught.value)
    with pytest.raises(UserError) as caught:  # what is right already stays
        load_config(PLM, ['normalize.mean=[123.675, 116.28, 103.53]'])
    assert right in str(caught.value)


@pytest.mark.parametrize('name, cls', [(name, cls) for _, name, cls in classes()
                                       if cls.__module__.startswith('openselfsup')
                                       # timm's networks refuse what they do not know
                                       and name != 'TimmBackbone'])
def test_no_part_takes_arguments_of_any_name(name, cls):
    """What takes all takes a misspelt one, too."""
    kinds = {parameter.kind for parameter in inspect.signature(cls).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds, name


def test_all_wrong_values_come_at_once_with_their_lines(tmp_path):
    path = write(tmp_path, 'seed = -1\noptimizer = dict(lr=-1)\nmodel = dict(momentum=2)\n')
    with pytest.raises(UserError) as caught:
        load_config(path, ['model.temperature=0'])
    text = str(caught.value)
    assert '4 mistakes' in text and '--cfg-options model.temperature=0' in text
    for line, key in (2, 'seed'), (3, 'optimizer.lr'), (4, 'model.momentum'):
        assert f'mine.py:{line}: {key}:' in text


def test_what_is_built_without_a_config_is_checked_too():
    with pytest.raises(UserError, match='LinearNeck: out_channels must be a whole number'):
        registry.NECKS.build(dict(type='LinearNeck', in_channels=8, out_channels=0))


def test_a_class_whose_annotations_cannot_be_read_is_taken_as_it_is():
    class Foreign(nn.Module):
        def __init__(self, size: 'Nowhere' = 3):  # noqa: F821
            super().__init__()
            self.size = size

    assert annotations(Foreign) == {}
    assert registry.NECKS.build(dict(type=Foreign, size='x')).size == 'x'


def test_one_value_per_channel_under_batch_norm_is_a_sentence():
    net = nn.Sequential(nn.Conv2d(3, 4, 32), nn.BatchNorm2d(4))
    step = TrainStep(net, Preprocessor((0., 0., 0.), (1., 1., 1.)),
                     torch.optim.SGD(net.parameters(), 0.1), amp='off')
    step.algorithm.batch_keys = ()
    step.model = lambda views, view_to_tile: dict(loss=net(views[0]).sum())
    with pytest.raises(UserError, match=r'1 tile\(s\) of 32 px .* at least 2 tiles'):
        step.forward([torch.zeros(1, 3, 32, 32)], None, {})
    assert step.forward([torch.zeros(2, 3, 32, 32)], None, {})['loss'].isfinite()


@pytest.mark.parametrize('options', [
    ["dataset.source=dict(_delete_=True, type='PackedTiles', root='x')"],
    ['dataset.source={"_delete_": True, "type": "PackedTiles", "root": "x"}'],
    ['dataset.source._delete_=True', 'dataset.source.type=PackedTiles', 'dataset.source.root=x']])
def test_delete_works_as_an_option(options):
    assert load_config(PLM, options).dataset.source == dict(type='PackedTiles', root='x')


@pytest.mark.parametrize('option', ['_delete_=True', 'dataset.source._delete_=1'])
def test_delete_that_deletes_nothing_is_refused(option):
    with pytest.raises(UserError, match='empties a dict, as in dataset.source._delete_=True'):
        load_config(PLM, [option])


def test_a_config_may_have_variables_imports_functions_and_loops(tmp_path):
    path = write(tmp_path, '''
import math
import numpy as np
from pathlib import Path
FOLDER = '/data'
_scale = 2
def twice(x):
    return _scale * x
for number in range(3):
    FOLDER += str(number)
hooks = [dict(type='KNNProbeHook', source=dict(type='ImageFolder', root=FOLDER),
              interval=twice(5))]
work_dir = f'{FOLDER}/{Path("a/b").name}'
''')
    cfg = load_config(path)
    assert (cfg.work_dir, cfg.hooks[0].interval) == ('/data012/b', 10)
    assert cfg.hooks[0].source.root == '/data012'
    assert not {'FOLDER', '_scale', 'twice', 'number', 'Path', 'np'} & set(cfg)
    assert not find_problems(cfg, PretrainConfig)


@pytest.mark.parametrize('text, words', [
    ('epoch = 5', "did you mean 'epochs'"), ('Epochs = 5', "did you mean 'epochs'"),
    ('folder = 5', 'a variable of your own is written in capitals, FOLDER')])
def test_a_misspelt_field_is_no_variable(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        load_config(write(tmp_path, text))


def test_the_remedy_for_weights_that_fit_in_part_works_on_a_command_line(tmp_path):
    from openselfsup.registry import ALGORITHMS, BACKBONES
    backbone = BACKBONES.build(dict(type='ResNet', depth=18))
    weights = {k: v for k, v in backbone.state_dict().items() if not k.startswith('layer4.1')}
    path = tmp_path / 'part.pth'
    torch.save(weights, path)
    with pytest.raises(UserError, match='do not fit the model') as caught:
        ALGORITHMS.build(load_config(PLM).model).load_backbone(str(path))
    option = str(caught.value).split('--cfg-options "')[1].split('"')[0]
    cfg = load_config(PLM, [option])
    report = BACKBONES.build(cfg.model.backbone).load_report
    assert report.missing and all(name.startswith('layer4.1') for name in report.missing)
