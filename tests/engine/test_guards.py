"""Going on from released weights, and what is said of runs that are broken on purpose."""

import json
from pathlib import Path

import pytest
import torch
from small_runs import REPO
from torch import nn

from openselfsup import load_backbone
from openselfsup.checkpoints import save
from openselfsup.engine.config import load_config
from openselfsup.engine.hooks import HealthHook, KNNProbeHook
from openselfsup.engine.runner import Runner
from openselfsup.errors import UserError
from openselfsup.registry import BACKBONES
from openselfsup.training.launch import Launch

DINO = REPO / 'configs/DINO/r18_small.py'
CONTINUE = REPO / 'configs/DINOv2/vits14_continue_1gpu.py'
FEW = ['dataset.source.root=data/demo/kather2016', 'global_batch_size=16', 'epochs=1', 'workers=0',
       'log_interval=1', 'amp=off', 'model.head.prototypes=64', 'model.head.hidden=32',
       'model.head.bottleneck=16']
SIZES = [*FEW, 'model.targets=centering', 'model.teacher_temperature=0.04',
         'model.backbone={"type": "TimmBackbone", "model": "resnet18", '
         '"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]}',
         *(f'dataset.recipe.global{i}.size=32' for i in (1, 2)),
         'dataset.recipe.local1.size=24', *(f'dataset.recipe.local{i}=None' for i in (2, 3, 4))]
TINY_VIT = [*FEW, *(f'dataset.recipe.global{i}.size=56' for i in (1, 2)),
            'dataset.recipe.local1.size=28',
            *(f'dataset.recipe.local{i}=None' for i in range(2, 9)),
            *(f'model.backbone.{key}={value}' for key, value in dict(
                embed_dim=24, depth=2, num_heads=2, img_size=56).items())]


@pytest.fixture
def make_dino(tmp_path):
    """Build a run of 3 steps."""
    def make(*options: str) -> Runner:
        return Runner(load_config(DINO, [*SIZES, *options]), Launch(0, 1, torch.device('cpu')),
                      tmp_path)
    return make


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def said(folder: Path) -> list[str]:
    return [line for line in (folder / 'train.log').read_text().splitlines() if '? ' in line]


def released(config: Path, options: list[str], path: Path) -> dict[str, torch.Tensor]:
    """Write weights of the backbone of a config in timm's names; return them in ours."""
    state = BACKBONES.build(load_config(config, options).model.backbone).state_dict()
    save({name.removeprefix('net.'): value for name, value in state.items()
          if name != 'mask_token'}, path)
    return state


def test_a_vit_goes_on_from_weights_in_timms_names(tmp_path):
    weights = released(CONTINUE, TINY_VIT, tmp_path / 'a.pth')
    cfg = load_config(CONTINUE, [*TINY_VIT, f"pretrained={tmp_path / 'a.pth'}", 'epochs=3'])
    runner = Runner(cfg, Launch(0, 1, torch.device('cpu')), tmp_path / 'run')
    assert runner.load_report.matched == runner.load_report.expected == len(weights) - 1
    runner.train()
    probes = [row for row in lines_of(tmp_path / 'run') if 'probe_correspondence' in row]
    assert [row['step'] for row in probes] == [0, 3, 6, 9]
    assert probes[0]['probe_correspondence'] == probes[1]['probe_correspondence']  # heads alone
    alone, joined = (load_backbone(tmp_path / f'run/epoch_{i}.pth').state_dict() for i in (1, 3))
    for name, value in weights.items():
        assert value.equal(alone[name])
    assert not weights['net.blocks.1.attn.proj.weight'].equal(
        joined['net.blocks.1.attn.proj.weight'])


def test_heads_that_learn_nothing_and_a_teacher_of_nothing(make_dino, tmp_path):
    released(DINO, SIZES, tmp_path / 'a.pth')
    runner = make_dino('model.teacher_temperature=1000.', 'model.warmup_temperature=1000.',
                       'model.heads_only_epochs=0.5', f"pretrained={tmp_path / 'a.pth'}",
                       'clip_grad_by=part')
    next(hook for hook in runner.hooks if isinstance(hook, HealthHook)).patience = 1
    runner.train()
    uniform, heads = sorted(said(tmp_path), key=lambda line: 'HEADS?' in line)
    assert 'UNIFORM? teacher_entropy is 1.000' in uniform and 'stays at ln K' in uniform
    assert "model.targets='sinkhorn'" in uniform and 'model.teacher_temperature 0.04' in uniform
    assert 'HEADS? loss_dino is' in heads and 'up to step 3:' in heads
    assert 'model.heads_only_epochs 1 instead of 0.5' in heads
    rows = lines_of(tmp_path)
    assert [row['grad_norm_backbone'] > 0 for row in rows] == [False, False, True]  # 2 of 3 alone
    assert all(row['grad_norm_head'] > 0 and 0 <= row['kl_to_uniform'] < 1e-3 for row in rows)


def test_a_backbone_to_which_all_tiles_are_one(make_dino, tmp_path):
    runner = make_dino('optimizer.lr=0.', 'schedule.warmup_epochs=0')
    next(hook for hook in runner.hooks if isinstance(hook, HealthHook)).narrow_start = 0
    for module in runner.algorithm.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)
            nn.init.ones_(module.bias)
    runner.train()
    constant, = [line for line in said(tmp_path) if 'CONSTANT?' in line]
    assert 'cls_cosine is 1.000' in constant and 'all tiles are the same' in constant
    assert "model.targets='sinkhorn'" in constant and 'global_batch_size (now 16)' in constant


def test_a_teacher_that_takes_one_prototype_for_all_tiles(make_dino, tmp_path):
    runner = make_dino('optimizer.lr=0.', 'model.teacher_temperature=0.001',
                       'model.warmup_temperature=0.001')
    for part in (runner.algorithm.student, runner.algorithm.teacher):
        last = part['head'].mlp[-1]
        nn.init.zeros_(last.weight)
        nn.init.ones_(last.bias)
    runner.train()
    constant, = [line for line in said(tmp_path) if 'CONSTANT?' in line]
    assert 'kl_to_uniform is 1.000' in constant and "model.targets='sinkhorn'" in constant
    assert all(row['cls_cosine'] < 0.99 for row in lines_of(tmp_path))  # the backbone sees tiles


def test_a_decay_that_leaves_nothing_of_a_backbone_is_told(make_dino, tmp_path):
    probe = dict(type='KNNProbeHook', interval=1, size=32,
                 source=dict(type='ImageFolder', root='data/demo/kather2016'))
    decay = dict(type='SGD', lr=1., weight_decay=1.)  # w - lr (g + w) = -g
    make_dino(f'hooks={[probe]}', f'optimizer={decay}', 'schedule.warmup_epochs=0',
              'model.teacher_momentum=0.', 'model.final_momentum=0.').train()
    start, end = [row['probe_knn'] for row in lines_of(tmp_path) if 'probe_knn' in row]
    worse, = [line for line in said(tmp_path) if 'BELOW START?' in line]
    assert end < start and (f'probe_knn is {end:.3f} after step 3, and was {start:.3f} before'
                            in worse)
    assert not (tmp_path / 'best_knn.pth').exists()


def test_a_backbone_that_gets_worse_is_told_once_and_not_kept(make_dino, tmp_path):
    probe = dict(type='KNNProbeHook', interval=1, size=32,
                 source=dict(type='ImageFolder', root='data/demo/kather2016'))
    runner = make_dino(f'hooks={[probe]}', 'epochs=3')
    hook = next(hook for hook in runner.hooks if isinstance(hook, KNNProbeHook))
    scores = iter([0.9, 0.83, 0.5, 0.4])  # of 50 tiles: .07 is noise
    hook.scores = lambda features: {'probe_knn': next(scores)}
    runner.train()
    worse, = [line for line in said(tmp_path) if 'BELOW START?' in line]
    assert 'probe_knn is 0.500 after step 6, and was 0.900 before the first' in worse
    assert 'what the run started from' in worse
    assert 'model.backbone_warmup_epochs 1 instead of 0' in worse and 'layer_decay' in worse
    assert not (tmp_path / 'best_knn.pth').exists()


def test_a_healthy_run_is_left_alone(make_dino, tmp_path):
    make_dino().train()
    assert not said(tmp_path)


def test_heads_do_not_learn_alone_on_a_random_backbone(make_dino):
    with pytest.raises(UserError, match='names none; expected --pretrained FILE'):
        make_dino('model.heads_only_epochs=1')
