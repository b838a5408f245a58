"""What every backend of instance segmentation offers, and how one is chosen."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from ..errors import UserError, nearest
from .data_sets import DataSet

BACKENDS = ('auto', 'detectron2', 'torchvision')
INSTALL = ("python -m pip install --no-build-isolation "
           "'git+https://github.com/facebookresearch/detectron2.git'")
LAST = 'last_checkpoint'  # a file that names the newest checkpoint, as detectron2 has it
PLACEHOLDER = 'See Instructions'  # MODEL.WEIGHTS of the *_moco configs


@dataclass
class Job:
    """One fine-tuning run, as the command line describes it.

    Attributes:
        config_file: YAML of the recipe.
        overrides: 'KEY', 'VALUE', ... on top of it.
        datasets_folder: holds ``GlaS/train``, ``GlaS/annotations/train.json``, ...
        device: where to run.
        resume: go on from the last checkpoint of OUTPUT_DIR.
        eval_only: MODEL.WEIGHTS is a trained model to be evaluated.
    """

    config_file: str
    overrides: Sequence[str] = ()
    datasets_folder: str = 'datasets'
    device: torch.device = field(default_factory=lambda: torch.device('cpu'))
    resume: bool = False
    eval_only: bool = False


class Backend(Protocol):
    """Trains and applies a model of instance segmentation.

    Attributes:
        name: 'torchvision' or 'detectron2'.
        output_dir: OUTPUT_DIR of the recipe.
        test_sets: names of the data sets to evaluate on.
        data: all data sets by name, checked.
        notes: what is odd in them.
    """

    name: str
    output_dir: Path
    test_sets: Sequence[str]
    data: dict[str, DataSet]
    notes: Sequence[str]

    def load_backbone(self) -> str:
        """Load MODEL.WEIGHTS; return what matched in one line. Nothing matched is an error."""
        ...

    def fit(self) -> None:
        """Train, from the last checkpoint where the job resumes."""
        ...

    def predict(self, dataset: str) -> list[dict]:
        """Return COCO results of a data set; on rank 0 those of all ranks."""
        ...

    def info(self) -> dict[str, Any]:
        """Return what a reader of the results must know, as plain types."""
        ...


def choose(name: str) -> str:
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


def build(name: str, job: Job) -> Backend:
    """Return the backend of the given name ('torchvision' or 'detectron2'), ready to load."""
    if name == 'detectron2':
        from .detectron2_backend import Detectron2Backend
        return Detectron2Backend(job)
    from .torchvision_backend import TorchvisionBackend
    return TorchvisionBackend(job)


def refuse_to_overwrite(folder: str | Path, *made: str) -> None:
    """Stop before a new run replaces what an earlier one computed.

    Args:
        folder: to be written into.
        made: names in it that only a run leaves behind.

    Raises:
        UserError: one of them is there.
    """
    there = [name for name in made if (Path(folder) / name).exists()]
    if there:
        raise UserError(f'an earlier run left {" and ".join(there)} here', where=str(folder),
                        expected='--resume to go on from it, or another folder to write to')
