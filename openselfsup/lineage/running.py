"""Published optimiser, learning rate and runtime settings → ours."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..errors import nearest
from ..values import Count
from .fields import Fields

#: Names at the top that the published trainer reads and nothing here needs, and why.
NOT_NEEDED = {
    'dist_params': 'the backend follows the device',
    'cudnn_benchmark': 'kernels are those that cuDNN proposes',
    'log_level': 'everything is logged',
    'workflow': 'training is all that a run does',
    'train_cfg': 'nothing reads it', 'test_cfg': 'nothing reads it',
    'gpus': 'processes are counted as they are started'}
# What leaves norm layers and biases out of decay and adaptation, by their names.
NORM_PATTERN, BIAS_PATTERN = r'(bn|gn)(\d+)?.(weight|bias)', 'bias'


# Optimiser

def translate_optimizer(fields: Fields) -> dict[str, Any]:
    """Return our ``optimizer``."""
    kind = fields.take('type', kind=str)
    if kind not in ('SGD', 'LARS', 'Adam', 'AdamW'):
        raise fields.wrong(f"no optimiser here is called '{kind}'",
                           nearest(str(kind), ('SGD', 'LARS', 'Adam', 'AdamW')))
    ours = dict(type=kind, lr=fields.take('lr'),
                **fields.given('momentum', 'weight_decay', 'nesterov', 'dampening'))
    if kind == 'LARS':  # published: without momentum unless it is given, every tensor is adapted
        ours.update(fields.given('eta'), momentum=ours.get('momentum', 0.0), lars_exclude=False)
    else:
        ours.update(fields.given('betas', 'eps'))
    if (options := fields.take('paramwise_options', None)) is not None:
        _paramwise(fields, ours, options)
    if 'lars_exclude' in ours:
        fields.note('kept', 'tensors of one dimension are adapted and decay as all do, unless '
                    'paramwise_options say otherwise; lars_exclude=None leaves them out',
                    'optimizer.lars_exclude', key='type')
    fields.close()
    return ours


def _paramwise(fields: Fields, ours: dict[str, Any], options: Any) -> None:
    excluded = dict(weight_decay=0., lars_exclude=True)
    if options == {NORM_PATTERN: excluded, BIAS_PATTERN: excluded}:
        if ours['type'] == 'LARS':
            del ours['lars_exclude']  # it leaves them out itself
        else:
            ours['decay_norm_and_bias'] = False
        fields.note('differs', 'norm layers and biases are left out of decay and adaptation by '
                    'what they are; the published names miss some (downsample.1.weight)',
                    'optimizer', key='paramwise_options')
    elif options == {'norm_decay_mult': 0.0}:
        fields.note('kept', 'without effect: no parameter is called so, and norm layers decay',
                    'optimizer', key='paramwise_options')
    else:
        ours['paramwise_options'] = options


def translate_optimizer_config(fields: Fields) -> dict[str, Any]:
    """Return ``clip_grad`` and ``accumulate``; :func:`precision` has taken ``use_fp16``."""
    ours: dict[str, Any] = dict(accumulate=fields.take('update_interval', 1, Count))
    if (clip := fields.take('grad_clip', None)) is not None:
        clip = fields.part_of(clip, 'grad_clip')
        clip.only('norm_type', 2, 'the norm is L2 here')
        ours['clip_grad'] = clip.take('max_norm')
        clip.close()
    fields.ignore('gradients are shared by DistributedDataParallel', 'coalesce',
                  'bucket_size_mb')
    fields.close()
    return ours


def precision(top: Fields, optimizer_config: Fields) -> str:
    """Return ``amp`` as published: float32, or fp16 by apex."""
    if any([fields.take('use_fp16', False, bool) for fields in (top, optimizer_config)]):
        top.note('kept', "fp16, on a GPU; amp='auto' would take bf16 where there is bf16", 'amp',
                 key='use_fp16')
        return 'fp16'
    top.note('kept', "float32, as published; amp='auto' is faster", 'amp', key='use_fp16')
    return 'off'


# Learning rate

def translate_schedule(fields: Fields, epochs: int) -> dict[str, Any]:
    """Return our ``schedule`` for a run of so many epochs."""
    policy = fields.take('policy', kind=str)
    policies: dict[str, Callable[[Fields], dict[str, Any]]] = {
        'CosineAnnealing': _cosine, 'step': partial(_step, epochs=epochs),
        'fixed': lambda _: dict(type='Constant')}
    if policy not in policies:
        raise fields.wrong(f"no policy here is called '{policy}'", nearest(str(policy), policies))
    ours = policies[policy](fields)
    warmup = fields.take('warmup', None)
    if warmup not in (None, 'linear'):
        raise fields.wrong(f"warmup is '{warmup}'; expected 'linear' or none")
    length, ratio = fields.take('warmup_iters', 0), fields.take('warmup_ratio', 0.1)
    by_epoch = fields.take('warmup_by_epoch', False, bool)
    if warmup:
        if not by_epoch:
            raise fields.wrong(f'a warm-up of {length} iterations; here it is counted in epochs: '
                               'expected warmup_by_epoch=True')
        ours.update(warmup_epochs=length, warmup_start=ratio)
        if ours['type'] == 'Cosine':
            ours['warmup'] = 'within'
    fields.close()
    return ours


def _cosine(fields: Fields) -> dict[str, Any]:
    by = 'epoch' if fields.take('by_epoch', True, bool) else 'iteration'
    if by == 'epoch':
        fields.note('kept', 'the rate is constant within an epoch; configs of ours follow the '
                    'cosine step by step', 'schedule.by', key='policy')
    return dict(type='Cosine', min_lr=fields.take('min_lr', 0.0), by=by)


def _step(fields: Fields, epochs: int) -> dict[str, Any]:
    fields.only('by_epoch', True, 'milestones are epochs here')
    step = fields.take('step', kind=Count | Sequence[Count])
    if isinstance(step, int):  # of mmcv: how often, not when
        step = range(step, epochs, step)
    return dict(type='Step', milestones=list(step), gamma=fields.take('gamma', 0.1))


# The rest

def translate_checkpoints(fields: Fields) -> dict[str, Any]:
    """Return ``checkpoint_interval`` and ``keep_checkpoints``."""
    ours = dict(checkpoint_interval=fields.take('interval', 1))
    if (keep := fields.take('max_keep_ckpts', -1, int)) > 0:
        ours['keep_checkpoints'] = keep
    fields.only('by_epoch', True, 'checkpoints are kept by epochs here')
    fields.close()
    return ours


def translate_log(fields: Fields) -> dict[str, Any]:
    """Return ``log_interval``; text and TensorBoard are always written."""
    ours = dict(log_interval=fields.take('interval', 10))
    for number, hook in enumerate(fields.take('hooks', (), list[dict])):
        if hook.get('type') not in ('TextLoggerHook', 'TensorboardLoggerHook'):
            fields.note('ignored', f"{hook.get('type')}: metrics.jsonl and TensorBoard's events "
                        'are what is written', key=f'hooks.{number}')
    fields.close()
    return ours
