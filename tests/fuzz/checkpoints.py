"""Checkpoints as torch writes them now (a zip) and before 1.6 (pickles), and safetensors."""

import contextlib
import functools
import io
import json
import struct
import zipfile
from pathlib import Path

import safetensors.torch
import torch
import torchvision

from openselfsup import load_backbone
from openselfsup.checkpoints import backbone_record, load, weights_of
from openselfsup.errors import UserError

SUFFIX = '.pth'
_CONFIG = 'normalize = dict(mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.2])\n'


@functools.cache
def seeds() -> list[bytes]:
    torch.manual_seed(0)
    small = dict(state_dict={'encoder_q.backbone.conv1.weight': torch.randn(2, 3, 3, 3),
                             'encoder_q.backbone.bn1.running_var': torch.rand(2)},
                 optimizer=dict(state={0: dict(step=torch.tensor(3.0))}, param_groups=[]),
                 scaler={}, meta=dict(config=_CONFIG, epoch=3, pair=(1, 2.5), none=None))
    said = small | dict(meta=dict(backbone=dict(
        prefix='encoder_q.', config=dict(type='ResNet', depth=18), out_channels=[512],
        normalize=dict(mean=[0.5] * 3, std=[0.2] * 3), imports=[])))
    backbone = torchvision.models.resnet18()
    body = {name: value[:1, :1] if value.dim() == 4 else value  # small, and told by its names
            for name, value in backbone.state_dict().items() if not name.startswith('fc')}
    found = [_saved(small), _saved(small, False), _saved(dict(net=body)), _saved(said),
             safetensors.torch.save(small['state_dict'])]
    return found


def check(path: Path, original: bytes) -> None:
    data = path.read_bytes()
    if not data.startswith(b'PK') and data[8:9] == b'{':
        path = path.with_suffix('.safetensors')
        path.write_bytes(data)
    try:
        content = load(path)
        state = weights_of(content)
        backbone_record(content, str(path))
        _compare(data, path, state)
        with contextlib.suppress(UserError):  # no seed is a whole network
            load_backbone(path)
    finally:
        if path.suffix == '.safetensors':
            path.unlink()


def _compare(data: bytes, path: Path, state: dict[str, torch.Tensor]) -> None:
    if path.suffix == '.safetensors':
        start = 8 + struct.unpack('<Q', data[:8])[0]
        header = json.loads(data[8:start])
        header.pop('__metadata__', None)
        assert header.keys() == state.keys()
        for name, entry in header.items():
            first, last = entry['data_offsets']
            assert list(state[name].shape) == entry['shape']
            assert _bytes(state[name]) == data[start + first:start + last]
    elif zipfile.is_zipfile(io.BytesIO(data)):
        # Checksums guard the numbers: whatever is accepted was in one of the valid files.
        known = [value for seed in _originals() for value in seed.values()]
        for name, value in state.items():
            assert any(value.dtype == other.dtype and _bytes(value) == _bytes(other)
                       for other in known), name


@functools.cache
def _originals() -> list[dict[str, torch.Tensor]]:
    return [weights_of(torch.load(io.BytesIO(seed), weights_only=True)) for seed in seeds()[:4]]


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def _saved(content: dict, new: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()
