"""YAML of fine-tuning: of a detector or a U-Net, in known types, or one sentence."""

from pathlib import Path

from openselfsup.errors import UserError
from openselfsup.transfer.instance.yaml_config import DEFAULTS, DetectionConfig, read_yaml
from openselfsup.transfer.semantic.config import SemanticConfig

SUFFIX = '.yaml'


def seeds() -> list[bytes]:
    """One of detectron2's form and a semantic one."""
    detection = b"""MODEL:
  MASK_ON: True
  RESNETS: {DEPTH: 18, NORM: "SyncBN"}
SOLVER:
  IMS_PER_BATCH: 4
  STEPS: [150, 180]
  BASE_LR: 0.02
INPUT:
  CROP: {SIZE: "(192, 192)"}
"""
    semantic = b"""train_images: a
classes: [stroma, gland]
codes: {0: stroma, 255: gland, '#ff0000': 1}
crop: 256
lr: 3.0e-4
amp: true
"""
    return [detection, semantic]


def check(path: Path, original: bytes) -> None:
    """Read a file as the tool of its kind does; of the seeds either reads one."""
    if b'MODEL' in original:
        config = DetectionConfig(path)
        assert all(type(config[key]) is type(value) for key, value in DEFAULTS.items())
        assert config.changes(config.dump()) == []
        return
    config = SemanticConfig.read(read_yaml(path, nested=False))
    try:
        config.changes({'width': 3})
    except UserError:
        pass
