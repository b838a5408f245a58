"""Published backbones, necks and heads → ours."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from ..errors import nearest
from ..values import Filled, Range
from .fields import Fields

Stages = Annotated[list[Annotated[int, Range(0, 4)]], Filled()]  # of a ResNet, 0 is the stem


def typed(fields: Fields, kind: str) -> Fields:
    """Return a dict whose type must be the one that its method has."""
    if (found := fields.take('type')) != kind:
        raise fields.wrong(f"the type is '{found}'; expected '{kind}'")
    return fields


# Backbones

def backbone(model: Fields, sobel: bool = False) -> dict[str, Any]:
    """Return the backbone of a model, behind a Sobel layer where its input is edges."""
    fields = model.part('backbone')
    kind = fields.take('type')
    if kind not in ('ResNet', 'ResNeXt'):
        raise fields.wrong(f"no backbone is called '{kind}'; expected ResNet or ResNeXt")
    channels = 2 if sobel else 3
    if (found := fields.take('in_channels', 3)) != channels:
        fields.mistake('in_channels', f'the method gives its backbone {channels} channels, not '
                                      f'{found}')
    fields.only('style', 'pytorch', 'only the stride in the 3 x 3 convolution is here')
    fields.only('conv_cfg', None, 'only plain convolutions are here')
    fields.only('norm_eval', False, 'statistics are always learnt here')
    fields.ignore('it saves memory only', 'with_cp')
    ours = dict(type=kind, **fields.given('depth', 'zero_init_residual', 'groups',
                                          'frozen_stages'))
    if (width := fields.take('base_width', None)) is not None:
        ours['width_per_group'] = width
    if (indices := fields.take('out_indices', None, Stages)) is not None:
        ours['out_indices'] = list(indices)
    if (norm := fields.take('norm_cfg', None, dict)) is not None:
        ours['norm_cfg'] = {key: value for key, value in norm.items()
                            if (key, value) != ('requires_grad', True)}
    fields.close()
    if sobel:
        return dict(type='SobelBackbone', backbone=dict(ours, in_channels=2))
    return ours


# Necks

def neck(model: Fields, key: str = 'neck', pooled: bool = True, vectors: bool = False
         ) -> dict[str, Any]:
    """Return a neck of a model.

    Args:
        model: the dict in which it stands.
        key: under which.
        pooled: whether the published neck pools maps; False for a method that does it before,
            while our neck pools.
        vectors: whether it takes vectors, as a predictor does.
    """
    fields = model.part(key)
    kind = fields.take('type', kind=str)
    if kind not in NECKS:
        raise fields.wrong(f"no neck here is called '{kind}' (there are: {', '.join(NECKS)})",
                           nearest(str(kind), NECKS))
    if kind not in UNPOOLED:
        fields.only('with_avg_pool', pooled and not vectors, 'here '
                    + ('it takes vectors' if vectors else 'maps are pooled once'), default=True)
    ours = NECKS[kind](fields)
    if vectors:
        ours['with_avg_pool'] = False
    fields.close()
    return ours


def _alike(kind: str, *keys: str) -> Callable[[Fields], dict[str, Any]]:
    """Return what translates a neck whose arguments are called as ours."""
    return lambda fields: dict(type=kind, **fields.given('in_channels', 'out_channels', *keys))


def _own_statistics(kind: str, *keys: str) -> Callable[[Fields], dict[str, Any]]:
    """The same for one whose norm sees the rows of its own process unless it says otherwise."""
    def translate(fields: Fields) -> dict[str, Any]:
        ours = _alike(kind, *keys)(fields)
        ours['sync_bn'] = fields.take('sync_bn', False)
        if not ours['sync_bn']:
            fields.note('kept', 'the norm sees the rows of its own process only, as published; '
                        'sync_bn=True lets it see all', 'model.' + '.'.join(fields.path[1:]))
        return ours
    return translate


def _dense(fields: Fields) -> dict[str, Any]:
    fields.take('with_avg_pool', False)  # of single vectors, which this neck takes as they are
    fields.only('num_grid', None, 'the grid is that of the feature map here')
    return _alike('DenseCLNeck', 'hid_channels')(fields)


def _matching(fields: Fields) -> dict[str, Any]:
    return dict(type='MatchingNeck', channels=_channels(fields), linear=fields.take('linear', True))


def _attention(fields: Fields) -> dict[str, Any]:
    fields.only('kernel_size', 1, "a cell's score comes from its vector alone here")
    fields.only('padding', 0, "a cell's score comes from its vector alone here")
    fields.only('linear', True, 'this neck always ends with its linear layer here')
    return dict(type='AttentionMatchingNeck', channels=_channels(fields),
                mid_channels=fields.take('mid_dim'))


def _channels(fields: Fields) -> int:
    channels = fields.take('in_channels')
    fields.only('out_channels', channels, f'cells keep their {channels} channels here')
    return channels


UNPOOLED = ('DenseCLNeck', 'NonLinearNeckV1Dense', 'MatchingNeck', 'AttentionMatchingNeck',
            'AvgPoolNeck')
NECKS: dict[str, Callable[[Fields], dict[str, Any]]] = {
    'LinearNeck': _alike('LinearNeck'),
    'NonLinearNeckV0': _own_statistics('NonLinearNeckV0', 'hid_channels'),
    'NonLinearNeckV1': _alike('NonLinearNeck', 'hid_channels'),
    'NonLinearNeckV2': _own_statistics('NonLinearNeckV2', 'hid_channels'),
    'NonLinearNeckSimCLR': _alike('NonLinearNeckSimCLR', 'hid_channels', 'num_layers', 'sync_bn',
                                  'with_bias', 'with_last_bn'),
    'RelativeLocNeck': _own_statistics('RelativeLocNeck'),
    'AvgPoolNeck': lambda fields: dict(type='AvgPoolNeck'),
    'DenseCLNeck': _dense, 'NonLinearNeckV1Dense': _dense, 'MatchingNeck': _matching,
    'AttentionMatchingNeck': _attention}


# Heads

def temperature(model: Fields, kind: str = 'ContrastiveHead') -> float:
    """Return the temperature of a contrastive head, which is an argument of the method here."""
    head = typed(model.part('head'), kind)
    found = head.take('temperature', 0.1)
    head.close()
    return found


def cls_head(model: Fields) -> dict[str, Any]:
    """Return the classifier of a model: one, or one on each of several stages."""
    head = model.part('head')
    kind = head.take('type')
    if kind == 'ClsHead':
        ours = dict(type=kind, in_channels=head.take('in_channels', 2048),
                    num_classes=head.take('num_classes', 1000),
                    with_avg_pool=head.take('with_avg_pool', False))
    elif kind == 'MultiClsHead':
        ours = _multi_head(head)
    else:
        raise head.wrong(f"no classifier here is called '{kind}'",
                         nearest(str(kind), ('ClsHead', 'MultiClsHead')))
    head.close()
    return ours


def _multi_head(head: Fields) -> dict[str, Any]:
    channels = {'resnet50': [64, 256, 512, 1024, 2048]}
    name = head.take('backbone', 'resnet50', str)
    if name not in channels:
        raise head.wrong(f"the sizes of maps of '{name}' are not published; expected resnet50")
    head.only('pool_type', 'specified', 'maps are pooled to about 9,000 numbers here',
              default='adaptive')
    head.only('with_last_layer_unpool', False, 'the last map is pooled as all are here')
    norm = head.part_or_empty('norm_cfg')
    norm.take('type', 'BN', Literal['BN', 'SyncBN'])  # of all ranks here, either way
    norm.only('momentum', 0.1, 'running statistics move by 0.1 here')
    affine = norm.take('affine', True, bool)
    norm.close()
    indices = list(head.take('in_indices', (0,), Stages))
    return dict(type='MultiClsHead', in_channels=[channels[name][i] for i in indices],
                num_classes=head.take('num_classes', 1000), in_indices=indices, affine=affine)
