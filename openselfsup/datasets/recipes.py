"""Registers what :mod:`openselfsup.views` offers, and builds recipes from configs.

``views`` knows nothing of registries, so its classes are registered here.
"""

from collections.abc import Mapping

from ..errors import UserError
from ..registry import RECIPES, STEPS
from ..views import STEPS as VIEW_STEPS
from ..views import TorchvisionPipeline, ViewRecipe

Recipe = ViewRecipe | TorchvisionPipeline

RECIPES.register_module(module=ViewRecipe)
RECIPES.register_module(module=TorchvisionPipeline)
for _name, _step in VIEW_STEPS.items():
    STEPS.register_module(name=_name, module=_step)


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
        return cfg
    cfg = dict(cfg)
    steps = cfg.get('steps')
    if steps is not None:
        named = steps.items() if isinstance(steps, Mapping) else enumerate(steps)
        built = _build_steps({f'{where}.steps.{key}': step for key, step in named})
        cfg['steps'] = (dict(zip(steps, built)) if isinstance(steps, Mapping) else built)
    try:
        return RECIPES.build(cfg)
    except ValueError as error:
        raise UserError(str(error), where=where) from None


def _build_steps(steps: dict[str, object]) -> list:
    """Build the steps, each given under its key path; report all mistakes at once."""
    built, problems = [], []
    for key, step in steps.items():
        try:
            built.append(STEPS.build(step) if isinstance(step, Mapping) else step)
        except (UserError, ValueError) as error:
            problems.append(f'{key}: {error}')
    if problems:
        raise UserError('\n  '.join(problems))
    return built
