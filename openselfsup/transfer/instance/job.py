"""What every backend of instance segmentation offers, and how one is chosen."""

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from ... import distributed
from ...errors import UserError, nearest
from ...files import read_json, write_json
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
        weights: MODEL.WEIGHTS of the recipe.
        train_sets: names of the data sets to train on.
        test_sets: names of the data sets to evaluate on.
        data: all data sets by name, checked.
        notes: what is odd in them.
    """

    name: str
    output_dir: Path
    weights: str
    train_sets: Sequence[str]
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


def digest_of(path: str) -> str:
    """Return the checksum of a file's content, 'none' for no file."""
    if not path or not Path(path).is_file():
        return path or 'none'
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f'sha256 {digest.hexdigest()[:16]}'


def inputs_of(backend: Backend) -> dict[str, str]:
    """Return what a run is made of, by content: backend, weights, objects to train on."""
    train = {name: backend.data[name].truth for name in backend.train_sets if name in backend.data}
    digest = hashlib.sha256(json.dumps(train).encode()).hexdigest()[:16]
    return dict(backend=backend.name, weights=digest_of(backend.weights),
                **(dict(train=f'{", ".join(train)}, sha256 {digest}') if train else {}))


def refuse_other_inputs(backend: Backend, resume: bool) -> None:
    """Note the inputs of a run in ``inputs.json``; stop before a run goes on with others.

    Args:
        backend: about to train.
        resume: whether it goes on from what is in OUTPUT_DIR.

    Raises:
        UserError: OUTPUT_DIR holds a run of other inputs; says what they were and are now.
    """
    path, now = Path(backend.output_dir) / 'inputs.json', inputs_of(backend)
    if resume and path.exists():
        before = read_json(path)
        other = [f'{key} was {before.get(key)}, is now {value}' for key, value in now.items()
                 if before.get(key) != value]
        if other:
            raise UserError(f'this run was begun with other inputs: {"; ".join(other)}',
                            where=str(backend.output_dir),
                            expected='the same ones to --resume, or another OUTPUT_DIR')
    elif distributed.is_main():
        write_json(path, now)


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
