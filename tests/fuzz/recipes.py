"""YAML of fine-tuning: a recipe or settings of known types, or one sentence."""

from pathlib import Path

from openselfsup.errors import UserError
from openselfsup.transfer.instance.yaml_config import DEFAULTS, Recipe, read_yaml
from openselfsup.transfer.semantic.settings import Settings

SUFFIX = '.yaml'


def seeds() -> list[bytes]:
    """A recipe and a semantic config."""
    recipe = b"""MODEL:
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
    return [recipe, semantic]


def check(path: Path, original: bytes) -> None:
    """Read a file as the tool of its kind does; of the seeds either reads one."""
    if b'MODEL' in original:
        recipe = Recipe(path)
        assert all(type(recipe[key]) is type(value) for key, value in DEFAULTS.items())
        assert recipe.changes(recipe.dump()) == []
        return
    settings = Settings.read(read_yaml(path, nested=False))
    try:
        settings.changes({'width': 3})
    except UserError:
        pass
