"""A dict is found by its type, whatever the argument is called that it stands under."""

import pytest
from torch import nn

from openselfsup.engine.config import load_config
from openselfsup.engine.config_text import config_text
from openselfsup.errors import UserError
from openselfsup.registry import ALGORITHMS, HEADS, NECKS
from tests.engine.test_config import write


class Teaching(nn.Module):
    """A user's method whose arguments are called as nobody foresaw; one is not annotated."""

    def __init__(self, student: dict, first_neck: dict, untold=None, extra: list | None = None,
                 act_cfg: dict | None = None):
        super().__init__()


class Twice(nn.Module):
    def __init__(self, size: int = 1):
        super().__init__()


@pytest.fixture(autouse=True)
def registered():
    for table, cls in (ALGORITHMS, Teaching), (NECKS, Twice), (HEADS, Twice):
        table.register_module(module=cls)
    yield
    for table, cls in (ALGORITHMS, Teaching), (NECKS, Twice), (HEADS, Twice):
        table.module_dict.pop(cls.__name__)


def problems(tmp_path, arguments: str) -> list[str]:
    """Return what is wrong with a config of the method, line by line without the places."""
    path = write(tmp_path, f"model = dict(_delete_=True, type='Teaching', {arguments})\n")
    try:
        load_config(path)
    except UserError as error:
        return [line.split('model', 1)[1] for line in str(error).splitlines() if ': model' in line]
    return []


GOOD = "student=dict(type='ResNet', depth=18), first_neck=dict(type='LinearNeck', in_channels=8)"


@pytest.mark.parametrize('arguments, expected', [
    (GOOD, []),
    (GOOD + ', untold=5', []),
    (GOOD + ", untold=dict(type='GroupNeck', in_channels=8)", []),
    (GOOD + ", act_cfg=dict(type='nobody knows')", []),
    (GOOD + ', extra=[1, dict(a=2)]', []),
    ("first_neck=dict(type='Twice'), student=dict(type='ResNet')", []),
    (GOOD + ", untold=dict(type='Twice')",
     [".untold.type: 'Twice' is the name of a neck and of a head; expected another name for one "
      "of them, or an argument called after what it takes, such as 'untold_neck'"]),
    (GOOD + ", untold=dict(type='ResNt')",
     [".untold.type: nothing is registered as 'ResNt'; did you mean 'ResNet'?"]),
    (GOOD + ", extra=[dict(type='ResNet', depht=50)]",
     [".extra.0.depht: ResNet takes no argument 'depht'; did you mean 'depth'?"]),
    ("first_neck=dict(in_channels=8), student=dict(type='ResNet', depth=19)",
     [".first_neck: this neck has no 'type'",
      '.student.depth: depth must be 18, 34, 50 or 101, not 19']),
    ("first_neck=5, student=dict(type='ResNet')",
     [".first_neck: 'first_neck' must be a dict with 'type', not 5"]),
])
def test_a_type_is_searched_for_in_all_registries(arguments, expected, tmp_path):
    assert sorted(problems(tmp_path, arguments)) == sorted(expected)


def test_an_unknown_name_under_an_argument_of_a_known_name_lists_its_kind(tmp_path):
    found, = problems(tmp_path, GOOD.replace('LinearNeck', 'LinearNek'))
    assert ".first_neck.type: no neck is called 'LinearNek' (known: " in found
    assert 'GroupNeck' in found and 'ResNet' not in found


def test_at_the_top_only_one_registry_will_do(tmp_path):
    with pytest.raises(UserError, match="no algorithm is called 'ResNet'"):
        load_config(write(tmp_path, "model = dict(_delete_=True, type='ResNet')\n"))


def test_options_of_single_parameters_are_checked(tmp_path):
    path = write(tmp_path, "optimizer = dict(paramwise_options={'^head': dict(weight_decay=0.), "
                           "'(bn': dict(lr_mult=2), 'bias': dict(weigth_decay=0.)})\n")
    with pytest.raises(UserError) as caught:
        load_config(path)
    text = str(caught.value)
    assert '2 mistakes' in text and 'no regular expression' in text
    assert "SGD has no option 'weigth_decay'; did you mean 'weight_decay'?" in text
    options = "paramwise_options={r'^head\\.(a|b)': dict(weight_decay=0.)}"
    cfg = load_config(write(tmp_path, f'optimizer = dict({options})\n'))
    assert cfg.optimizer['paramwise_options'] == {r'^head\.(a|b)': dict(weight_decay=0.)}
    again = tmp_path / 'again.py'
    again.write_text(config_text(cfg))
    assert load_config(again).optimizer == cfg.optimizer
