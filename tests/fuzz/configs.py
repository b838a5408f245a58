"""Configs and overrides: what is accepted reads back the same and holds values that make sense."""

import math
import tempfile
from pathlib import Path
from typing import Any

from openselfsup.engine.config import load_config
from openselfsup.engine.config_text import config_text

SUFFIX = '.py'
CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
OPTION = '#--cfg-options '  # a line of the file that is given on the command line instead
OPTIONS = ("optimizer.lr=0.3\nseed=7\ndataset.recipe.steps.crop.scale=(0.2, 1.0)\n"
           "model.temperature=0.1\nworkers=None\nclip_grad=1.5\n"
           "normalize=dict(mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.2])\n"
           "dataset.source=dict(_delete_=True, type='PackedTiles', root='x')")


def seeds() -> list[bytes]:
    """Return resolved configs, with and without options."""
    names = ('PLM_SSL/r18_bs256_ep200.py', 'CA2CL/r18_bs1792_ep100_robust.py',
             'MoCo/r18_v1_bs256_ep200.py')
    texts = [config_text(load_config(CONFIGS / name)) for name in names]
    options = ''.join(f'{OPTION}{option}\n' for option in OPTIONS.splitlines())
    return [text.encode() for text in (*texts, options + texts[0])]


def check(path: Path, original: bytes) -> None:
    """Load a config as tools/train.py does."""
    lines = path.read_bytes().decode('utf-8', 'replace').splitlines()
    options = [line[len(OPTION):] for line in lines if line.startswith(OPTION)]
    cfg = load_config(path, options)
    for name in ('epochs', 'global_batch_size', 'accumulate', 'log_interval'):
        assert type(cfg[name]) is int and cfg[name] >= 1, name
    assert type(cfg.seed) is int and 0 <= cfg.seed < 2**32
    assert math.isfinite(cfg.optimizer['lr']) and cfg.optimizer['lr'] >= 0
    assert all(0 <= mean <= 1 for mean in cfg.normalize['mean'])
    assert all(0 < p <= 1 for p in cfg.normalize['std'])
    for value in _probabilities(cfg.dataset.to_dict()):
        assert 0 <= value <= 1 and not isinstance(value, bool), value
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / 'again.py'
        again.write_text(config_text(cfg), encoding='utf-8')
        assert load_config(again).to_dict() == cfg.to_dict()


def _probabilities(value: Any) -> list[Any]:
    if isinstance(value, dict):
        found = [value['p']] if 'p' in value and 'type' in value else []
        return found + [p for item in value.values() for p in _probabilities(item)]
    if isinstance(value, (list, tuple)):
        return [p for item in value for p in _probabilities(item)]
    return []
