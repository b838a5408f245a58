"""Pretrain one method under a budget, through the command that users have."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openselfsup.engine.config import load_config
from openselfsup.errors import UserError, nearest
from openselfsup.files import read_json, write_json, write_text
from openselfsup.registry import SOURCES
from openselfsup.shipped import find_config

ROOT = Path(__file__).resolve().parents[2]

#: Those that are compared unless others are named.
METHODS = ('plm', 'densecl', 'moco', 'simclr', 'ca2cl')
CONFIGS = {'plm': 'PLM_SSL/r18_small', 'densecl': 'DenseCL/r18_small', 'moco': 'MoCo/r18_small',
           'simclr': 'SimCLR/r18_small', 'ca2cl': 'CA2CL/r18_small', 'byol': 'BYOL/r18_small',
           'npid': 'NPID/r18_small', 'concl': 'ConCL/r18_small',
           'plm-concl': 'PLM_ConCL/r18_small', 'vicregl': 'VICRegL/r18_small',
           'plm-vicregl': 'PLM_VICRegL/r18_small',
           'plm-simclr': 'PLM_SimCLR/r18_small', 'odc': 'ODC/r18_small',
           'deepcluster': 'DeepCluster/r18_small', 'rotation': 'RotationPred/r18_small',
           'relative-loc': 'RelativeLoc/r18_small', 'dino': 'DINO/r18_small'}


@dataclass(frozen=True)
class Budget:
    """What every method may spend: minutes of training, or tiles (each seen in all its views).

    Attributes:
        amount: how many.
        unit: 'min' or 'tiles'.
    """

    amount: float
    unit: str

    @classmethod
    def of(cls, text: str) -> 'Budget':
        """Read a budget such as 40min or 100000tiles.

        Raises:
            UserError: it is none.
        """
        found = re.fullmatch(r'(\d+(?:\.\d+)?)(min|tiles)', text)
        if not found or not float(found[1]):
            raise UserError(f"'{text}' is no budget", where='--budget',
                            expected='minutes or tiles, such as 40min or 100000tiles')
        return cls(float(found[1]), found[2])

    def __str__(self) -> str:
        return f'{self.amount:g} {self.unit}'


def find_configs(methods: list[str], own: list[str]) -> dict[str, str]:
    """Return the config of each method by name.

    Args:
        methods: names of :data:`CONFIGS`.
        own: further ones, NAME=CONFIG.

    Raises:
        UserError: a name is unknown, or comes twice.
    """
    found = {}
    for method in methods:
        if method not in CONFIGS:
            raise UserError(f"no method of the study is called '{method}'", where='--methods',
                            expected='one of ' + ', '.join(CONFIGS) + ', or --config NAME=CONFIG',
                            nearest=nearest(method, CONFIGS))
        found[method] = CONFIGS[method]
    for pair in own:
        name, equals, config = pair.partition('=')
        if not equals or not re.fullmatch(r'[A-Za-z0-9._-]+', name) or name in found:
            raise UserError(f"'{pair}' is no new name and config", where='--config',
                            expected='NAME=CONFIG, such as plm_long=mine.py, with a NAME of '
                            'letters, digits, dots, hyphens and underscores that no method has')
        found[name] = config
    return found


@dataclass(frozen=True)
class Start:
    """Where a method begins that goes on from another.

    Attributes:
        method: whose backbone of the same seed it starts from.
        budget: what it may spend on top; None is what every method may.
    """

    method: str
    budget: Budget | None

    def __str__(self) -> str:
        return f'after {self.method}' + (f', {self.budget}' if self.budget else '')


def find_starts(texts: list[str], configs: dict[str, str]) -> dict[str, Start]:
    """Return what starts from the backbone of which other method, by name.

    Args:
        texts: NAME=METHOD or NAME=METHOD:BUDGET, two names of ``configs``, METHOD before NAME.
        configs: by name, in the order in which they run.

    Raises:
        UserError: one of them is none, or runs too late, or a budget is none.
    """
    order, found = list(configs), {}
    for text in texts:
        name, _, rest = text.partition('=')
        method, colon, budget = rest.partition(':')
        if not {name, method} <= set(order) or order.index(method) >= order.index(name):
            raise UserError(f"'{text}' does not name two methods of this study in their order",
                            where='--after', expected='NAME=METHOD, or NAME=METHOD:BUDGET, where '
                            'NAME starts from the backbone of METHOD; of ' + ', '.join(order))
        found[name] = Start(method, Budget.of(budget) if colon else None)
    return found


def check_tiles(configs: Mapping[str, str], options: Mapping[str, Sequence[str]]) -> None:
    """Refuse, before anything is trained, configs whose tiles are not there.

    Args:
        configs: path or name of a config by method.
        options: what overrides fields of each.

    Raises:
        UserError: the tiles of one cannot be found or listed.
    """
    for method, config in configs.items():
        source = load_config(config_path(config), list(options[method])).dataset.get('source')
        try:
            if source:
                SOURCES.build(source)
        except UserError as error:
            raise UserError(f'the tiles of {method}: {error}', where=config, expected='tiles, '
                            'which --cfg-options dataset.source.root=DIR names') from None


def pretrain(config: str, folder: Path, seed: int, budget: Budget, options: list[str],
             device: str, start: Path | None = None) -> Path:
    """Pretrain, or go on where an earlier call was interrupted; return the finished checkpoint.

    Args:
        config: path or name of a config.
        folder: of this run; the number of epochs that the budget allows is kept in it, so that
            a run that goes on keeps its schedule.
        seed: of the run.
        budget: what may be spent.
        options: ``--cfg-options`` of every run of the study, such as where the tiles are.
        device: 'cpu', or 'cuda' for whatever the machine has.
        start: checkpoint whose backbone the run starts from.

    Raises:
        UserError: the training failed; its output is in the folder. Or the budget ends before the
            backbone learns, in a config whose heads learn alone first.
    """
    checkpoint, plan = folder / 'run/latest.pth', folder / 'plan.json'
    if (folder / 'done').exists():
        return checkpoint
    print(f'{folder.name}: pretraining, {budget}', flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    found = read_json(plan) if plan.exists() else plan_epochs(config, folder, budget, options,
                                                              device, start)
    epochs = found['epochs']
    alone = load_config(config_path(config), options).model.get('heads_only_epochs', 0)
    if epochs <= alone:
        raise UserError(f'this budget, {budget}, is {epochs} epoch(s), and the heads learn alone '
                        f'for {alone:g}: the backbone would stay as it is', where=config,
                        expected='a larger --budget, or a smaller model.heads_only_epochs')
    write_json(plan, found)
    begin = ['--pretrained', str(start)] if start else []
    command([sys.executable, '-m', 'openselfsup', 'train', config_path(config), '--work-dir',
             str(folder / 'run'), '--resume', *begin,
             '--cfg-options', *options, f'seed={seed}', f'epochs={epochs}'],
            folder / 'train.log', device)
    write_text(folder / 'done', '')
    return checkpoint


def plan_epochs(config: str, folder: Path, budget: Budget, options: list[str], device: str,
                start: Path | None) -> dict[str, Any]:
    """Return how many epochs the budget allows, and the tiles a second that were measured."""
    out = folder / 'rate.json'
    begin = [f'pretrained={start}'] if start else []
    command([sys.executable, '-m', 'benchmarks.learning.rate', config_path(config), str(out),
             *options, *begin], folder / 'rate.log', device)
    found = read_json(out)
    tiles = (budget.amount if budget.unit == 'tiles'
             else budget.amount * 60 * found['tiles_per_s'])
    return dict(epochs=max(1, round(tiles / found['tiles_per_epoch'])),
                tiles_per_s=found['tiles_per_s'], budget=str(budget))


def config_path(config: str) -> str:
    """Return the path of a config given by path or by name."""
    return str(find_config(config, 'configs', '.py'))


def command(words: list[str], log: Path, device: str) -> None:
    """Run a command, its output in a file; without the GPUs where the device is 'cpu'.

    Raises:
        UserError: it failed; its own error is said, or the last lines of its output.
    """
    environment = dict(os.environ, **({'CUDA_VISIBLE_DEVICES': ''} if device == 'cpu' else {}))
    environment['PYTHONPATH'] = os.pathsep.join(
        [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
    with open(log, 'a') as stream:
        began = stream.tell()
        status = subprocess.run(words, stdout=stream, stderr=subprocess.STDOUT,
                                env=environment).returncode
    if status:
        output = log.read_bytes()[began:].decode(errors='replace')
        if said := re.findall(r'^error: (.+(?:\n +.+)*)', output, re.MULTILINE):
            raise UserError(said[-1], where=str(log))
        last = ' / '.join(output.splitlines()[-3:])
        raise UserError(f'a command of the study failed with status {status}: {last}',
                        where=str(log), expected='a command that runs by itself: '
                                                 + shlex.join(words))
