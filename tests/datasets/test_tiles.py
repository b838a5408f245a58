"""Batches of views, recipes from configs, and unreadable tiles."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openselfsup.datasets import (
    LabeledTileDataset,
    Mixed,
    Source,
    TileDataset,
    TileError,
    build_recipe,
    pack,
    write_shards,
)
from openselfsup.errors import UserError
from openselfsup.registry import DATASETS, STEPS
from openselfsup.views import Cutout, Draws, ViewRecipe, render_opencv

DEMO = Path(__file__).parents[2] / 'data/demo'
KATHER = dict(type='ImageFolder', root=str(DEMO / 'kather2016'))
CMU = dict(type='ImageFolder', root=str(DEMO / 'cmu1'))
CROP = dict(type='RandomResizedCrop', scale=(0.2, 1.0))
FLIP = dict(type='HorizontalFlip', p=0.5)
RECIPE = dict(type='ViewRecipe', size=64, steps=dict(crop=CROP, flip=FLIP))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_batch_of_views():
    dataset = TileDataset(KATHER, RECIPE)
    batch = dataset.batch([5, 0, 50], generator())
    assert set(batch) == {'views', 'view_to_tile', 'index', 'label'}
    assert len(batch['views']) == 2 and dataset.geometry == 'axis_aligned'
    for view in batch['views']:
        assert view.dtype == torch.uint8 and view.shape == (3, 3, 64, 64)
        assert view.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(*batch['views'])
    maps = batch['view_to_tile']
    assert maps.dtype == torch.float32 and maps.shape == (3, 2, 2, 3)
    assert batch['index'].tolist() == [5, 0, 50] and batch['index'].dtype == torch.int64
    assert batch['label'].tolist() == [0, 0, 7] and batch['label'].dtype == torch.int64


def test_views_are_what_the_renderer_makes_of_the_draws():
    dataset = TileDataset(CMU, RECIPE)
    keys = Draws.at(1, positions=np.array([8, 9]))
    batch = dataset.batch([3, 60], keys)
    for v in range(2):
        draw = dataset.recipes[v].draw(torch.full((2, 2), 224), keys.of_view(v))
        assert torch.equal(batch['view_to_tile'][:, v], draw['view_to_tile'])
        for b, index in enumerate((3, 60)):
            out = np.empty((64, 64, 3), np.uint8)
            one = {name: values[b] for name, values in draw.items()}
            render_opencv(dataset.source.read(index), dataset.recipes[v], one, out)
            assert np.array_equal(batch['views'][v][b].permute(1, 2, 0).numpy(), out)
    assert 'label' not in batch


def test_one_recipe_per_view():
    small = dict(RECIPE, size=32)
    dataset = TileDataset(CMU, [RECIPE, small, RECIPE])
    batch = dataset.batch([0, 1], generator())
    assert [tuple(view.shape[2:]) for view in batch['views']] == [(64, 64), (32, 32), (64, 64)]
    assert batch['view_to_tile'].shape == (2, 3, 2, 3)
    assert len(TileDataset(CMU, RECIPE, n_views=3).recipes) == 3
    with pytest.raises(UserError, match='2 recipes are given for 3 views'):
        TileDataset(CMU, [RECIPE, small], n_views=3)


def test_views_have_the_names_that_a_recipe_gives_them():
    small = dict(RECIPE, size=32)
    named = TileDataset(CMU, dict(local=small, reference=RECIPE, left_out=None))
    assert named.view_names == ['local', 'reference'] and len(named.recipes) == 2
    assert named.recipe_paths == ['dataset.recipe.local', 'dataset.recipe.reference']
    unnamed = TileDataset(CMU, [small, RECIPE])
    assert unnamed.view_names == ['view 1', 'view 2'] == TileDataset(CMU, RECIPE).view_names
    ours, theirs = (dataset.batch([0, 7], generator()) for dataset in (named, unnamed))
    assert all(map(torch.equal, ours['views'], theirs['views']))
    assert torch.equal(ours['view_to_tile'], theirs['view_to_tile'])


@pytest.mark.parametrize('recipe, n_views, words', [
    (dict(a=RECIPE, b=RECIPE), 3, '2 recipes are given for 3 views'),
    (dict(a=None), None, r'dataset\.recipe: it describes no view'), ([], None, 'no view'),
    (dict(a=RECIPE, b=dict(RECIPE, steps=dict(flip=dict(type='HorizontalFlp')))), None,
     r'dataset\.recipe\.b\.steps\.flip: no recipe step'),
    (dict(size=64, steps=[CROP]), None, r"dataset\.recipe.*'type'")])
def test_recipes_that_make_no_views(recipe, n_views, words):
    with pytest.raises(UserError, match=words):
        TileDataset(CMU, recipe, n_views=n_views)


HELD = dict(query=RECIPE, reference=dict(type='UnionView', of=['query', 'key'], size=48),
            key=dict(RECIPE, size=32))


def test_a_view_that_holds_others_draws_nothing():
    dataset = TileDataset(CMU, HELD)
    batch = dataset.batch([3, 60], generator())
    plain = TileDataset(CMU, dict(HELD, reference=RECIPE)).batch([3, 60], generator())
    for number in (0, 2):  # the others are as without it
        assert torch.equal(batch['views'][number], plain['views'][number])
        assert torch.equal(batch['view_to_tile'][:, number], plain['view_to_tile'][:, number])
    query, union, key = batch['view_to_tile'].unbind(1)
    ends = torch.stack([torch.stack([maps[:, :, 2], maps.sum(2)]) for maps in (query, key)])
    torch.testing.assert_close(union[:, :, 2], ends.amin((0, 1)))
    torch.testing.assert_close(union.sum(2), ends.amax((0, 1)))
    raw = dataset.batch([3, 60], generator(), render='device')
    assert torch.equal(raw['draw'][1]['view_to_tile'], union)
    assert batch['views'][1].shape == (2, 3, 48, 48)


@pytest.mark.parametrize('change, words', [
    (dict(key=None), r"reference\.of: 'key' is no view whose place is drawn; expected of query"),
    (dict(reference=dict(HELD['reference'], of=['qery'])), "did you mean 'query'"),
    (dict(reference=dict(HELD['reference'], of=['reference'])), 'is no view whose place'),
    (dict(reference=dict(HELD['reference'], size=0)), r'dataset\.recipe\.reference: .*size')])
def test_a_view_that_holds_none_is_refused(change, words):
    with pytest.raises(UserError, match=words):
        TileDataset(CMU, HELD | change)


def test_a_view_that_cannot_be_rendered_is_named():
    turned = dict(PIPELINE, geometry='axis_aligned', transforms=[
        *PIPELINE['transforms'], dict(type='RandomRotation', degrees=(20, 30))])
    with pytest.raises(UserError, match=r'dataset\.recipe\.turned: this view is turned'):
        TileDataset(CMU, dict(plain=RECIPE, turned=turned)).batch([0], generator())


def test_tiles_of_several_sizes(tmp_path):
    for i, size in enumerate([(40, 64), (100, 32), (64, 64)]):
        Image.new('RGB', size, (i, i, i)).save(tmp_path / f'{i}.png')
    dataset = TileDataset(dict(type='ImageFolder', root=str(tmp_path)), RECIPE)
    batch = dataset.batch([0, 1, 2], generator())
    assert [int(view.max()) for view in batch['views'][0]] == [0, 1, 2]
    with pytest.raises(UserError, match=r"1.png: this tile has 100 x 32 px, others have 40 x 64"):
        dataset.batch([0, 1, 2], generator(), render='device')


def test_raw_tiles_come_with_the_same_draws():
    dataset = TileDataset(KATHER, RECIPE)
    views = dataset.batch([5, 0], generator())
    raw = dataset.batch([5, 0], generator(), render='device')
    assert set(raw) == {'tiles', 'draw', 'index', 'label'} and len(raw['draw']) == 2
    assert raw['tiles'].shape == (2, 3, 224, 224) and raw['tiles'].dtype == torch.uint8
    for b, index in enumerate((5, 0)):
        tile = raw['tiles'][b].permute(1, 2, 0).numpy()
        assert np.array_equal(tile, dataset.source.read(index))
    for v, draw in enumerate(raw['draw']):
        assert torch.equal(draw['view_to_tile'], views['view_to_tile'][:, v])


PIPELINE = dict(type='TorchvisionPipeline', size=64, transforms=[
    dict(type='RandomResizedCrop', size=64, antialias=True), dict(type='RandomHorizontalFlip')])


def test_torchvision_pipelines_can_stand_beside_recipes():
    dataset = TileDataset(CMU, [RECIPE, dict(PIPELINE, geometry='axis_aligned')])
    assert dataset.geometry == 'axis_aligned'
    batch, again = (dataset.batch([7, 8], generator()) for _ in range(2))
    for first, second in zip([*batch['views'], batch['view_to_tile']],
                             [*again['views'], again['view_to_tile']]):
        assert torch.equal(first, second)
    # Rendering the pipeline's map with a recipe's renderer gives the pipeline's view.
    tile = dataset.source.read(7)
    (a, _, x), (_, d, y) = batch['view_to_tile'][0, 1].tolist()
    left, right = sorted([x * 224, (x + a) * 224])
    crop = Image.fromarray(tile).resize((64, 64), Image.Resampling.BILINEAR,
                                        (left, y * 224, right, (y + d) * 224))
    expected = np.asarray(crop)[:, ::-1] if a < 0 else np.asarray(crop)
    found = batch['views'][1][0].permute(1, 2, 0).numpy()
    assert np.abs(found.astype(int) - expected).mean() < 1


def test_torchvision_pipelines_that_are_wrong():
    with pytest.raises(UserError, match=r'dataset\.recipe: .*no transform .*Crop9'):
        TileDataset(CMU, dict(PIPELINE, transforms=[dict(type='Crop9')]))
    turned = dict(PIPELINE, transforms=[*PIPELINE['transforms'],
                                        dict(type='RandomRotation', degrees=(20, 30))])
    assert TileDataset(CMU, turned).batch([0], generator())['view_to_tile'].shape == (1, 2, 2, 3)
    with pytest.raises(UserError, match="'key' is no view whose place is drawn"):
        TileDataset(CMU, HELD | dict(key=PIPELINE))
    with pytest.raises(UserError, match=r'dataset\.recipe: this view is turned'):
        TileDataset(CMU, dict(turned, geometry='axis_aligned')).batch([0], generator())
    resized = [dict(type='RandAugment'), dict(type='Resize', size=(64, 64))]
    with pytest.raises(UserError, match=r"dataset\.recipe: .*RandAugment.*set geometry='none'"):
        TileDataset(CMU, dict(PIPELINE, transforms=resized), check=False).batch([0], generator())
    unmapped = TileDataset(CMU, dict(turned, geometry='none'))
    assert unmapped.batch([0], generator())['view_to_tile'] is None


def test_recipes_without_geometry_give_no_maps():
    bent = dict(RECIPE, steps=dict(crop=CROP, bend=dict(type='ElasticDistortion')))
    dataset = TileDataset(CMU, [RECIPE, bent])
    assert dataset.geometry == 'none'
    assert dataset.batch([0], generator())['view_to_tile'] is None


# --- recipes from configs ---

def test_recipes_are_built_from_dicts_and_lists():
    by_name = build_recipe(RECIPE)
    in_a_row = build_recipe(dict(RECIPE, steps=[CROP, FLIP]))
    assert isinstance(by_name, ViewRecipe) and by_name.size == (64, 64)
    assert [type(step).__name__ for step in by_name.steps] == ['RandomResizedCrop',
                                                               'HorizontalFlip']
    assert [type(step) for step in in_a_row.steps] == [type(step) for step in by_name.steps]
    assert build_recipe(by_name) is by_name


@pytest.mark.parametrize('step, key, what', [
    (dict(type='HorizontalFlop'), 'flip', "no recipe step is called 'HorizontalFlop'.*did you "
                                          "mean 'HorizontalFlip'"),
    (dict(type='HorizontalFlip', prob=1), 'flip', "HorizontalFlip: .*'prob'"),
    (dict(p=0.5), 'flip', "dict with 'type'")])
def test_wrong_steps_are_named(step, key, what):
    with pytest.raises(UserError, match=rf'(?s)dataset\.recipe\.steps\.{key}: .*{what}'):
        TileDataset(CMU, dict(RECIPE, steps=dict(crop=CROP, **{key: step})))
    with pytest.raises(UserError, match=rf'(?s)dataset\.recipe\.1\.steps\.1: .*{what}'):
        TileDataset(CMU, [RECIPE, dict(RECIPE, steps=[CROP, step])])


def test_all_wrong_steps_at_once_and_refused_values():
    steps = dict(crop=dict(CROP, scale=(1.0, 0.2)), flip=dict(type='Flip'))
    with pytest.raises(UserError, match=r'(?s)recipe\.steps\.crop: .*recipe\.steps\.flip: no'):
        build_recipe(dict(RECIPE, steps=steps))
    choice = dict(type='OneOf', steps=dict(a=dict(type='Cutout', size=2), b=dict(type='Blur')))
    with pytest.raises(UserError, match=r'(?s)steps\.one\.steps\.a: .*steps\.one\.steps\.b: no'):
        build_recipe(dict(RECIPE, steps=dict(one=choice)))
    with pytest.raises(UserError, match="recipe ViewRecipe: .*'size'"):
        build_recipe(dict(type='ViewRecipe', sise=64, steps=[CROP]))


def test_built_by_name():
    dataset = DATASETS.build(dict(type='TileDataset', source=KATHER, recipe=RECIPE, n_views=2))
    assert len(dataset) == 51


# --- unreadable tiles ---

@pytest.fixture
def damaged(tmp_path):
    """Six tiles of which 2, 3 and 5 are damaged behind their headers."""
    for i in range(6):
        path = tmp_path / f'{i}.png'
        noise = np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(path)
        if i in (2, 3, 5):
            content = path.read_bytes()
            path.write_bytes(content[:5000] + bytes(50) + content[5050:])
    return dict(type='ImageFolder', root=str(tmp_path))


def test_unreadable_tiles_are_replaced_by_the_next_readable_one(damaged, caplog):
    dataset = TileDataset(damaged, RECIPE)
    with caplog.at_level(logging.WARNING, 'openselfsup'):
        batch = dataset.batch(range(6), generator())
        again = dataset.batch(range(6), generator())
    assert batch['index'].tolist() == [0, 1, 4, 4, 4, 0]
    assert torch.equal(batch['views'][1], again['views'][1])
    assert sorted(Path(path).name for path in dataset.corrupt) == ['2.png', '3.png', '5.png']
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3 and '2.png: cannot be decoded' in said[0]


def test_unreadable_tiles_may_be_fatal(damaged):
    dataset = TileDataset(damaged, RECIPE, on_corrupt='raise')
    dataset.batch([0, 1], generator())
    with pytest.raises(TileError, match='3.png: cannot be decoded'):
        dataset.batch([0, 3], generator())
    with pytest.raises(UserError, match="dataset.on_corrupt: 'stop' is unknown"):
        TileDataset(damaged, RECIPE, on_corrupt='stop')


class Own(Source):
    """Two tiles of a user's own, of any kind."""

    labels, classes = np.array([0, 1]), ['A', 'B']

    def __init__(self, tile):
        self.tile = tile

    def __len__(self):
        return 2

    def read(self, index):
        return self.tile

    def path(self, index):
        return f'own/{index}'


@pytest.mark.parametrize('tile, told', [
    (np.zeros((40, 48, 3)), r'float64 of shape \(40, 48, 3\)'),
    (np.zeros((40, 48), np.uint8), r'uint8 of shape \(40, 48\)'),
    (np.zeros((3, 40, 48), np.uint8), r'uint8 of shape \(3, 40, 48\)'),
    (np.zeros((40, 48, 4), np.uint8), r'uint8 of shape \(40, 48, 4\)'),
    (torch.zeros(40, 48, 3, dtype=torch.uint8), 'a Tensor')])
def test_what_is_no_tile_is_told_of_the_source_that_gave_it(tile, told, tmp_path):
    own = Own(tile)
    for read in (lambda: TileDataset(own, RECIPE).batch([1], generator()),
                 lambda: TileDataset(Mixed([own]), RECIPE).batch([1], generator()),
                 lambda: LabeledTileDataset(own, 32)[1], lambda: pack(own, tmp_path / 'packed'),
                 lambda: write_shards(own, tmp_path / 'shards')):
        with pytest.raises(UserError, match=rf'own/[01]: Own.read gives {told}; expected a uint8 '
                                            r'array of shape \(H, W, 3\), RGB') as error:
            read()
        assert not isinstance(error.value, TileError)  # no other tile takes its place
    assert TileDataset(Own(np.zeros((40, 48, 3), np.uint8)), RECIPE).read(1)[1] == 1


def test_when_nothing_can_be_read(damaged, tmp_path):
    dataset = TileDataset(damaged, RECIPE)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(UserError, match='not one tile of this source can be read'):
        dataset.batch([0], generator())


def test_headers_are_checked_at_the_start(damaged, tmp_path):
    (tmp_path / '1.png').write_bytes(b'')
    with pytest.raises(UserError, match='1 of 6 tiles cannot be used'):
        TileDataset(damaged, RECIPE)
    dataset = TileDataset(damaged, RECIPE, check=False)
    assert dataset.batch([1], generator())['index'].tolist() == [4]


def test_a_registered_step_may_stand_within_a_choice():
    @STEPS.register_module()
    class Blacken(Cutout):
        """A step of a user's own."""

    try:
        steps = dict(one=dict(type='OneOf', p=1.0, steps=dict(all=dict(type='Blacken', size=1.0))))
        dataset = TileDataset(CMU, dict(type='ViewRecipe', size=32, steps=steps))
        steps['one']['p'] = 0.0
        without = TileDataset(CMU, dict(type='ViewRecipe', size=32, steps=steps))
    finally:
        STEPS._module_dict.pop('Blacken')
    assert not without.batch([0], generator())['views'][0].eq(0).all(1).any()
    assert dataset.batch([0], generator())['views'][0].eq(0).any()


def test_what_is_no_recipe_is_told():
    with pytest.raises(UserError, match="'ViewRecipe' is no recipe"):
        TileDataset(CMU, dict(typ='ViewRecipe', sise=64))
