"""What is asked of a backend of instance segmentation: the job, and what every one offers."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from ... import distributed
from ...errors import UserError
from ...files import read_json, write_json
from .data_sets import DataSet

LAST = 'last_checkpoint'  # a file that names the newest checkpoint, as detectron2 has it
PLACEHOLDER = 'See Instructions'  # MODEL.WEIGHTS of the *_moco configs


@dataclass
class Job:
    """One fine-tuning run, as the command line describes it.

    Attributes:
        config_file: YAML in the form of detectron2.
        overrides: 'KEY', 'VALUE', ... on top of it.
        datasets_folder: holds ``GlaS/train``, ``GlaS/annotations/train.json``, ...
        device: where to run.
        resume: go on from the last checkpoint of OUTPUT_DIR.
        eval_only: MODEL.WEIGHTS is a trained model to be evaluated.
        amp: precision, 'auto', 'bf16', 'fp16' or 'off'; None goes by SOLVER.AMP.ENABLED.
    """

    config_file: str
    overrides: Sequence[str] = ()
    datasets_folder: str = 'datasets'
    device: torch.device = field(default_factory=lambda: torch.device('cpu'))
    resume: bool = False
    eval_only: bool = False
    amp: str | None = None


class Backend(Protocol):
    """Trains and applies a model of instance segmentation.

    Attributes:
        name: 'torchvision' or 'detectron2'.
        output_dir: OUTPUT_DIR of the config.
        weights: MODEL.WEIGHTS of the config.
        train_sets: names of the data sets to train on.
        test_sets: names of the data sets to evaluate on.
        data: all data sets by name, checked.
        notes: warnings for the log: what is odd in them, and of the precision.
    """

    name: str
    output_dir: Path
    weights: str
    data: dict[str, DataSet]
    notes: list[str]

    @property
    def train_sets(self) -> Sequence[str]:
        ...

    @property
    def test_sets(self) -> Sequence[str]:
        ...

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


def notes_of_the_rate(warmup: int, iterations: int, rate: float) -> list[str]:
    """Return a warning of a warm-up that does not end within the run.

    Args:
        warmup: SOLVER.WARMUP_ITERS.
        iterations: SOLVER.MAX_ITER.
        rate: SOLVER.BASE_LR.
    """
    if not iterations or warmup < iterations:
        return []
    return [f'the warm-up of {warmup} iterations does not end in this run of {iterations}, whose '
            f'learning rate never is {rate:g}; expected SOLVER.WARMUP_ITERS below {iterations}, '
            f'such as {iterations // 10}, or more iterations']


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


def refuse_shorter(done: int, wanted: int, setting: str, where: str | Path) -> None:
    """Stop before a run that was trained for longer is scored as a shorter one.

    Args:
        done: iterations that its checkpoint was trained for.
        wanted: iterations of the run that is to go on.
        setting: its name in the config.
        where: of the checkpoint.

    Raises:
        UserError: they are fewer.
    """
    if done > wanted:
        raise UserError(f'{setting} is {wanted}, and this run was trained for {done} iterations',
                        where=str(where),
                        expected=f'{done} or more to --resume, or another folder to write to')


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
