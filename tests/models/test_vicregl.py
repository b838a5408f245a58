"""VICRegL against the published numbers, and what is our own in it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_zoo import ZooBackbone, assert_golden
from methods import METHODS, build
from toy_model import ToyBackbone, maps_of_crops, random_batch, train_step

from openselfsup.errors import UserError
from openselfsup.models.losses import covariance_term, nearest_cells, vicreg
from openselfsup.registry import ALGORITHMS
from openselfsup.training.optimizers import LARS
from openselfsup.views import cell_centres

GOLDEN = Path(__file__).parents[1] / 'data/golden'
STEPS = ['vicregl_two_views_lars', 'vicregl_multicrop_adamw',
         'vicregl_two_views_l2_matches_limited']
TERMS = {'global_inv': 'inv_l', 'global_var': 'var_l', 'global_cov': 'cov_l',
         'local_inv': 'minv_l', 'local_var': 'mvar_l', 'local_cov': 'mcov_l',
         'loss_classifier': 'cls_l'}
# Biases before a batch norm have a gradient of 0 but for the rounding of a sum over rows whose
# parts cancel; see test_what_is_left_of_gradients_that_are_zero_is_rounding.
WITHOUT_EFFECT = {f'{part}.{layer}.bias' for part in ('projector', 'maps_projector')
                  for layer in (0, 3)}


def golden_method(golden):
    meta = {key[5:]: golden[key] for key in golden.files if key.startswith('meta/')}
    expanders = {name: dict(type='Expander', in_channels=16,
                            channels=tuple(map(int, str(meta[key]).split('-'))))
                 for name, key in (('projector', 'mlp'), ('maps_projector', 'maps_mlp'))}
    coefficients = {f'{key}_coeff': float(meta[f'{key}_coeff']) for key in ('inv', 'var', 'cov')}
    return ALGORITHMS.build(dict(
        type='VICRegL', backbone=ZooBackbone(widths=(12, 16)), alpha=float(meta['alpha']),
        num_classes=7, num_matches=tuple(map(int, meta['num_matches'])),
        l2_all_matches=bool(meta['l2_all_matches']), **expanders, **coefficients))


def tensor(golden, key):
    return torch.from_numpy(golden[key])


@pytest.mark.parametrize('name', STEPS)
def test_losses_gradients_and_final_state_are_the_published_ones(name):
    golden = np.load(GOLDEN / f'{name}.npz')
    method = golden_method(golden)
    method.load_state_dict({key[6:]: tensor(golden, key) for key in golden.files
                            if key.startswith('state/')})
    parameters = dict(method.named_parameters())
    wide, flat = ([p for p in parameters.values() if (p.ndim > 1) == large]
                  for large in (True, False))
    optimizer = (LARS(parameters.values(), lr=0., weight_decay=1e-6, form='vicregl')
                 if golden['meta/optimizer'] == 'lars' else torch.optim.AdamW([
                     dict(params=wide, weight_decay=0.05), dict(params=flat, weight_decay=0.)]))
    for step in range(2):
        at = f'step{step}/'
        views = [tensor(golden, key) for key in sorted(golden.files) if key.startswith(f'{at}view')]
        maps = maps_of_crops(golden[f'{at}crop_top_left_height_width_flip']).transpose(0, 1)
        for v in range(len(views)):
            published = tensor(golden, f'{at}locations{v}')
            ours = 224 * cell_centres(maps[:, v], published.shape[1]).flip(-1)
            torch.testing.assert_close(ours, published, rtol=0, atol=1e-4)
        method.zero_grad()
        outputs = method(views, maps, label=tensor(golden, f'{at}labels'))
        for ours, theirs in TERMS.items():
            assert_golden(outputs[ours], golden[at + theirs], f'step {step}, {ours}')
        loss = sum(outputs[key] for key in ('loss_global', 'loss_local', 'loss_classifier'))
        assert_golden(loss, golden[f'{at}loss'], 'loss')
        loss.backward()
        gradients = {key: tensor(golden, f'{at}grad/{key}') for key in parameters}
        for key, p in parameters.items():
            atol = 2e-4 if key in WITHOUT_EFFECT else 1e-4 * gradients[key].abs().max()
            assert_golden(p.grad, gradients[key], f'step {step}, gradient of {key}', 0, atol)
        for key, p in parameters.items():
            p.grad = gradients[key]
        for group in optimizer.param_groups:
            group['lr'] = float(golden[f'{at}lr'])
        optimizer.step()
    for key, value in method.state_dict().items():
        assert_golden(value, golden[f'final/{key}'], f'final {key}')


@pytest.mark.parametrize('name', STEPS)
def test_what_is_left_of_gradients_that_are_zero_is_rounding(name):
    golden = np.load(GOLDEN / f'{name}.npz')
    method = golden_method(golden)
    method.load_state_dict({key[6:]: tensor(golden, key) for key in golden.files
                            if key.startswith('state/')})
    maps = maps_of_crops(golden['step0/crop_top_left_height_width_flip']).transpose(0, 1)
    outputs = method.double()([tensor(golden, key).double() for key in sorted(golden.files)
                               if key.startswith('step0/view')], maps.double(),
                              label=tensor(golden, 'step0/labels'))
    sum(value for key, value in outputs.items() if key.startswith('loss')).backward()
    for key, p in method.named_parameters():
        if key in WITHOUT_EFFECT:
            assert p.grad.abs().max() < 1e-12
        else:
            assert_golden(p.grad.float(), tensor(golden, f'step0/grad/{key}'), key, 0,
                          1e-4 * p.grad.abs().max().float())


def test_the_published_terms_and_neighbours():
    golden = np.load(GOLDEN / 'vicregl_parts.npz')
    x, y = (tensor(golden, f'vicreg_{key}').requires_grad_() for key in 'xy')
    terms = [c * term for c, term in zip((25, 25, 1), vicreg(x, y))]
    sum(terms).backward()
    for term, key in zip(terms, ('inv', 'std', 'cov')):
        torch.testing.assert_close(term.detach(), tensor(golden, f'vicreg_{key}'))
    for z, key in (x, 'x'), (y, 'y'):
        torch.testing.assert_close(z.grad, tensor(golden, f'vicreg_grad_{key}'))
    maps = tensor(golden, 'maps_1'), tensor(golden, 'maps_2')
    places = tensor(golden, 'location_1'), tensor(golden, 'location_2')
    for case, pair, count in (('l2_all', maps, None), ('l2_limited', maps, 20),
                              ('location', places, 20)):
        found = nearest_cells(torch.cdist(*pair), count)
        for cells, numbers, key in zip(maps, found, ('inputs', 'neighbours')):
            rows = torch.arange(len(cells))[:, None]
            assert cells[rows, numbers].equal(tensor(golden, f'{case}/{key}')), case
    for key in (key for key in golden.files if key.startswith('grid/')):
        *crop, height, width, cells, flip = (int(part.strip('Nflip')) for part in
                                             key.removeprefix('grid/').split('_'))
        to_tile = maps_of_crops(np.array([*crop, flip]), height)
        torch.testing.assert_close(height * cell_centres(to_tile, cells).flip(-1),
                                   tensor(golden, key), rtol=0, atol=1e-4)


def test_the_two_ways_to_the_covariance_are_one():
    for shape in (3, 40), (30, 4), (5, 6, 20), (9, 3, 4):
        x = torch.randn(shape, dtype=torch.float64)
        slots = x.view(shape[0], -1, shape[-1]).unbind(1)
        plain = [(torch.cov(z.T).fill_diagonal_(0) ** 2).sum() / shape[-1] for z in slots]
        torch.testing.assert_close(covariance_term(x), sum(plain) / len(plain))


def test_equal_distances_but_for_rounding_go_to_the_lowest_numbers():
    distances = torch.tensor([[[0.5, 0.5 - 1e-8, 0.4], [0.3, 0.3 - 1e-8, 0.9],
                               [0.3 - 2e-8, 0.7, 0.8]]], dtype=torch.float64)
    assert [x.tolist() for x in nearest_cells(distances, 1)] == [[[2]], [[0]]]
    assert [x.tolist() for x in nearest_cells(distances, 1, 1e-7)] == [[[1]], [[0]]]
    assert [x.tolist() for x in nearest_cells(distances, 9)] == [[[0, 1, 2]], [[2, 1, 0]]]


def location_match(method, maps, grid):
    """Return which cells of view 1 those of view 0 meet by location."""
    met = []
    method.paired = lambda x, y, own, other, weights=None: met.append((own, other, weights)) or (
        vicreg(x, y))
    x = torch.randn(len(maps), grid[0] * grid[1], 4)
    method.location_terms(x, x, maps[:, 0], maps[:, 1], grid, grid, None)
    return met[0]


@pytest.mark.parametrize('grid', [(7, 7), (2, 5), (1, 1)])
def test_a_flipped_view_meets_its_own_tissue(grid):
    upright, mirrored = [[[0.5, 0, 0.2], [0, 0.6, 0.1]], [[-0.5, 0, 0.7], [0, 0.6, 0.1]]]
    maps = torch.tensor([[upright, mirrored], [upright, upright]])
    own, other, _ = location_match(build(METHODS['VICRegL']), maps, grid)
    numbers = torch.arange(grid[0] * grid[1]).view(grid)
    assert own.tolist() == [numbers.flatten().tolist()] * 2
    assert other.tolist() == [numbers.flip(1).flatten().tolist(), numbers.flatten().tolist()]


def test_pairs_beyond_the_radius_do_not_count_as_the_same_place():
    left, right = [[[0.5, 0, 0.], [0, 1, 0]], [[0.5, 0, 0.5], [0, 1, 0]]]
    maps = torch.tensor([[left, right]] * 3)
    method = build(METHODS['VICRegL'] | dict(match_radius=1.))
    _, _, weights = location_match(method, maps, (4, 4))
    # Only the column beside the other view is a cell away from it, and no further.
    assert weights.tolist() == [[0., 0, 0, 1] * 4] * 3
    views, _ = random_batch(3)
    far = torch.tensor([[left, [[0.1, 0, 0.9], [0, 0.1, 0.9]]]] * 3)
    method = build(METHODS['VICRegL'] | dict(match_radius=0.1))
    assert method(views, far)['matched_fraction'] == 0
    plain = build(METHODS['VICRegL'])
    plain.load_state_dict(method.state_dict())
    assert method(views, far)['local_inv'] < plain(views, far)['local_inv']


def test_small_views_come_after_two_large_ones():
    method = build(METHODS['VICRegL'])
    large, maps = random_batch(4)
    small = [torch.randn(4, 3, 24, 40) for _ in range(2)]
    outputs, gradients = train_step(method, [*large, *small], maps.repeat(1, 2, 1, 1))
    assert all(value.isfinite() for value in outputs.values())
    with pytest.raises(UserError, match='56 x 56, 24 x 40, 56 x 56, 24 x 40 pixels.*two large'):
        method([large[0], small[0], large[1], small[1]], maps.repeat(1, 2, 1, 1))
    with pytest.raises(UserError, match='two large views'):
        method(large[:1], maps[:, :1])
    for size in (40, 96), (96, 40), (56, 57):
        with pytest.raises(UserError, match=f'56 x 56, {size[0]} x {size[1]} pixels.*none larger'):
            method([*large, torch.randn(4, 3, *size)], maps.repeat(1, 2, 1, 1)[:, :3])


def test_an_expander_exists_where_its_loss_has_weight():
    expanders = {key: METHODS['VICRegL'][key] for key in ('projector', 'maps_projector')}
    views, maps = random_batch(4)
    for alpha, absent in (1., 'maps_projector'), (0., 'projector'):
        row = dict(type='VICRegL', alpha=alpha, **expanders)
        method = build(row)
        assert getattr(method, absent) is None and method.needs_geometry == (alpha < 1)
        outputs, gradients = train_step(method, views, maps if alpha < 1 else None)
        assert [key for key in outputs if key.startswith('loss')] == [
            'loss_global' if alpha else 'loss_local']
        needed = ({*expanders} - {absent}).pop()
        with pytest.raises(UserError, match=f'without its {needed}'):
            build({**row, needed: None})


def test_impossible_settings_say_what_is_possible():
    row = METHODS['VICRegL']
    with pytest.raises(UserError, match='projector takes 8 channels, the backbone gives 24'):
        build({**row, 'projector': dict(row['projector'], in_channels=8)})
    with pytest.raises(UserError, match='alpha must be'):
        build({**row, 'alpha': 1.5})
    views, maps = random_batch(1)
    with pytest.raises(UserError, match='one tile has no variance.*at least 2 tiles'):
        build(row)(views, maps)


def test_the_classifier_learns_labels_and_teaches_the_backbone_nothing():
    method = build(METHODS['VICRegL'] | dict(num_classes=3))
    assert method.batch_keys == ('label',) and build(METHODS['VICRegL']).batch_keys == ()
    method.set_data(10, ['a', 'b', 'c'])
    with pytest.raises(UserError, match='2 classes, the classifier 3'):
        method.set_data(10, ['a', 'b'])
    views, maps = random_batch(4)
    outputs = method(views, maps, label=torch.tensor([0, 1, 2, 0]))
    outputs['loss_classifier'].backward()
    assert all((p.grad is None) == (not name.startswith('classifier'))
               for name, p in method.named_parameters())
    assert outputs['acc_classifier'] in (0, 0.25, 0.5, 0.75, 1)
    assert isinstance(method.backbone, ToyBackbone)
