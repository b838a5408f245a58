"""ConCL, alone and with PLM: the published steps and their parts."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_zoo import assert_golden
from toy_model import StagedBackbone, maps_of_crops

from openselfsup.models import concepts
from openselfsup.models.algorithms import momentum
from openselfsup.models.algorithms.concl import ConCL
from openselfsup.models.algorithms.plm_concl import PLMConCL
from openselfsup.models.memories import cell_kmeans
from openselfsup.models.method import Progress

GOLDEN = Path(__file__).parents[1] / 'data/golden'
CASES = {'concl_step_published_shuffled': dict(keys_in_order=False),
         'concl_step_keys_unshuffled': dict(shuffle=True),
         'concl_step_more_than_8_concepts': dict(shuffle=True),
         'concl_step_few_shared_concepts': dict(shuffle=True)}
NECK = dict(type='NonLinearNeck', in_channels=24, hid_channels=24, out_channels=16)
PARTS = {'0': 'backbone', '1': 'neck', '2': 'matching_neck'}
QUEUES = {'queue': 'queue', 'concept_queue': 'concepts.queue', 'queue2': 'queue_dense'}


def maps_of(golden, step):
    """Return the maps of query, key and reference, (B, 3, 2, 3)."""
    crops = golden[f'step{step}/crop_pixels_top_left_height_width_flip']
    union = golden[f'step{step}/union_pixels_top_left_height_width']  # is not flipped
    return maps_of_crops(np.concatenate([crops, np.pad(union, ((0, 0), (0, 1)))[:, None]], 1))


def part(golden, prefix):
    """Return the arrays under a prefix with our names; published queues are D x K."""
    found = {}
    for key in golden.files:
        if not key.startswith(prefix):
            continue
        name, value = key[len(prefix):], torch.from_numpy(golden[key])
        queue = name.removesuffix('_ptr')
        if queue in QUEUES:
            found[QUEUES[queue] + ('.vectors' if name == queue else '.pointer')] = (
                value.T if name == queue else value)
        elif name.startswith('encoder'):
            encoder, number, rest = name.split('.', 2)
            found[f'{encoder}.{PARTS[number]}.{rest}'] = value
    return found


def replay(monkeypatch, golden, step):
    """Let a step draw what the published one drew."""
    read = {key: torch.from_numpy(golden[f'step{step}/{key}']) for key in (
        'shuffle', 'kmeans_first_centroid_cells', 'kmeans_reseed_cells', 'padding_order')
        if f'step{step}/{key}' in golden.files}
    monkeypatch.setattr(momentum, 'draw_order', lambda count, device: read['shuffle'])
    if len(read) > 1:
        monkeypatch.setattr(concepts, 'draw_cells', lambda *_: (
            read['kmeans_first_centroid_cells'], read['kmeans_reseed_cells']))
        drawn = read['padding_order']
        monkeypatch.setattr(concepts, 'random_order', lambda count, total: torch.cat(
            [drawn, torch.arange(total - len(drawn))]))


def check_steps(method, golden, monkeypatch, terms):
    """Take the published steps and compare losses, gradients, queues and the final state."""
    loaded = method.load_state_dict(part(golden, 'state/'), strict=False)
    assert not loaded.unexpected_keys
    assert all(key.endswith('filled') for key in loaded.missing_keys)
    optimizer = torch.optim.SGD(method.encoder_q.parameters(), lr=0.1)
    for step in range(3):
        images = torch.from_numpy(golden[f'step{step}/img'])
        maps = maps_of(golden, step)
        replay(monkeypatch, golden, step)
        method.begin_step(Progress(epoch=step, step=step, steps_per_epoch=1, steps=3))
        if step:
            check_terms(method, list(images.unbind(1)), maps, golden, step, terms)
        method.zero_grad()
        outputs = method(list(images.unbind(1)), maps)
        loss = sum(value for key, value in outputs.items() if key.startswith('loss'))
        loss.backward()
        assert_golden(loss, golden[f'step{step}/loss'], f'loss of step {step}')
        published = part(golden, f'step{step}/grad/')
        for key, parameter in method.named_parameters():
            if key in published:
                assert_golden(parameter.grad, published[key], f'step {step} gradient of {key}')
        assert len(published) == len(list(method.encoder_q.parameters()))
        state = method.state_dict()
        for key, value in part(golden, f'step{step}/').items():
            assert_golden(state[key], value, f'step {step} {key}')
        optimizer.step()
    state = method.state_dict()
    for key, value in part(golden, 'final/').items():
        assert_golden(state[key], value, f'final {key}')


def check_terms(method, images, maps, golden, step, terms):
    """Compare every term by itself, as a copy of the method weighs it by a half."""
    for name, weights in terms.items():
        twin = copy.deepcopy(method)
        for attribute, value in weights.items():
            setattr(twin, attribute, value)
        found = 2 * twin(images, maps)[f'loss_{name}']
        assert_golden(found, golden[f'step{step}/{name}_l'], f'{name} loss of step {step}')


@pytest.mark.parametrize('case', CASES)
def test_losses_gradients_queues_and_final_state_are_the_published_ones(case, monkeypatch):
    golden = np.load(GOLDEN / f'{case}.npz')
    method = ConCL(StagedBackbone(), NECK, queue_len=160, feat_dim=16, momentum=0.99,
                   num_concepts=int(golden['meta/num_concepts']), warmup_epochs=1, **CASES[case])
    check_steps(method, golden, monkeypatch, dict.fromkeys(('instance', 'concept'),
                                                           dict(concept_weight=0.5)))


@pytest.mark.parametrize('case, arguments', [
    ('plm_concl_step_published_shuffled', dict(keys_in_order=False)),
    ('plm_concl_step_keys_unshuffled', dict(shuffle=True))])
def test_steps_with_plm_are_the_published_ones(case, arguments, monkeypatch):
    golden = np.load(GOLDEN / f'{case}.npz')
    method = PLMConCL(StagedBackbone(), dict(NECK, type='DenseCLNeck'),
                      dict(type='MatchingNeck', channels=16), queue_len=160, feat_dim=16,
                      momentum=0.99, concept_weight=0.5, dense_weight=0.3, num_concepts=4,
                      warmup_epochs=1, **arguments)
    halves = dict(concept_weight=0.5, dense_weight=0.5)
    check_steps(method, golden, monkeypatch, dict(
        instance=dict(concept_weight=0.25, dense_weight=0.25), concept=halves, dense=halves))


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('step', [1, 2])
def test_clusters_label_maps_and_prototypes_are_the_published_ones(case, step):
    golden = np.load(GOLDEN / f'{case}.npz')
    read = {key: torch.from_numpy(golden[f'step{step}/{key}']) for key in (
        'reference_cells', 'kmeans_first_centroid_cells', 'kmeans_reseed_cells', 'centroids',
        'assign_reference', 'assign_map_q', 'assign_map_k')}
    found = cell_kmeans(read['reference_cells'], read['kmeans_first_centroid_cells'],
                        read['kmeans_reseed_cells'])
    assert torch.equal(found.labels, read['assign_reference'].flatten(1))
    assert_golden(found.centroids, read['centroids'], 'centroids')
    maps = maps_of(golden, step)
    clusters = read['centroids'].shape[1]
    planes = F.one_hot(read['assign_reference'], clusters).permute(0, 3, 1, 2).float()
    finder = concepts.Concepts(clusters, 8, 4)
    for view, name in enumerate('qk'):
        ours = finder.in_view(planes, maps[:, (view, 2)], (7, 7), 'axis_aligned')
        assert torch.equal(ours.argmax(2), read[f'assign_map_{name}'].flatten(1))
        assert (ours.sum(2) == 1).all()


def test_empty_clusters_begin_anew_as_published():
    golden = np.load(GOLDEN / 'concl_kmeans_with_empty_clusters.npz')
    read = {key: torch.from_numpy(golden[key]) for key in golden.files}
    found = cell_kmeans(read['cells'], read['first_centroid_cells'], read['reseed_cells'])
    assert torch.equal(found.labels, read['assignments'])
    assert_golden(found.centroids, golden['centroids'], 'centroids')
    assert found.reseeded.sum() > 0
