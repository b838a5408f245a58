"""What the files beside published weights say of them, in a folder as hubs have it.

That is ``config.json`` as timm writes it, and ``preprocessor_config.json`` of Hugging Face's
transformers.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from .fetching import CONFIG, FILES, PREPROCESSOR, from_hub, in_folder, is_on_hub
from .values import mean_and_std


@dataclass
class Description:
    """What is said of weights by the files beside them; all of it is empty if there are none.

    Attributes:
        architecture: timm's name of the network.
        arguments: what timm builds it with besides.
        resizing: how positions were fitted to other grids in training, where that is said: of
            backbones that we exported, and of DINO's weights in timm's form.
        normalize: ``mean`` and ``std`` of the images, three numbers each, for values in [0, 1].
        source: path of the file that ``normalize`` is from.
    """

    architecture: str = ''
    arguments: dict[str, Any] = field(default_factory=dict)
    resizing: str = ''
    normalize: dict[str, tuple[float, ...]] | None = None
    source: str = ''


def description_of(path: str | Path) -> Description:
    """Return what is said of the weights at a path.

    Args:
        path: of a folder, of the file of weights in it, under a name that hubs use, or
            'hf-hub:OWNER/NAME'. Nothing is said of other files.

    Raises:
        UserError: a file beside the weights is damaged.
    """
    file = from_hub(str(path)) if is_on_hub(path) else Path(path)
    if file.is_dir():
        file = in_folder(file) or file / FILES[0]
    if file.name not in FILES:
        return Description()
    found, folder = Description(), file.parent
    config, preprocessor = _read(folder / CONFIG), _read(folder / PREPROCESSOR)
    if isinstance(name := config.get('architecture'), str):
        timms = config.get('pretrained_cfg', config)
        timms = timms if isinstance(timms, dict) else {}
        found.architecture = name
        if isinstance(given := config.get('model_args'), dict):
            found.arguments = given
        found.resizing = config.get('resizing') or ('dino' if timms.get('tag') == 'dino' else '')
        if 'mean' in timms:
            found.source = str(folder / CONFIG)
            found.normalize = mean_and_std(timms, found.source)
    elif 'image_mean' in preprocessor:
        found.source = str(folder / PREPROCESSOR)
        found.normalize = mean_and_std(dict(
            mean=preprocessor['image_mean'], std=preprocessor.get('image_std')), found.source)
    return found


def _read(file: Path) -> dict[str, Any]:
    """Return what a JSON file holds, nothing if there is none."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(f'this file beside the weights cannot be read: {error}', where=str(file),
                        expected='the file of the hub, or none') from None
    return found if isinstance(found, dict) else {}
