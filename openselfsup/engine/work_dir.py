"""The work directory: what is in it, and the logger that writes there."""

import json
import logging
from pathlib import Path

from mmengine.config import Config
from rich.console import Console

from .. import distributed
from ..errors import UserError
from .config_text import config_text

LATEST = 'latest.pth'
CONSOLE = Console()


class _ConsoleHandler(logging.Handler):
    """Prints through rich's console, so that lines do not tear a live progress line."""

    def emit(self, record: logging.LogRecord) -> None:
        # Records of every logging step are a live line on a terminal, and printed elsewhere.
        if CONSOLE.is_terminal and getattr(record, 'live', False):
            return
        style = 'bold red' if record.levelno >= logging.WARNING else None
        CONSOLE.print(self.format(record), style=style, markup=False, highlight=False,
                      soft_wrap=True)


def build_logger(work_dir: Path, level: str = 'INFO') -> logging.Logger:
    """Return the logger 'openselfsup': console and train.log on rank 0, warnings elsewhere."""
    logger = logging.getLogger('openselfsup')
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = False
    logger.setLevel(level)
    console = _ConsoleHandler()
    logger.addHandler(console)
    if distributed.is_main():
        file = logging.FileHandler(work_dir / 'train.log', encoding='utf-8',
                                   errors='backslashreplace')
        file.setFormatter(logging.Formatter('%(asctime)s %(levelname)s %(message)s',
                                            '%Y-%m-%d %H:%M:%S'))
        logger.addHandler(file)
    else:
        console.setLevel(logging.WARNING)
        console.setFormatter(logging.Formatter(f'[rank {distributed.rank()}] %(message)s'))
    return logger


def write_run_files(work_dir: Path, cfg: Config, environment: dict) -> None:
    """Write config.py (resolved, can be trained from as it is) and environment.json."""
    (work_dir / 'config.py').write_text(config_text(cfg), encoding='utf-8')
    (work_dir / 'environment.json').write_text(json.dumps(environment, indent=2) + '\n',
                                               encoding='utf-8')


def find_checkpoint(work_dir: Path, resume: str | None) -> Path | None:
    """Return the checkpoint to go on from, or None to start anew.

    Args:
        work_dir: the work directory of the run.
        resume: None (start anew), 'auto' (the newest in the work directory, if any), or
            a path.

    Raises:
        UserError: the directory holds a run already and ``resume`` is None.
    """
    latest = work_dir / LATEST
    if resume is None:
        if latest.exists():
            raise UserError('this directory already holds a run', where=str(work_dir),
                            expected='--resume to continue it, or another --work-dir')
        return None
    if resume != 'auto':
        return Path(resume)
    return latest if latest.exists() else None
