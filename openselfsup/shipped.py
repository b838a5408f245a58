"""What comes with the library beside its code: configs, and the tiles of the demo.

In a checkout they lie beside the package, in an installed wheel inside it, under the same names.
"""

import difflib
from pathlib import Path

from .errors import UserError, located, nearest

PACKAGE = Path(__file__).resolve().parent
INSTALLED = (PACKAGE / 'configs').is_dir()
ROOT = PACKAGE if INSTALLED else PACKAGE.parent
PRETRAINING = 'configs'


def find_config(name: str | Path, folder: str = PRETRAINING, suffix: str = '.py') -> Path:
    """Return the config that a name stands for: a file of the user's, else one of ours.

    Args:
        name: path of a file, or the name of a config of ours such as ``PLM_SSL/r18_bs256_ep200``;
            the suffix may be left out, and ``configs/`` may stand before it.
        folder: which of our folders to look in, as in a checkout.
        suffix: of the configs in this folder.

    Raises:
        UserError: there is neither such a file nor such a config.
    """
    for path in (Path(name), Path(f'{name}{suffix}')):
        if path.is_file():
            return path
    if found := shipped_config(name, folder, suffix):
        return found
    path = Path(name)
    siblings = path.parent.glob(f'*{suffix}') if path.parent.is_dir() else ()
    close = nearest(path.name, (sibling.name for sibling in siblings))
    raise UserError('no such config file', where=located(path),
                    nearest=close or near_configs(name, folder, suffix))


def near_configs(name: str | Path, folder: str = PRETRAINING, suffix: str = '.py') -> str | None:
    """Return our configs that a name looks most like, joined by 'or', None if none comes close."""
    return "' or '".join(difflib.get_close_matches(
        _bare(name, folder, suffix), config_names(folder, suffix), cutoff=0.55)) or None


def shipped_config(name: str | Path, folder: str = PRETRAINING, suffix: str = '.py') -> Path | None:
    """Return the config of ours that a name stands for, None if there is none."""
    bare = _bare(name, folder, suffix)
    return ROOT / folder / f'{bare}{suffix}' if bare in config_names(folder, suffix) else None


def config_names(folder: str = PRETRAINING, suffix: str = '.py') -> list[str]:
    """Return the names of our configs, without suffix; parts under ``_base_`` are among them."""
    top = ROOT / folder
    return sorted(path.relative_to(top).as_posix().removesuffix(suffix)
                  for path in top.rglob(f'*{suffix}'))


def is_config(name: str) -> bool:
    """Return whether an argument that may be a config or a folder of tiles is a config."""
    if name.endswith('.py'):
        return True
    return not Path(name).exists() and (Path(f'{name}.py').is_file()
                                        or shipped_config(name) is not None)


def _bare(name: str | Path, folder: str, suffix: str) -> str:
    """Return the name of a config of ours without the folder and the suffix."""
    bare = Path(name).as_posix().removesuffix(suffix)
    return bare.removeprefix(f'{folder}/').removeprefix(f'{Path(folder).name}/')
