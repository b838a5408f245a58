"""Which backend trains: detectron2 where it is installed, torchvision otherwise."""

import importlib.util

from ...errors import UserError, nearest
from ...values import BACKENDS
from .job import Backend, Job

INSTALL = ("python -m pip install --no-build-isolation "
           "'git+https://github.com/facebookresearch/detectron2.git'")


def choose_backend(name: str) -> str:
    """Resolve 'auto': detectron2 where it is installed, torchvision otherwise.

    Raises:
        UserError: detectron2 is asked for and not installed; the command to install it is given.
    """
    if name not in BACKENDS:
        raise UserError(f"there is no backend '{name}'", where='--backend',
                        expected='one of ' + ', '.join(BACKENDS), nearest=nearest(name, BACKENDS))
    installed = importlib.util.find_spec('detectron2') is not None
    if name == 'detectron2' and not installed:
        raise UserError('detectron2 is not installed', where='--backend detectron2',
                        expected=f'--backend torchvision, or first: {INSTALL}')
    if name != 'auto':
        return name
    return 'detectron2' if installed else 'torchvision'


def build_backend(name: str, job: Job) -> Backend:
    """Return the backend of the given name ('torchvision' or 'detectron2'), ready to load."""
    if name == 'detectron2':
        from .detectron2_backend import Detectron2Backend
        return Detectron2Backend(job)
    from .torchvision_backend import TorchvisionBackend
    return TorchvisionBackend(job)
