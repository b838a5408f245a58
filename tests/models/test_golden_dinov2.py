"""Full training steps of DINOv2's published code, reproduced from their initial state."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_zoo import assert_golden

from openselfsup.models.masking import MaskedPatches
from openselfsup.models.method import Progress
from openselfsup.models.parts import total_loss
from openselfsup.registry import ALGORITHMS
from openselfsup.training.clipping import Clip

pytest.importorskip('timm')
GOLDEN = Path(__file__).parents[1] / 'data/golden'


def our_name(name: str) -> str:
    """Return where a published tensor of a network stands in a student or a teacher."""
    for theirs, ours in (('dino_head', 'head'), ('ibot_head', 'patch_head'),
                         ('register_tokens', 'reg_token'), ('mlp.w12', 'mlp.fc1'),
                         ('mlp.w3', 'mlp.fc2')):
        name = name.replace(theirs, ours)
    if name.startswith('backbone.') and 'mask_token' not in name:
        name = name.replace('backbone.', 'backbone.net.')
    return name


def our_state(golden, prefix: str, registers: bool) -> dict[str, torch.Tensor]:
    """Return published tensors by our names; with registers, timm's class token has its place."""
    state = {our_name(key[len(prefix):]): torch.from_numpy(golden[key])
             for key in golden.files if key.startswith(prefix)}
    if 'backbone.mask_token' in state:
        state['backbone.mask_token'] = state['backbone.mask_token'][None]
    place = 'backbone.net.pos_embed'
    if registers and place in state:
        if 'grad' not in prefix:
            state['backbone.net.cls_token'] = state['backbone.net.cls_token'] + state[place][:, :1]
        state[place] = state[place][:, 1:]
    return state


def build(settings: dict):
    registers = settings['registers']
    network = dict(
        type='TimmBackbone', embed_dim=settings['dim'], depth=settings['depth'],
        num_heads=settings['heads'], patch_size=settings['patch'], init_values=1e-5,
        img_size=settings['global_size'], model='vit_small_patch14_dinov2')
    if registers:
        network |= dict(model='vit_small_patch14_reg4_dinov2', reg_tokens=registers)
    if settings['ffn'] != 'mlp':
        network |= dict(mlp_layer='SwiGLUPacked', act_layer='silu', mlp_ratio=5.34)
    head = dict(type='DINOHead', hidden=settings['hidden'], bottleneck=settings['bottleneck'],
                trained_norm=True, prototypes=settings['prototypes'])
    return ALGORITHMS.build(dict(
        type='DINOv2', backbone=network, head=head, warmup_temperature=0.04,
        patch_head=(dict(head, prototypes=settings['ibot_prototypes'])
                    if settings['separate_head'] else None),
        teacher_temperature=0.07, temperature_epochs=1., teacher_momentum=0.9,
        final_momentum=0.9, spread_weight=settings['koleo_weight'],
        targets='centering' if settings['centering'] == 'centering' else 'sinkhorn'))


@pytest.mark.parametrize('case', ['centering_tied', 'sinkhorn_untied_registers'])
def test_steps_are_the_published_ones(case):
    golden = np.load(GOLDEN / f'dinov2_step_{case}.npz')
    settings, groups = (json.loads(str(golden[key])) for key in ('settings_json',
                                                                 'param_groups_json'))
    method = build(settings)
    registers = bool(settings['registers'])
    for network in method.student, method.teacher:
        network.load_state_dict(our_state(golden, 'state/student/', registers))
    parameters = dict(method.student.named_parameters())
    groups = {our_name(name): group for name, group in groups.items()}
    if registers:  # one step of ours stands for two, of the token and of its place
        rate, decay, last = groups['backbone.net.cls_token']
        groups['backbone.net.cls_token'] = [2 * rate, decay / 2, last]
    optimizer = torch.optim.AdamW([dict(params=[p], name=name) for name, p in parameters.items()],
                                  betas=settings['betas'], eps=settings['eps'])
    probabilities = []
    real = method.soft_targets
    method.soft_targets = lambda *arguments, **more: probabilities.append(
        real(*arguments, **more)) or probabilities[-1]
    steps = len([key for key in golden.files if key.endswith('/lr')])
    assert steps >= 2
    for step in range(steps):
        at = f'step{step}/'
        crops, locals_ = (torch.from_numpy(golden[f'{at}{kind}_crops']) for kind in
                          ('global', 'local'))
        views = [*crops.chunk(2), *locals_.chunk(settings['n_local'])]
        method.draw_masks = lambda view, at=at: MaskedPatches.of(golden[f'{at}masks'])
        method.begin_step(Progress(0, step, 3, 3))
        assert method.temperature == pytest.approx(float(golden[f'{at}teacher_temp']))
        assert method.momentum == pytest.approx(float(golden[f'{at}momentum']))
        outputs = method(views)
        optimizer.zero_grad()
        total_loss(outputs).backward()

        first, second = probabilities[0].chunk(2)
        assert_golden(torch.cat([second, first]), golden[f'{at}teacher_dino_probs_swapped'], 'p')
        assert_golden(probabilities[1], golden[f'{at}teacher_ibot_probs'], 'p of patches')
        probabilities.clear()
        logged = {key.rpartition('/')[2]: float(golden[key]) for key in golden.files
                  if key.startswith(f'{at}logged/')}
        for name, published in (
                ('loss_dino', logged['dino_local_crops_loss'] + logged['dino_global_crops_loss']),
                ('loss_ibot', 2 * logged['ibot_loss']), ('loss_koleo', 2 * logged['koleo_loss'])):
            assert outputs[name].item() == pytest.approx(published, rel=1e-5), name
        if settings['centering'] == 'centering':
            assert_golden(method.centre.value, golden[f'{at}dino_center_after'].ravel(), 'centre')
            assert_golden(method.patch_centre.value, golden[f'{at}ibot_center_after'].ravel(),
                          'centre of patches')
        gradients = our_state(golden, f'{at}grad/', registers)
        assert gradients.keys() == parameters.keys()
        for name, gradient in gradients.items():
            assert_golden(parameters[name].grad, gradient, name, atol=1e-5)
        bound = float(golden[f'{at}clip'])
        clip = Clip(method, None if registers else bound, 'part')
        clip([])
        for name, theirs in (('backbone', 'backbone'), ('head', 'dino_head'),
                             ('patch_head', 'ibot_head')):
            if f'{at}grad_norm/{theirs}' not in golden:
                continue
            norm = clip.norms[f'grad_norm_{name}']
            if registers:  # with the class token's place, whose gradient is the token's
                if name == 'backbone':
                    norm = norm.hypot(parameters['backbone.net.cls_token'].grad.norm())
                torch.nn.utils.clip_grads_with_norm_(clip.parts[name], bound, norm)
            assert_golden(norm, golden[f'{at}grad_norm/{theirs}'], name)
        for group in optimizer.param_groups:
            rate, decay, last = groups[group['name']]
            group['lr'] = rate * float(golden[f"{at}{'last_layer_lr' if last else 'lr'}"])
            group['weight_decay'] = decay * float(golden[f'{at}weight_decay'])
        optimizer.step()
        method.end_step()
    for network in 'student', 'teacher':
        ours = getattr(method, network).state_dict()
        for name, published in our_state(golden, f'final/{network}/', registers).items():
            found = ours[name]
            if name.endswith('qkv.bias'):  # the key's third has no gradient but rounding
                found, published = (torch.cat([x.chunk(3)[0], x.chunk(3)[2]])
                                    for x in (found, published))
            assert_golden(found, published, f'{network} {name}', atol=5e-5)
