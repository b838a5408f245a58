"""What a checkpoint says of its backbone: where it is, how to build it, what it was shown.

Training writes it as ``meta['backbone']``, a dict of plain types, and an extracted backbone keeps
it. It is read before any guess from names; files of others, and ours from before, have none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Integral
from typing import Any, TypeGuard

from torch import nn

from ..errors import UserError
from .config_text import read_config_text
from .names import OUR_PREFIX, recorded_prefix, weights_of
from .values import mean_and_std

# Norm layers that differ from a plain one in training only: over ranks, over parts of a batch.
_ONLY_IN_TRAINING = ('SyncBN', 'SplitBN')
_RESNETS = ('ResNet', 'ResNeXt')


@dataclass
class BackboneRecord:
    """What a checkpoint says of its backbone.

    Attributes:
        prefix: what the names of its weights begin with, such as 'encoder_q.backbone.'.
        config: the dict that it was built from, with ``type``; None if that is unknown.
        out_channels: channels of its feature maps.
        normalize: ``mean`` and ``std`` of the images it was trained on, three numbers each, for
            values in [0, 1]; None if unknown.
        imports: the user's own modules, one of which may register its ``type``.
        method: that trained a ``TimmBackbone`` whose config does not say what stands for an
            image: a run of ours from before it was written. '' of others.
        unreadable: why ``normalize`` is unknown though a run wrote it: the config in a checkpoint
            of ours, from before there was such a record, is damaged; '' if nothing is.
    """

    prefix: str
    config: dict[str, Any] | None = None
    out_channels: list[int] = field(default_factory=list)
    normalize: dict[str, Any] | None = None
    imports: list[str] = field(default_factory=list)
    method: str = ''
    unreadable: str = ''

    def as_dict(self) -> dict[str, Any]:
        """Return the record as ``meta['backbone']`` holds it."""
        return {key: value for key, value in asdict(self).items()
                if value or key not in ('method', 'unreadable')}

    @property
    def is_resnet(self) -> bool:
        """Whether it is a ResNet or ResNeXt of ours."""
        return self.config is not None and self.config['type'] in _RESNETS

    def config_for_use(self) -> dict[str, Any] | None:
        """Return ``config`` for a network that will not be trained as this one was.

        It is to be filled from the checkpoint, so ``init_cfg`` is left out, and so is which
        stages this training froze; batch norm over ranks or over parts of a batch becomes plain
        batch norm, which is the same in evaluation.
        """
        return None if self.config is None else _for_use(self.config)


def _for_use(config: Mapping[str, Any]) -> dict[str, Any]:
    config = {key: value for key, value in config.items()
              if key not in ('init_cfg', 'frozen_stages')}
    norm, inner = config.get('norm_cfg'), config.get('backbone')
    if isinstance(norm, Mapping) and norm.get('type') in _ONLY_IN_TRAINING:
        config['norm_cfg'] = {**{key: norm[key] for key in norm if key != 'num_splits'},
                              'type': 'BN'}
    if isinstance(inner, Mapping):  # behind a Sobel layer
        config['backbone'] = _for_use(inner)
    return config


def describe_backbone(algorithm: nn.Module, cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint is to say of the backbone of a method.

    Args:
        algorithm: has the module ``backbone`` somewhere among its modules.
        cfg: the config of the run as plain dicts: ``model``, ``normalize``, ``custom_imports``.

    Returns:
        :class:`BackboneRecord` as a dict.

    Raises:
        UserError: ``backbone`` is no module of the method, or its ``out_channels`` no numbers.
    """
    backbone: Any = algorithm.backbone
    normalize = {key: [float(x) for x in value]
                 for key, value in (cfg.get('normalize') or {}).items()}
    return BackboneRecord(
        prefix_of_backbone(algorithm), _plain(_config_of(cfg['model'], type(backbone).__name__)),
        channels_of(backbone), normalize or None,
        list((cfg.get('custom_imports') or {}).get('imports', []))).as_dict()


def prefix_of_backbone(algorithm: nn.Module) -> str:
    """Return what the names of the backbone's weights begin with in the state of a method.

    Raises:
        UserError: ``backbone`` is no module of the method, so that its weights are not saved.
    """
    backbone = algorithm.backbone
    for name, module in algorithm.named_modules():
        if module is backbone:
            return f'{name}.' if name else ''
    raise UserError(f'the backbone of {type(algorithm).__name__} is a {type(backbone).__name__} '
                    'that is not among its modules', where='model.type',
                    expected='a module set as an attribute of the method or of a part of it')


def channels_of(backbone: nn.Module) -> list[int]:
    """Return the channels of a backbone's feature maps, [] if it does not say.

    Raises:
        UserError: its ``out_channels`` is no list of whole numbers.
    """
    channels = getattr(backbone, 'out_channels', [])
    if not isinstance(channels, Sequence) or not all(isinstance(x, Integral) for x in channels):
        raise UserError(f'out_channels of {type(backbone).__name__} is {channels!r}',
                        where='model.backbone',
                        expected='a list of whole numbers, one for each feature map')
    return [int(x) for x in channels]


def backbone_record(checkpoint: Mapping[str, Any], where: str) -> BackboneRecord | None:
    """Return what a checkpoint says of its backbone, None if it says nothing.

    Of ours from before there was such a record, it is made from the names and the config.

    Args:
        checkpoint: what the file holds.
        where: path of the file.

    Raises:
        UserError: the record cannot be understood.
    """
    meta: Any = checkpoint.get('meta')
    if recorded_prefix(checkpoint) is None:
        return _from_config(meta, where) if _is_ours(checkpoint, meta) else None
    found = meta['backbone']
    config, imports = found.get('config'), found.get('imports') or []
    method = found.get('method') or _method_of(meta, config)
    channels, unreadable = found.get('out_channels') or [], found.get('unreadable') or ''
    if not (_is_config(config) and _is_list_of(imports, str) and _is_list_of(channels, int)
            and isinstance(unreadable, str) and isinstance(method, str)):
        raise UserError('what this checkpoint says of its backbone (meta.backbone) is damaged',
                        where=where)
    return BackboneRecord(found['prefix'], config, list(channels),
                          mean_and_std(found.get('normalize'), where), list(imports), method,
                          unreadable)


def _method_of(meta: Mapping[str, Any], config: Any) -> str:
    """Return the method of a run that did not write what stands for an image, else ''."""
    if not _lacks_feature(config) or 'config' not in meta:
        return ''
    try:
        model = read_config_text(str(meta['config'])).get('model')
    except ValueError:
        return ''
    found = model.get('type') if isinstance(model, Mapping) else None
    return found if isinstance(found, str) else ''


def _lacks_feature(config: Any) -> bool:
    return (isinstance(config, Mapping) and config.get('type') == 'TimmBackbone'
            and config.get('feature') is None)


def _is_ours(checkpoint: Mapping[str, Any], meta: Any) -> bool:
    return (isinstance(meta, Mapping) and 'config' in meta
            and any(name.startswith(OUR_PREFIX) for name in weights_of(checkpoint)))


def _from_config(meta: Mapping[str, Any], where: str) -> BackboneRecord:
    try:
        cfg = read_config_text(str(meta['config']))
    except ValueError as error:
        return BackboneRecord(OUR_PREFIX, unreadable='the config in this checkpoint cannot be '
                              f'read, so its normalisation is unknown: {error}')
    model, imports = cfg.get('model'), cfg.get('custom_imports')
    config = model.get('backbone') if isinstance(model, Mapping) else None
    names = imports.get('imports') if isinstance(imports, Mapping) else None
    record = BackboneRecord(OUR_PREFIX, config if _is_config(config) else None,
                            imports=list(names) if _is_list_of(names, str) else [],
                            method=_method_of(meta, config))
    try:
        record.normalize = mean_and_std(cfg.get('normalize'), where)
    except UserError as error:
        record.unreadable = error.what
    return record


def _is_list_of(values: Any, kind: type) -> TypeGuard[list | tuple]:
    return isinstance(values, (list, tuple)) and all(isinstance(value, kind) for value in values)


def _is_config(config: Any) -> bool:
    return config is None or isinstance(config, Mapping) and isinstance(config.get('type'), str)


def _config_of(model: Any, name: str) -> Mapping[str, Any] | None:
    """Return the dict that describes the backbone in the config of a method.

    It has the class's name and stands under ``backbone``; or one of both, where a method calls
    its backbone otherwise, or the class is registered by another name. None if nothing does, or
    several that differ: a student and a teacher of two depths.
    """
    parts = described_parts(model)
    by_key = [value for key, value in parts if key == 'backbone']
    by_type = [value for _, value in parts if value['type'] == name]
    found = [value for value in by_key if value in by_type] or by_type or by_key
    return found[0] if found and all(value == found[0] for value in found) else None


def described_parts(value: Any, key: str = '') -> list[tuple[str, Any]]:
    """List every dict with a ``type`` inside of ``value``, with the key it stands under."""
    if isinstance(value, Mapping):
        own = [(key, value)] if key and 'type' in value else []
        return own + [pair for k, v in value.items() for pair in described_parts(v, k)]
    if isinstance(value, (list, tuple)):
        return [pair for item in value for pair in described_parts(item, key)]
    return []


def _plain(value: Any) -> Any:
    """Return a value of a config with plain dicts in place of the config's own."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value
