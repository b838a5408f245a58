"""Recipes that make other views than a method takes are refused before any work."""

from functools import partial
from pathlib import Path

import pytest
from methods import METHODS, build

from openselfsup.datasets import TileDataset
from openselfsup.engine import building
from openselfsup.errors import UserError
from openselfsup.registry import ALGORITHMS

REPO = Path(__file__).resolve().parents[2]
SOURCE = dict(type='ImageFolder', root=str(REPO / 'data/demo/kather2016'))
PLAIN = dict(type='ViewRecipe', size=32, steps=[])
UNION = partial(dict, type='UnionView', size=32)
PAIR = dict(query=PLAIN, key=PLAIN)
WITH_REFERENCE = PAIR | dict(reference=UNION(of=['query', 'key']))
EXACTLY = {name: ALGORITHMS.get(row['type']).takes_views for name, row in METHODS.items()}


def tell(name, recipe, n_views=None):
    building.tell_data(build(METHODS[name]), TileDataset(SOURCE, recipe, n_views))


def test_what_every_method_takes():
    assert {name: fewest for name, (fewest, _) in EXACTLY.items() if fewest != 2} == dict(
        ConCL=3, PLMConCL=3, Classification=1, RotationPred=1, RelativeLoc=1, ODC=1,
        DeepCluster=1, NPID=1)
    assert {name for name, (_, most) in EXACTLY.items() if most == 2} == {
        'MoCo', 'DenseCL', 'PLM', 'SimCLR', 'CA2CL', 'PLMSimCLR', 'BYOL'}


@pytest.mark.parametrize('name', [name for name, (fewest, _) in EXACTLY.items() if fewest > 1])
def test_too_few_or_too_many_views_are_refused(name):
    fewest, most = EXACTLY[name]
    with pytest.raises(UserError, match=f'dataset.recipe: {name} takes {fewest}( or more)? views '
                       f'of each tile, but the recipe makes {fewest - 1}; expected .*'):
        tell(name, PLAIN, fewest - 1)
    if most is not None:
        with pytest.raises(UserError, match=f'takes {fewest} views .* makes {most + 1}; expected'):
            tell(name, PLAIN, most + 1)


@pytest.mark.parametrize('recipe', [
    PAIR | dict(reference=PLAIN), PAIR | dict(reference=UNION(of=['query'])),
    dict(reference=UNION(of=['query', 'key']), **PAIR)])
@pytest.mark.parametrize('name', ['ConCL', 'PLMConCL'])
def test_a_third_view_that_does_not_hold_the_first_two_is_refused(name, recipe):
    with pytest.raises(UserError, match=fr"dataset.recipe.{[*recipe][2]}: {name} looks for "
                       f"concepts in its third view.*expected dict.*'UnionView'"):
        tell(name, recipe)
    with pytest.raises(UserError, match=f"{name} takes 3 views .* makes 2; expected .*'UnionView'"):
        tell(name, PAIR)


@pytest.mark.parametrize('name', ['MoCo', 'BYOL', 'PLM', 'VICRegL', 'DINO', 'RotationPred'])
def test_two_views_are_right_for_most(name):
    tell(name, PLAIN)
    if name not in ('MoCo', 'BYOL', 'PLM'):
        tell(name, PAIR | dict(third=PLAIN))


def test_a_union_of_the_first_two_is_right_for_concepts():
    tell('ConCL', WITH_REFERENCE)
