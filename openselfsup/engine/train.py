"""What ``openselfsup train`` does with a checked config."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from .. import distributed
from ..claims import Claim
from ..datasets import ViewLoader
from ..training.allocator import keep_freed_memory
from ..training.launch import Launch
from ..training.logs import CONSOLE
from ..training.normalization import wants_another
from ..training.precision import check_precision
from ..training.presence import Presence, attending
from ..training.schedules import endless_warm_up
from ..training.threads import overload, share_cores
from .config_text import config_text
from .placing import placed
from .runner import Runner
from .work_dir import find_checkpoint, held, on_main, set_aside


def train(cfg: Config, launch: Launch, resume: str | None = None, remarks: Sequence[str] = (),
          presence: Presence | None = None) -> int:
    """Pretrain, writing everything into ``cfg.work_dir``.

    Args:
        cfg: a config of :func:`~openselfsup.engine.config.load_config` with ``work_dir``.
        launch: ranks and device.
        resume: None, 'auto' or a checkpoint path.
        remarks: lines to begin the log with.
        presence: what tells the ranks of each other, if there are several.

    Returns:
        Exit status: 0, or 128 + the number of the signal that stopped the run.
    """
    check_precision(cfg.amp, launch.device)  # refused before the tiles are looked at
    if launch.device.type == 'cpu':
        keep_freed_memory()
        share_cores()
    work_dir = Path(cfg.work_dir)
    with held(work_dir) as claim, attending(presence):
        return _train(cfg, launch, work_dir, resume, claim, remarks, presence)


def _train(cfg: Config, launch: Launch, work_dir: Path, resume: str | None,
           claim: Claim | None, remarks: Sequence[str], presence: Presence | None) -> int:
    busy = overload()  # asked before we are busy ourselves
    checkpoint = on_main(lambda: find_checkpoint(work_dir, resume))
    earlier = on_main(lambda: None if checkpoint else set_aside(work_dir))
    with placed(cfg):
        runner = Runner(cfg, launch, work_dir, pretrained=checkpoint is None)
    runner.claim, runner.presence = claim, presence
    for line in remarks:
        runner.logger.info(line)
    if earlier:
        runner.logger.warning('what an earlier start without a checkpoint left is in %s', earlier)
    if checkpoint is not None:
        runner.resume(checkpoint)
    elif resume == 'auto':
        runner.logger.info('nothing to resume in %s: starting anew', work_dir)
    for line in describe_run(runner):
        runner.logger.info(line)
    if busy and distributed.is_main():
        runner.logger.warning(busy)
    if runner.position.epoch >= cfg.epochs:
        runner.logger.info('all %d epochs are done already', cfg.epochs)
        return 0
    runner.train()
    return 128 + runner.stop_signal if runner.interrupted and runner.stop_signal else 0


def dry_run(cfg: Config, launch: Launch, scratch: str, remarks: Sequence[str] = (),
            resume: str | None = None) -> None:
    """Build everything, print what would run, take one step, and leave no trace.

    Args:
        cfg, launch, resume, remarks: as of :func:`train`.
        scratch: a folder in place of the work directory.

    Raises:
        UserError: see :func:`train`.
    """
    check_precision(cfg.amp, launch.device)  # refused before the tiles are looked at
    checkpoint = on_main(lambda: find_checkpoint(Path(cfg.work_dir), resume)) if resume else None
    with placed(cfg):
        runner = Runner(cfg, launch, scratch, pretrained=checkpoint is None)
    if distributed.is_main():
        CONSOLE.print(config_text(cfg), markup=False, highlight=False, soft_wrap=True)
    for line in [*remarks, *describe_run(runner)]:
        runner.logger.info(line)
    if checkpoint is not None:
        runner.resume(checkpoint)
    runner.loader.set_position(0, 0)
    batches = iter(runner.loader)
    count = min(cfg.accumulate, len(runner.loader))
    outputs = runner.step(batches, count, lr=runner.learning_rates[0])
    batches.close()
    runner.logger.info('one step: ' + '  '.join(f'{k} {v.item():.4g}' for k, v in outputs.items()))
    runner.logger.info('dry run done: nothing was written to %s', cfg.work_dir)


def describe_run(runner: Runner) -> list[str]:
    """Return the lines that a run begins with: model, tiles, batch, learning rate, device."""
    cfg, dataset = runner.cfg, runner.dataset
    parameters = list(runner.module.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    backbone = sum(p.numel() for p in runner.algorithm.backbone.parameters())
    scale = (f" = {cfg.optimizer['lr']:g} x {cfg.global_batch_size} / {cfg.base_batch_size}"
             if cfg.base_batch_size else ' (not scaled by the batch size)')
    lines = [
        f"{cfg.model['type']}: {sum(p.numel() for p in parameters) / 1e6:.2f} M parameters, "
        f'{trainable / 1e6:.2f} M trainable, backbone {backbone / 1e6:.2f} M',
        f'{len(dataset)} tiles, {cfg.epochs} epochs of {runner.steps_per_epoch} steps, '
        f'{runner.max_steps} steps in all',
        f'global batch {cfg.global_batch_size} = {runner.world_size} rank(s) x '
        f'{runner.batch_size} x accumulate {cfg.accumulate}',
        f'learning rate {runner.lr:g}{scale}',
        f'views rendered {_rendered_by(runner.loader)}',
        f'device {runner.device}, amp {_precision(cfg.amp, runner.amp)}, '
        + runner.environment['processor'],
        f'work directory {Path(cfg.work_dir or runner.work_dir).absolute()}']
    if others := dataset.source.passed_over:
        lines.insert(2, f'passed over beside the tiles: {others}')
    report = runner.load_report or getattr(runner.algorithm.backbone, 'load_report', None)
    if report:
        lines.insert(1, f"{'backbone' if runner.load_report else report.source}: {report}")
    if report and report.source and (told := wants_another(report.source, **cfg.normalize)):
        lines.insert(2, f'WARNING: {told}')
    if endless := endless_warm_up(runner.learning_rates, runner.lr, cfg.epochs,
                                  cfg.schedule.get('warmup_epochs', 0)):
        lines.append(f'WARNING: {endless}')
    if getattr(runner.algorithm, 'statistics_tell_pairs', False):
        lines.append('WARNING: statistics of batch norm tell which query and key belong together, '
                     'which lets the loss fall for nothing; expected model.backbone.norm_cfg='
                     "dict(type='SplitBN', num_splits=8), or several processes with norm 'BN' and "
                     'shuffled keys')
    return lines


def _precision(wanted: str, taken: str) -> str:
    return taken if wanted == taken else f'{taken} ({wanted})'


def _rendered_by(loader: ViewLoader) -> str:
    if loader.render == 'device':
        return 'on the device'
    if not loader.workers:
        return 'by the training process'
    return f"by loader {'processes' if loader.processes else 'threads'} ({loader.workers})"
