"""Published models → ours, a function for each method."""

from collections.abc import Callable
from typing import Any

from ..errors import nearest
from .fields import Fields


def translate_model(fields: Fields) -> dict[str, Any]:
    """Return our ``model`` for a published one."""
    kind = fields.take('type')
    if kind not in METHODS:
        raise fields.wrong(f"no published method is called '{kind}' that is here, too (there are: "
                           + ', '.join(METHODS) + ')', nearest(str(kind), METHODS))
    ours = METHODS[kind](fields)
    fields.close()
    return ours


# Methods

def _moco(fields: Fields) -> dict[str, Any]:
    return dict(type='MoCo', backbone=_backbone(fields), neck=_neck(fields), **_queue(fields),
                temperature=_temperature(fields, 'ContrastiveHead'))


def _densecl(fields: Fields) -> dict[str, Any]:
    return dict(type='DenseCL', backbone=_backbone(fields), neck=_neck(fields), **_queue(fields),
                temperature=_temperature(fields, 'ContrastiveHead'),
                loss_lambda=fields.take('loss_lambda', 0.5))


def _plm(fields: Fields) -> dict[str, Any]:
    return dict(type='PLM', backbone=_backbone(fields), neck=_neck(fields),
                matching_neck=_neck(fields, 'neck_matching'), **_queue(fields),
                temperature=_temperature(fields, 'WeightedContrastiveHead'),
                loss_lambda=fields.take('loss_lambda', 0.5))


def _simclr(fields: Fields) -> dict[str, Any]:
    return dict(type='SimCLR', backbone=_backbone(fields), neck=_neck(fields),
                temperature=_temperature(fields, 'ContrastiveHead'))


METHODS: dict[str, Callable[[Fields], dict[str, Any]]] = {
    'MOCO': _moco, 'DenseCL': _densecl, 'LocMatCL': _plm, 'SimCLR': _simclr}


def _queue(fields: Fields) -> dict[str, Any]:
    """Return the settings of momentum contrast, with the published defaults."""
    return dict(queue_len=fields.take('queue_len', 65536), feat_dim=fields.take('feat_dim', 128),
                momentum=fields.take('momentum', 0.999))


def _temperature(fields: Fields, kind: str) -> float:
    """Return the temperature of a contrastive head, which is an argument of the method here."""
    head = _typed(fields.part('head'), kind)
    temperature = head.take('temperature', 0.1)
    head.close()
    return temperature


def _typed(fields: Fields, kind: str) -> Fields:
    """Return a dict whose type must be the one that this method has."""
    if (found := fields.take('type')) != kind:
        raise fields.wrong(f"the type is '{found}'; expected '{kind}'")
    return fields


# Backbones

def _backbone(fields: Fields, in_channels: int = 3) -> dict[str, Any]:
    backbone = fields.part('backbone')
    kind = backbone.take('type')
    if kind not in ('ResNet', 'ResNeXt'):
        raise backbone.wrong(f"no backbone is called '{kind}'; expected ResNet or ResNeXt")
    if (found := backbone.take('in_channels', 3)) != in_channels:
        backbone.mistake('in_channels', f'the method gives its backbone {in_channels} channels, '
                                        f'not {found}')
    backbone.only('style', 'pytorch', 'only the stride in the 3 x 3 convolution is here')
    backbone.only('conv_cfg', None, 'only plain convolutions are here')
    backbone.only('norm_eval', False, 'statistics are always learnt here')
    backbone.ignore('it saves memory only', 'with_cp')
    ours = dict(type=kind, **backbone.given('depth', 'zero_init_residual', 'groups'))
    if (width := backbone.take('base_width', None)) is not None:
        ours['width_per_group'] = width
    if (indices := backbone.take('out_indices', None)) is not None:
        ours['out_indices'] = list(indices)
    if (norm := backbone.take('norm_cfg', None)) is not None:
        ours['norm_cfg'] = {key: value for key, value in norm.items()
                            if (key, value) != ('requires_grad', True)}
    backbone.close()
    return ours


# Necks

def _neck(fields: Fields, key: str = 'neck') -> dict[str, Any]:
    neck = fields.part(key)
    kind = neck.take('type')
    if kind not in NECKS:
        raise neck.wrong(f"no neck here is called '{kind}' (there are: {', '.join(NECKS)})",
                         nearest(str(kind), NECKS))
    ours = NECKS[kind](neck)
    neck.close()
    return ours


def _pooled(kind: str, *keys: str) -> Callable[[Fields], dict[str, Any]]:
    """Return what translates a neck behind average pooling whose arguments are called alike."""
    def translate(neck: Fields) -> dict[str, Any]:
        neck.only('with_avg_pool', True, 'this method pools before its neck')
        return dict(type=kind, **neck.given('in_channels', 'out_channels', *keys))
    return translate


def _dense(neck: Fields) -> dict[str, Any]:
    neck.only('num_grid', None, 'the grid is that of the feature map here')
    return dict(type='DenseCLNeck', **neck.given('in_channels', 'hid_channels', 'out_channels'))


def _matching(neck: Fields) -> dict[str, Any]:
    return dict(type='MatchingNeck', channels=_channels(neck), linear=neck.take('linear', True))


def _attention(neck: Fields) -> dict[str, Any]:
    neck.only('kernel_size', 1, "a cell's score comes from its vector alone here")
    neck.only('padding', 0, "a cell's score comes from its vector alone here")
    neck.only('linear', True, 'this neck always ends with its linear layer here')
    return dict(type='AttentionMatchingNeck', channels=_channels(neck),
                mid_channels=neck.take('mid_dim'))


def _channels(neck: Fields) -> int:
    channels = neck.take('in_channels')
    neck.only('out_channels', channels, f'cells keep their {channels} channels here')
    return channels


NECKS: dict[str, Callable[[Fields], dict[str, Any]]] = {
    'LinearNeck': _pooled('LinearNeck'),
    'NonLinearNeckV1': _pooled('NonLinearNeck', 'hid_channels'),
    'DenseCLNeck': _dense, 'MatchingNeck': _matching, 'AttentionMatchingNeck': _attention}
