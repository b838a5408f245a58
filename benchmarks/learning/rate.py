"""How fast does a config train here? Steps of the run itself, loading included.

    python -m benchmarks.learning.rate CONFIG OUT.json [KEY=VALUE ...]
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from openselfsup.engine.config import load_config
from openselfsup.engine.position import Position
from openselfsup.engine.runner import Runner
from openselfsup.errors import UserError
from openselfsup.training import launch
from openselfsup.training.threads import share_cores

WARM_UP, STEPS = 3, 9


def main(config: str, out: str, *options: str) -> None:
    """Take a few steps and write what they took."""
    cfg, here = load_config(config, list(options)), launch.start(None)
    if here.device.type == 'cpu':
        share_cores()
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(cfg, here, folder)
        runner.hooks = []  # what they add is below the spread of a few steps
        runner.model.train()
        seconds: list[float] = []
        while len(seconds) < WARM_UP + STEPS:
            runner.position = Position()  # of a small data set, the first epoch again
            batches = iter(runner.loader)
            for _ in range(min(runner.steps_per_epoch, WARM_UP + STEPS - len(seconds))):
                began = time.perf_counter()
                runner.train_step(batches)
                seconds.append(time.perf_counter() - began)
            batches.close()
        Path(out).write_text(json.dumps(dict(
            tiles_per_s=cfg.global_batch_size / statistics.median(seconds[WARM_UP:]),
            tiles_per_epoch=runner.steps_per_epoch * cfg.global_batch_size)) + '\n')


if __name__ == '__main__':
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(f'error: {error}')
