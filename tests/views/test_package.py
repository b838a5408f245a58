"""What `openselfsup.views` offers: every name that others import, every step, all renderings."""

import ast
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from openselfsup import registry, views
from openselfsup.datasets import build_recipe
from openselfsup.views import (
    STEPS,
    ImageStep,
    TorchRenderer,
    ViewRecipe,
    missing_steps,
    registered,
    render_opencv,
    unbind,
)

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / 'openselfsup'
FILES = [path for folder in ('openselfsup', 'tests', 'tools', 'benchmarks', 'segmentation')
         for path in (ROOT / folder).rglob('*.py') if PACKAGE / 'views' not in path.parents]


def imported_from_views(path: Path) -> set[str]:
    """Return the names that a file imports from the package `views` itself."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            ours = (node.module == 'views' and PACKAGE in path.parents
                    and node.level == len(path.relative_to(PACKAGE).parts))
            if ours or node.module == 'openselfsup.views':
                names |= {alias.name for alias in node.names}
    return names


def test_every_name_that_others_import_is_offered():
    used = {path: imported_from_views(path) for path in FILES}
    assert sum(map(bool, used.values())) > 10
    modules = {path.stem for path in (PACKAGE / 'views').iterdir()}
    assert not {f'{path}: {name}' for path, names in used.items()
                for name in names - set(views.__all__) - modules}
    assert all(hasattr(views, name) for name in views.__all__)
    assert len(set(views.__all__)) == len(views.__all__)


def test_the_library_imports_nothing_from_inside_the_package():
    inside = {}
    for path in (path for path in FILES if PACKAGE in path.parents):
        modules = [f'{"." * node.level}{node.module}' for node in ast.walk(
            ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        inside[path] = [module for module in modules
                        if module.lstrip('.').removeprefix('openselfsup.').startswith('views.')]
    assert len(inside) > 100 and not {path: found for path, found in inside.items() if found}


def test_every_step_is_offered_under_its_name():
    assert set(STEPS) <= set(views.__all__)
    assert all(getattr(views, name) is cls for name, cls in STEPS.items())
    defined = {name for name in views.__all__ if isinstance(cls := getattr(views, name), type)
               and issubclass(cls, views.Step)}
    assert defined - set(STEPS) == {'Step', 'GeometricStep', 'ImageStep'}


@pytest.mark.parametrize('name', [n for n, cls in STEPS.items() if issubclass(cls, ImageStep)])
def test_every_image_step_has_its_renderings(name):
    missing = {rendering for rendering in ('opencv', 'pil', 'torch')
               if not STEPS[name].has_rendering(rendering)}
    assert missing == ({'torch'} if name in ('CLAHE', 'OneOf') else set())


@dataclass(kw_only=True)
class Invert(ImageStep):
    """Exchange light and dark."""

    def draw(self, batch, size, generator):
        return {}

    def render_opencv(self, image, drawn, size):
        return 255 - image


class InvertOnAnyDevice(Invert):
    def prepare_torch(self, drawn):
        return drawn['apply'][:, None]

    def render_torch(self, view, numbers):
        return torch.where(numbers[:, :, None, None] > 0, 255 - view, view)


@pytest.mark.parametrize('register', [registered, registry.STEPS.register_module()])
def test_a_step_is_known_everywhere_however_it_was_registered(register, monkeypatch):
    class Late(Invert):
        """Registered when everything has long been imported."""

    monkeypatch.setitem(STEPS, 'Late', None)  # taken out again after the test
    del STEPS['Late']
    register(Late)
    described = dict(type='ViewRecipe', size=16, steps=dict(late=dict(type='Late', p=0.5)))
    for recipe in (ViewRecipe(16, described['steps']), build_recipe(described)):
        assert isinstance(recipe.named_steps['late'], Late)
    assert registry.STEPS.get('Late') is Late and 'Late' in registry.STEPS.names()


def test_a_new_step_needs_nothing_but_its_class(monkeypatch):
    for cls in (Invert, InvertOnAnyDevice):
        monkeypatch.setitem(STEPS, cls.__name__, None)  # taken out again after the test
        assert registered(cls) is cls and STEPS[cls.__name__] is cls
    tiles = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    recipe = ViewRecipe(16, dict(new=dict(type='InvertOnAnyDevice', p=0.5)))
    drawn = recipe.draw(torch.full((6, 2), 16), torch.Generator().manual_seed(0))
    assert 0 < drawn['new.apply'].sum() < 6
    expected = np.where(drawn['new.apply'].numpy()[:, None, None, None], 255 - tiles, tiles)
    out = np.empty_like(tiles)
    for tile, parameters, slot in zip(tiles, unbind(drawn), out):
        render_opencv(tile, recipe, parameters, slot)
    assert np.array_equal(out, expected)
    by_torch = TorchRenderer(recipe)(torch.from_numpy(tiles).permute(0, 3, 1, 2), drawn)
    assert np.array_equal(by_torch.permute(0, 2, 3, 1).numpy(), expected)
    # Without a rendering with torch it is named, alone or within a choice.
    choice = dict(type='OneOf', steps=dict(plain=dict(type='Invert')))
    assert missing_steps(ViewRecipe(16, dict(a=dict(type='Invert'), b=choice))) == ['a', 'b.plain']
