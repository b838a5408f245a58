from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from small_runs import REPO

from openselfsup.checkpoints.config_text import read_config_text
from openselfsup.engine.config import load_config
from openselfsup.engine.config_text import WIDTH, config_text

plain = st.none() | st.booleans() | st.integers() | st.text(max_size=30) | st.floats(
    allow_nan=False, allow_infinity=False)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner)
                      | st.tuples(inner) | st.dictionaries(
                          st.sampled_from(['a', 'b_1', 'lambda', 'type', 'two words']), inner,
                          max_size=4), max_leaves=20)


@given(st.dictionaries(st.sampled_from(['model', 'x', 'epochs']), values))
@settings(max_examples=100)
def test_text_reads_back_as_the_same_values_in_the_same_order(tree):
    names: dict = {}
    exec(config_text(Config(tree)), names)
    del names['__builtins__']
    assert repr(names) == repr(tree) == repr(read_config_text(config_text(Config(tree))))


def test_the_order_of_a_recipe_survives_and_lines_are_short():
    cfg = load_config(REPO / 'configs/demo/plm_r18.py')
    text = config_text(cfg)
    order = [text.index(f'{name}=dict(') for name in cfg.dataset.recipe.steps]
    assert order == sorted(order)
    assert max(map(len, text.splitlines())) <= WIDTH
