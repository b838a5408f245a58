"""Every kind of config takes a step; CA2CL and the combinations with pictures and monitors."""

import functools
import inspect
import json
import sys

import pytest
import torch
from small_runs import REPO, start

from openselfsup.engine.config import load_config
from openselfsup.engine.runner import Runner
from openselfsup.errors import UserError
from openselfsup.evaluation import networks
from openselfsup.pretrained import load_backbone
from openselfsup.registry import ALGORITHMS
from openselfsup.training.launch import Launch

TILES = ['dataset.source={"type": "ImageFolder", "root": "data/demo/kather2016"}',
         'global_batch_size=12', 'log_interval=1', 'epochs=1', 'workers=0', 'amp=off']
TWO_VIEWS = ['dataset.recipe.strong.size=32', 'dataset.recipe.weak.size=32']
ONE_RECIPE = ['dataset.recipe.size=32']
CLUSTERS = ['loss_cluster', 'cluster_smallest', 'cluster_largest', 'clusters_empty',
            'label_agreement']
ATTACK = ['loss_adversarial', 'perturbation', 'skip_step']
MODEL = ['model.queue_len=40']
CONFIGS = sorted(str(path.relative_to(REPO / 'configs').with_suffix(''))
                 for path in (REPO / 'configs').rglob('*.py') if '_base_' not in path.parts)
LARGE = 'OpenSelfSup/'  # ResNet-50: tests/lineage takes a step of each method's with a ResNet-18


def shape(value, key=''):
    """Return what a part of a config is made of, without its numbers."""
    if isinstance(value, dict):
        return tuple(sorted((k, shape(v, k)) for k, v in value.items()))
    return value if key == 'type' else None


def first_of_each_shape():
    """Mark a config slow if one before it has the same method, parts and form of recipe."""
    seen = set()
    for name in CONFIGS:
        cfg = load_config(REPO / f'configs/{name}.py')
        found = shape(cfg.model), 'size' in cfg.dataset.recipe
        large = name.startswith(LARGE)
        marks = pytest.mark.slow if large or found in seen else ()
        if not large:
            seen.add(found)
        yield pytest.param(name, marks=marks)


def small(name):
    """Return the options that make a config's step a matter of a second."""
    cfg = load_config(REPO / f'configs/{name}.py')
    recipe = cfg.dataset.recipe
    keys = [''] if 'size' in recipe else [f'.{key}' for key in recipe]
    has_queue = 'queue_len' in inspect.signature(ALGORITHMS.get(cfg.model.type)).parameters
    narrow = [f'model.{part}.channels=(32, 32, 16)' for part in ('projector', 'maps_projector')
              if part in cfg.model]
    if narrow and 'matching_neck' in cfg.model:
        narrow.append('model.matching_neck.channels=16')
    if cfg.model.type in ('DeepCluster', 'ODC'):  # more clusters than the demo has tiles
        narrow += ['model.head.num_classes=5']
    if 'min_cluster' in cfg.model:
        narrow += ['model.min_cluster=2']
    if cfg.model.type == 'RelativeLoc':
        narrow.append('model.gap=3')
    if cfg.model.type in ('DINO', 'iBOT', 'DINOv2'):
        narrow += [f'model.{head}.{size}' for head in ('head', 'patch_head') if head in cfg.model
                   for size in ('prototypes=64', 'hidden=32')]
        if cfg.model.get('heads_only_epochs'):  # in which the backbone would stay as it is
            narrow.append('model.heads_only_epochs=0')
            narrow.append('model.backbone_warmup_epochs=0')
    if cfg.accumulate > 2:
        narrow.append('accumulate=2')  # of few tiles
    side = 32
    if cfg.model.backbone.type == 'TimmBackbone':
        narrow += [f'model.backbone.{key}={value}' for key, value in dict(
            embed_dim=24, depth=2, num_heads=3).items()]
        side = 56 if 'patch14' in cfg.model.backbone.model else 64
    return ([f'dataset.recipe{key}.size={side}' for key in keys] + narrow
            + (MODEL if has_queue else []))


def runner_of(name, work_dir, *options):
    cfg = load_config(REPO / f'configs/{name}.py', [*TILES, *options])
    return Runner(cfg, Launch(0, 1, torch.device('cpu')), work_dir)


def test_every_registered_method_has_a_config():
    configured = {ALGORITHMS.get(load_config(REPO / f'configs/{name}.py').model.type)
                  for name in CONFIGS}
    registered = {ALGORITHMS.get(name) for name in ALGORITHMS.names()}
    assert {cls for cls in registered if cls.__module__.startswith('openselfsup.')} == configured


@pytest.mark.parametrize('name', first_of_each_shape())
def test_a_step_of_every_config(name, tmp_path):
    runner = runner_of(name, tmp_path, *small(name))
    before = {key: value.clone() for key, value in runner.algorithm.named_parameters()}
    runner.loader.set_position(0, 0)
    batches = iter(runner.loader)
    outputs = runner.step(batches, 1, lr=1e-3)
    batches.close()
    assert all(torch.isfinite(v) for v in outputs.values())
    terms = [value for key, value in outputs.items() if key.startswith('loss_')]
    if terms:  # a method of one loss may call it 'loss'
        torch.testing.assert_close(outputs['loss'], sum(terms))
    for parts, keys in ('cluster', CLUSTERS), ('adversary', ATTACK):
        assert (runner.cfg.model.get(parts) is not None) == (set(keys) <= set(outputs))
    moved = [key for key, value in runner.algorithm.named_parameters()
             if value.requires_grad and not value.equal(before[key])]
    frozen = 'frozen_stages' in str(runner.cfg.model.backbone)
    first = ('patch_embed.proj.weight' if runner.cfg.model.backbone.type == 'TimmBackbone'
             else 'backbone.conv1.weight')
    assert moved and frozen != any(key.endswith(first) for key in moved)
    if 'perturbation' in outputs:
        relative = runner.algorithm.adversary.relative
        assert outputs['skip_step'] == 0 and outputs['perturbation'] > 0
        assert outputs['perturbation'].item() == pytest.approx(0.1, rel=1e-4) or not relative


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A run of the published recipe on two processes."""
    work_dir = tmp_path_factory.mktemp('ca2cl') / 'run'
    process = start([
        sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--standalone',
        '--nproc_per_node=2', 'tools/train.py', 'configs/CA2CL/r18_bs1792_ep100.py', '--work-dir',
        str(work_dir), '--cfg-options', *TILES, *TWO_VIEWS, 'amp=bf16', 'global_batch_size=16'],
        OMP_NUM_THREADS='1')
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return work_dir, output


def test_the_published_recipe_on_two_processes(trained):
    work_dir, output = trained
    assert 'global batch 16 = 2 rank(s) x 8' in output
    rows = [json.loads(line) for line in (work_dir / 'metrics.jsonl').read_text().splitlines()]
    assert len(rows) == 3
    for row in rows:
        assert {'loss_instance', *CLUSTERS, *ATTACK} <= row.keys()
        assert 0 <= row['label_agreement'] <= 1 and row['skip_step'] == 0
        assert row['cluster_smallest'] <= 0.1 <= row['cluster_largest'] <= 1
    for name in ('views.png', 'clusters.png', 'adversarial.png'):
        assert (work_dir / name).stat().st_size > 20_000, name


def published_tar(path):
    """Write a checkpoint with the names and shapes of a published one."""
    shapes = json.loads((REPO / 'tests/data/golden/ca2cl_r18_checkpoint_keys.json').read_text())
    torch.manual_seed(0)
    net = {key: torch.rand(shape) if shape else torch.tensor(7) for key, shape in shapes.items()}
    torch.save(dict(net=net, epoch=100), path)
    return net


@pytest.mark.parametrize('how', ['pretrained', 'init_cfg'])
def test_published_checkpoints_start_a_run(how, tmp_path):
    net = published_tar(tmp_path / 'published.tar')
    options = (['pretrained=' + str(tmp_path / 'published.tar')] if how == 'pretrained' else
               ['model.backbone.init_cfg.type=Pretrained',
                'model.backbone.init_cfg.checkpoint=' + str(tmp_path / 'published.tar')])
    runner = runner_of('CA2CL/r18_bs1792_ep100', tmp_path, *TWO_VIEWS, *options)
    from openselfsup.engine.train import describe_run
    assert any('122/122 tensors matched (CA2CL' in line or '120/120' in line
               for line in describe_run(runner)), describe_run(runner)
    for key, value in runner.algorithm.backbone.state_dict().items():
        assert value.equal(net[f'module.resnet.{key}'].to(value.dtype)), key


def test_weights_of_another_backbone_are_an_error(tmp_path):
    published_tar(tmp_path / 'published.tar')
    with pytest.raises(UserError, match='ResNet-18.*ResNet-34'):
        runner_of('CA2CL/r34_bs1792_ep100', tmp_path, *TWO_VIEWS,
                  'model.backbone.init_cfg.type=Pretrained',
                  'model.backbone.init_cfg.checkpoint=' + str(tmp_path / 'published.tar'))
    with pytest.raises(UserError, match='init_cfg'):
        runner_of('CA2CL/r18_bs1792_ep100', tmp_path, *TWO_VIEWS,
                  'model.backbone.init_cfg.type=Kaiming')


def test_weights_with_something_missing_are_taken_if_asked_for(tmp_path):
    runner = runner_of('CA2CL/r18_bs1792_ep100', tmp_path, *TWO_VIEWS)
    state = runner.algorithm.backbone.state_dict()
    del state['bn1.weight']
    torch.save(state, tmp_path / 'weights.pth')
    asked = ['model.backbone.init_cfg={"type": "Pretrained", "checkpoint": "%s"}'
             % (tmp_path / 'weights.pth')]
    with pytest.raises(UserError, match='119/120.*missing: bn1.weight.*; to take what fits, '
                       'model.backbone.init_cfg.allow_partial=True$'):
        runner_of('CA2CL/r18_bs1792_ep100', tmp_path, *TWO_VIEWS, *asked)
    with pytest.raises(UserError, match='to take what fits, --cfg-options "model.backbone.init_cfg='
                       '.*weights.pth.*allow_partial=True.*" in place of --pretrained$'):
        runner_of('CA2CL/r18_bs1792_ep100', tmp_path, *TWO_VIEWS,
                  f'pretrained={tmp_path / "weights.pth"}')
    # An evaluation or a detector has no such option.
    for load in (functools.partial(networks.from_checkpoint, 'resnet18'), load_backbone):
        with pytest.raises(UserError, match='missing: bn1.weight; expected weights of the whole '
                           'backbone and nothing else$'):
            load(tmp_path / 'weights.pth')
    asked.append('model.backbone.init_cfg.allow_partial=True')
    taken = runner_of('CA2CL/r18_bs1792_ep100', tmp_path, *TWO_VIEWS, *asked)
    key = 'layer4.1.conv2.weight'
    assert taken.algorithm.backbone.state_dict()[key].equal(state[key])


def test_the_last_short_batch_trains(tmp_path):
    runner = runner_of('CA2CL/r18_bs1792_ep100', tmp_path, *TWO_VIEWS, 'global_batch_size=40',
                       'drop_last=False')
    assert len(runner.loader) == 2  # 40 + 11 tiles
    runner.loader.set_position(0, 1)
    outputs = runner.step(iter(runner.loader), 1, lr=1e-3)
    assert torch.isfinite(outputs['loss'])


def test_a_batch_smaller_than_the_clusters_is_explained(tmp_path):
    runner = runner_of('CA2CL/r18_bs1792_ep100', tmp_path, *TWO_VIEWS, 'global_batch_size=8')
    runner.loader.set_position(0, 0)
    with pytest.raises(UserError, match='8 tiles cannot form 10 clusters'):
        runner.step(iter(runner.loader), 1, lr=1e-3)


@pytest.mark.parametrize('name, options, words', [
    ('CA2CL/r18_bs1792_ep100', ['model.cluster.cluster=3'], "did you mean 'clusters'"),
    ('CA2CL/r18_bs1792_ep100', ['model.adversary.encoder=1'], "takes no argument 'encoder'"),
    ('CA2CL/r18_bs1792_ep100', ['dataset.recipe.0.steps.blur.steps.motion.limits=3'],
     "did you mean 'limit'"),
    ('MoCo/r18_v2_bs256_ep200_clusters', ['model.group_neck=None'], 'go together'),
    ('MoCo/r18_v2_bs256_ep200', ['hooks=[{"type": "ClusterPictures"}]'], 'has nothing to draw')])
def test_mistakes_are_explained(name, options, words, tmp_path):
    sizes = TWO_VIEWS if name.startswith('CA2CL') else ONE_RECIPE
    with pytest.raises(UserError, match=words):
        runner = runner_of(name, tmp_path, *sizes, *options)
        runner.train()


def test_warps_are_refused_where_geometry_is_needed_and_rotations_are_not(tmp_path):
    plm = 'PLM_SSL/r18_bs256_ep200_lambda_0.5_adversary'
    steps = 'dataset.recipe.steps.'
    with pytest.raises(UserError, match='bend.*no affine map'):
        runner_of(plm, tmp_path, *ONE_RECIPE, steps + 'bend={"type": "OneOf", "steps": '
                                               '[{"type": "OpticalDistortion"}]}')
    runner = runner_of(plm, tmp_path, *ONE_RECIPE, *MODEL,
                       steps + 'turn={"type": "ShiftScaleRotate"}',
                       steps + 'clahe={"type": "CLAHE"}', steps + 'cut={"type": "Cutout"}')
    runner.loader.set_position(0, 0)
    outputs = runner.step(iter(runner.loader), 1, lr=1e-3)
    assert 0 < outputs['mean_coverage'] < 1 and torch.isfinite(outputs['loss'])
