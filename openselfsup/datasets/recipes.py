"""Registers the recipes of :mod:`openselfsup.views`, and builds them from configs.

``views`` knows nothing of registries, so its recipes are registered here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from ..errors import UserError, nearest
from ..registry import RECIPES, STEPS
from ..views import TorchvisionPipeline, UnionView, ViewRecipe

Recipe = ViewRecipe | TorchvisionPipeline

RECIPES.register_module(module=ViewRecipe)
RECIPES.register_module(module=TorchvisionPipeline)
RECIPES.register_module(module=UnionView)


def are_named_views(recipe: object) -> TypeGuard[Mapping[str, Any]]:
    """Return whether this is a dict of recipes, one for each view under its name.

    A dict with a ``type`` is a recipe itself, and so is meant one that lacks its ``type``.
    """
    return isinstance(recipe, Mapping) and not {'type', 'size', 'steps'} & set(recipe)


def view_recipes(recipe: Any, n_views: int | None = None) -> dict[str, tuple[str, Any]]:
    """Return the key path and the recipe of each view by its name.

    Args:
        recipe: one recipe for all views, a dict of named ones (None leaves a view out) or a list.
        n_views: how many views there are; None for 2 of one recipe, or as many as there are
            recipes.

    Raises:
        UserError: there are not as many recipes as views, or none.
    """
    where = 'dataset.recipe'
    if are_named_views(recipe):
        views = {name: (f'{where}.{name}', one) for name, one in recipe.items() if one is not None}
    elif isinstance(recipe, (list, tuple)):
        views = {f'view {i + 1}': (f'{where}.{i}', one) for i, one in enumerate(recipe)}
    else:
        return {f'view {i + 1}': (where, recipe) for i in range(n_views or 2)}
    if not views:
        raise UserError('it describes no view', where=where, expected='one recipe, or one per view')
    if n_views not in (None, len(views)):
        raise UserError(f'{len(views)} recipes are given for {n_views} views', where=where,
                        expected='one recipe, or one per view')
    return views


def build_recipes(views: Mapping[str, tuple[str, Any]]) -> list[Recipe]:
    """Build the recipe of each view: what stands at one place of the config, once.

    Args:
        views: what :func:`view_recipes` returned.

    Raises:
        UserError: a recipe cannot be built, or a :class:`UnionView` holds what is no view or one
            whose place is not drawn.
    """
    at = {path: build_recipe(recipe, path) for path, recipe in views.values()}
    recipes = {name: at[path] for name, (path, _) in views.items()}
    drawn = [name for name, recipe in recipes.items()
             if isinstance(recipe, ViewRecipe) and not isinstance(recipe, UnionView)]
    for name, recipe in recipes.items():
        for held in recipe.of if isinstance(recipe, UnionView) else ():
            if held not in drawn:
                raise UserError(
                    f"'{held}' is no view whose place is drawn", where=f'{views[name][0]}.of',
                    expected='of ' + (', '.join(drawn) or 'views with a ViewRecipe'),
                    nearest=nearest(str(held), drawn))
    return list(recipes.values())


def build_recipe(cfg: dict | Recipe, where: str = 'recipe') -> Recipe:
    """Return the recipe that a config dict describes; a recipe is returned as it is.

    Args:
        cfg: dict with ``type`` and the recipe's arguments.
        where: key path of the dict, for messages.

    Raises:
        UserError: unknown steps, arguments that a step does not take or values that it
            refuses, each with the key path of the step: all at once.
    """
    if not isinstance(cfg, Mapping):
        if not hasattr(cfg, 'geometry'):
            raise UserError(f'{cfg!r} is no recipe', where=where,
                            expected="a dict with a 'type', such as dict(type='ViewRecipe', "
                                     'size=224, steps=...)')
        return cfg
    cfg = dict(cfg)
    problems: list[str] = []
    if cfg.get('steps') is not None:
        cfg['steps'] = _build_steps(cfg['steps'], f'{where}.steps', problems)
    if problems:
        raise UserError('\n  '.join(problems))
    try:
        return RECIPES.build(cfg)
    except (UserError, ValueError) as error:
        raise UserError(str(error), where=where) from None


def _build_steps(steps: Sequence | Mapping, where: str, problems: list[str]) -> list | dict:
    """Build steps, and first those that a step chooses from; add what is wrong to ``problems``."""
    built = {}
    for name, step in steps.items() if isinstance(steps, Mapping) else enumerate(steps):
        known = len(problems)
        if isinstance(step, Mapping) and isinstance(step.get('steps'), (Mapping, list, tuple)):
            step = dict(step, steps=_build_steps(step['steps'], f'{where}.{name}.steps', problems))
        try:
            if len(problems) == known:
                built[name] = STEPS.build(step) if isinstance(step, Mapping) else step
        except (UserError, ValueError) as error:
            problems.append(f'{where}.{name}: {error}')
    return built if isinstance(steps, Mapping) else list(built.values())
