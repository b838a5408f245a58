"""The config of semantic segmentation."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin

from ...errors import UserError, nearest
from ...models.backbones.resnet import Depth
from ...values import AMP

_FIXED = ('backbone', 'classes', 'codes', 'depth', 'freeze', 'ignore_index', 'layer_decay',
          'width')
# YAML reads off and on as truth values; configs of earlier versions have true and false.
SWITCH = {True: 'bf16', False: 'off'}
_LEAST = dict(width=1, crop=32, batch_size=1, iterations=1, lr=1e-12, weight_decay=0, seed=0,
              layer_decay=1e-3)


@dataclass
class SemanticConfig:
    """What a semantic config may set.

    Attributes:
        data: folder with ``{train,val,test}/{images,masks}`` and ``classes.json``.
        train_images, train_masks, test_images, test_masks: folders instead of ``data``.
        classes: names of the classes; by default those of ``classes.json``.
        ignore_index: value of pixels that do not count; by default that of ``classes.json``, else
            255.
        codes: class (number or name) or 'ignore' by code or colour of the masks, where these are
            no classes yet; see :class:`openselfsup.datasets.prepare.mask_codes.CodeTable`.
        backbone: weights of any known kind, of a ResNet or a ViT; None starts from random ones.
        depth: of the ResNet.
        freeze: train the decoder only; the backbone's norm statistics stay too.
        width: channels of the finest decoder stage.
        crop: side of training crops in pixels.
        batch_size: crops of a step.
        iterations: optimiser steps.
        lr: peak of AdamW's learning rate; cosine to 0 after a warm-up of 5 %.
        weight_decay: of AdamW.
        layer_decay: factor on the learning rate from each layer of a ViT to the one below.
        amp: precision of the layers, 'auto', 'bf16', 'fp16' or 'off'; true is bf16, false is off.
        seed: of everything random.
        out: where to write.
    """

    data: str | None = None
    train_images: str | None = None
    train_masks: str | None = None
    test_images: str | None = None
    test_masks: str | None = None
    classes: list[str] | None = None
    ignore_index: int | None = None
    codes: dict[int | str, int | str] | None = None
    backbone: str | None = None
    depth: Depth = 18
    freeze: bool = False
    width: int = 64
    crop: int = 256
    batch_size: int = 16
    iterations: int = 5000
    lr: float = 3e-4
    weight_decay: float = 1e-2
    layer_decay: float = 1.0
    amp: str = 'auto'
    seed: int = 0
    out: str = 'work_dirs/semantic'

    @classmethod
    def read(cls, values: dict[str, tuple[Any, str]]) -> 'SemanticConfig':
        """Make a config from (value, where from) by name.

        Raises:
            UserError: unknown names, or values of a wrong type or range, all at once.
        """
        known = {f.name: f for f in fields(cls)}
        problems, good = [], {}
        for name, (value, where) in values.items():
            if name not in known:
                close = nearest(name, known)
                problems.append(f'{where}: no setting is called {name}'
                                + (f"; did you mean '{close}'?" if close else ''))
                continue
            try:
                good[name] = _checked(name, value, known[name].type, known[name].default)
            except ValueError as error:
                problems.append(f'{where}: {name} is {value!r}, expected {error}')
        if problems:
            raise UserError(f'{len(problems)} mistakes in this config:\n  '
                            + '\n  '.join(problems))
        return cls(**good)

    def changes(self, before: dict[str, Any]) -> list[str]:
        """Return what differs from the settings that a run was begun with, 'NAME was X, is now Y'.

        Args:
            before: settings by name, as they were; a missing one is unknown.

        Raises:
            UserError: a run cannot go on with the difference.
        """
        now = asdict(self)
        other = {name: f'{name} was {value!r}, is now {now[name]!r}'
                 for name, value in before.items() if name in now and value != now[name]}
        for name in ('out', 'amp'):  # amp is compared once it is resolved
            other.pop(name, None)
        if before.get('ignore_index') == 255 and self.ignore_index is None:  # the default was 255
            other.pop('ignore_index', None)
        if wrong := [text for name, text in other.items() if name in _FIXED]:
            raise UserError('this run was begun with another model or other classes: '
                            + '; '.join(wrong), where=self.out,
                            expected='the same ones to --resume, or another out')
        return list(other.values())


def _checked(name: str, value: Any, kind: Any, default: Any) -> Any:
    """Return a value in the type of its setting; raise ValueError with what was expected."""
    if value is None and default is None:
        return None
    if name == 'amp':
        value = SWITCH.get(value, value) if isinstance(value, bool) else value
        if value not in AMP:
            raise ValueError('one of ' + ', '.join(AMP))
        return value
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if value not in choices or type(value) is not type(choices[0]):
            raise ValueError('one of ' + ', '.join(map(str, choices)))
        return value
    kinds = [k for k in (get_args(kind) or (kind,)) if k is not type(None)]
    wanted = get_origin(kinds[0]) or kinds[0]
    if wanted is float and type(value) in (int, str):  # YAML takes 3e-4 for text
        try:
            value = float(value)
        except (ValueError, OverflowError):
            pass
    if type(value) is not wanted:
        raise ValueError(f'a {wanted.__name__}')
    if name in _LEAST and not _LEAST[name] <= value < math.inf:
        raise ValueError(f'at least {_LEAST[name]}')
    return value
