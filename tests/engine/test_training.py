"""Runs of tools/train.py as users start them."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import torchvision
from small_runs import DEMO, REPO, SMALL, assert_same_state, command, small_run, start

from openselfsup.datasets import ViewLoader
from openselfsup.engine.config import load_config
from openselfsup.engine.position import Position
from openselfsup.engine.train import describe_run, train
from openselfsup.errors import UserError
from openselfsup.registry import DATASETS
from openselfsup.visualization.batch import match_views


def finish(process: subprocess.Popen, status: int = 0) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == status, output
    return output


def wait_for_lines(path, count: int, process: subprocess.Popen) -> None:
    """Wait until a run has written so many lines of metrics."""
    deadline = time.monotonic() + 120
    while not (path.exists() and len(path.read_text().splitlines()) >= count):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
    """An uninterrupted run."""
    work_dir = tmp_path_factory.mktemp('reference') / 'run'
    output = finish(start(command(DEMO, work_dir)))
    return work_dir, output


def test_the_work_directory_explains_itself(reference):
    work_dir, output = reference
    names = {p.name for p in work_dir.iterdir()}
    assert names >= {'config.py', 'environment.json', 'train.log', 'metrics.jsonl', 'tensorboard',
                     'epoch_2.pth', 'latest.pth', 'views.png', 'matches.png'}
    rows = [json.loads(line) for line in (work_dir / 'metrics.jsonl').read_text().splitlines()]
    assert [row['step'] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row['epoch'] for row in rows] == [1, 1, 1, 2, 2, 2]
    for row in rows:
        terms = [v for k, v in row.items() if k.startswith('loss_')]
        assert row['loss'] == pytest.approx(sum(terms), rel=1e-4) and len(terms) == 2
        assert 0 <= row['data_wait'] <= 1 and row['tiles_per_s'] > 0
        assert 0 <= row['acc_contrast'] <= 1 and 0 <= row['matched_fraction'] <= 1
        assert row['feature_std'] > 0 and row['effective_rank'] >= 1
        assert 0 <= row['dead_dimensions'] <= 1
    assert rows[-1]['queue_filled'] == 1.0 and rows[1]['queue_filled'] == pytest.approx(0.4)
    environment = json.loads((work_dir / 'environment.json').read_text())
    assert environment['versions']['torch'] == torch.__version__.split('+')[0]
    assert 'global batch 16 = 1 rank(s) x 16' in output and 'learning rate' in output
    assert list((work_dir / 'tensorboard').glob('events*'))


def test_the_resolved_config_of_a_run_trains_the_same(reference, tmp_path, tool):
    work_dir, _ = reference
    done = tool('tools/train.py', work_dir / 'config.py', '--work-dir', tmp_path / 'again')
    assert done.returncode == 0, done
    assert_same_state(work_dir / 'epoch_2.pth', tmp_path / 'again/epoch_2.pth')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_and_resumed_equals_uninterrupted(reference, tmp_path, number, tool):
    process = start(command(DEMO, tmp_path, options=('save_every=1',)))
    wait_for_lines(tmp_path / 'metrics.jsonl', 2, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    if number == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM, output
        assert 'go on with --resume' in output
    position = torch.load(tmp_path / 'latest.pth', weights_only=True)['meta']
    assert 0 < position['step'] < 6
    done = tool(*small_run(DEMO, tmp_path, '--resume'))
    assert done.returncode == 0 and 'resumed' in done.stdout
    assert_same_state(reference[0] / 'epoch_2.pth', tmp_path / 'epoch_2.pth')
    rows = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    whole = [json.loads(line) for line in
             (reference[0] / 'metrics.jsonl').read_text().splitlines()]
    assert [row['step'] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row['loss'] for row in rows] == [row['loss'] for row in whole]


def test_views_do_not_depend_on_the_number_of_workers(reference, make_runner):
    runner = make_runner('workers=0')
    runner.train()
    assert_same_state(reference[0] / 'epoch_2.pth', runner.last_checkpoint)


PUBLISHED = ['dataset.source={"type": "ImageFolder", "root": "data/demo/kather2016"}',
             'dataset.recipe.size=64', 'global_batch_size=16', 'model.queue_len=64', 'epochs=1',
             'log_interval=1']


def coverage_of_one_process() -> list[float]:
    """Return how far the cells of each batch's views are covered where one process sees them."""
    cfg = load_config('configs/PLM_SSL/r18_bs256_ep200_lambda_1.0.py', PUBLISHED)
    loader = ViewLoader(DATASETS.build(cfg.dataset), cfg.global_batch_size, cfg.seed, workers=0)
    found = [match_views(batch, (2, 2), loader.dataset.geometry) for batch in loader]
    return [torch.stack([match.weight_q, match.weight_k]).mean().item() for match in found]


@pytest.mark.parametrize('module, program, options', [
    ('torch.distributed.launch', ['tools/train.py'], ['--launcher', 'pytorch']),
    ('torch.distributed.run', ['-m', 'openselfsup', 'train'], [])], ids=['published', 'torchrun'])
def test_the_published_command_runs_on_two_processes(tmp_path, tool, free_port, module,
                                                         program, options):
    output = finish(start([
        sys.executable, '-W', 'ignore', '-m', module, '--nproc_per_node=2',
        f'--master_port={free_port}', *program, 'configs/PLM_SSL/r18_bs256_ep200_lambda_1.0.py',
        '--work_dir', str(tmp_path / 'out'), '--seed', '0', *options,
        '--cfg-options', *PUBLISHED], OMP_NUM_THREADS='1'))
    assert 'global batch 16 = 2 rank(s) x 8' in output
    rows = [json.loads(line) for line in (tmp_path / 'out/metrics.jsonl').read_text().splitlines()]
    assert [row['mean_coverage'] for row in rows] == pytest.approx(coverage_of_one_process())
    # The keys of both ranks make a batch of 16, of which two are needed.
    assert [0 <= row.get('queue_drift', -1) <= 1 for row in rows] == [False, True, True]
    meta = torch.load(tmp_path / 'out/epoch_1.pth', weights_only=True)['meta']
    assert meta['world_size'] == 2
    backbone = tmp_path / 'backbone.pth'
    assert tool('tools/extract_backbone_weights.py', tmp_path / 'out/epoch_1.pth',
                backbone).returncode == 0
    model = torchvision.models.resnet18()
    model.fc = torch.nn.Identity()
    model.load_state_dict(torch.load(backbone, weights_only=True)['state_dict'])


@pytest.mark.parametrize('launcher, names', [
    ('slurm', ('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS')),
    ('mpi', ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE'))])
def test_slurm_and_mpi_by_their_environment(tmp_path, free_port, launcher, names):
    program = ['-m', 'openselfsup', 'train'] if launcher == 'slurm' else ['tools/train.py']
    ranks = [start([sys.executable, *program, 'configs/PLM_SSL/r18_bs256_ep200_lambda_0.0.py',
                    '--work-dir', str(tmp_path), '--launcher', launcher,
                    '--cfg-options', *PUBLISHED, 'dataset.recipe.size=32'],
                   MASTER_PORT=free_port, MASTER_ADDR='127.0.0.1', OMP_NUM_THREADS='1',
                   **dict(zip(names, (str(rank), str(rank), '2'))))
             for rank in range(2)]
    outputs = [finish(process) for process in ranks]
    assert '= 2 rank(s) x 8' in outputs[0] and 'rank(s)' not in outputs[1]


def test_dry_run_reports_and_leaves_nothing(tmp_path, tool):
    done = tool(*small_run(DEMO, tmp_path / 'never', '--dry-run', options=('base_batch_size=32',)))
    assert done.returncode == 0
    for part in ("type='SplitBN'", 'M trainable', 'global batch 16', '= 0.0003 x 16 / 32',
                  'learning rate 0.00015', 'one step: ', 'dry run done',
                  f"work directory {tmp_path / 'never'}"):
        assert part in done.stdout
    assert not (tmp_path / 'never').exists()
    assert 'WARNING: ' not in done.stdout
    done = tool(*small_run(DEMO, tmp_path / 'never', '--dry-run',
                           options=('model.backbone.norm_cfg={"type": "BN"}',
                                    'schedule.warmup_epochs=5')))
    assert 'WARNING: the warm-up of 5 epochs does not end in this run of 2: ' in done.stdout
    assert 'WARNING: statistics of batch norm tell which query and key' in done.stdout


@pytest.mark.parametrize('bad', [3, 4, 6])
def test_a_gradient_that_is_not_finite_spoils_no_checkpoint(make_runner, tmp_path, bad):
    runner = make_runner('checkpoint_interval=1', 'save_every=1')
    moves, taken = runner.step.optimizer_step, []
    update = moves.update

    def spoil(*given):
        taken.append(1)
        if len(taken) == bad:  # its loss was finite
            next(p for p in runner.module.parameters() if p.grad is not None).grad[0] = torch.nan
        update(*given)

    moves.update = spoil
    with pytest.raises(UserError, match=f'step {bad}: a gradient was not finite: the weights hold '
                                        'NaN .*the last good checkpoint is .*(latest|epoch_1).pth'):
        runner.train()
    for path in (tmp_path / 'run').glob('*.pth'):
        saved = torch.load(path, weights_only=True)
        assert saved['meta']['step'] < bad
        assert all(value.isfinite().all() for value in saved['state_dict'].values())


def test_a_loss_that_is_not_finite_stops_with_its_name(tmp_path, tool):
    done = tool(*small_run(DEMO, tmp_path, options=(
        'optimizer.lr=1e30', 'schedule.warmup_epochs=0', 'epochs=4')))
    assert done.returncode == 2 and 'last good checkpoint' in done.stderr
    assert re.search(r'error: epoch \d, step \d+: loss\w* = (nan|inf)', done.stderr)


@pytest.mark.parametrize('options, told', [
    (('global_batch_size=15', 'accumulate=2'), ['15 tiles cannot be shared', '14 or 16']),
    (('global_batch_size=64',), ['51 tiles do not fill one batch', 'at most 51']),
    (('dataset.recipe.steps.warp={"type": "ElasticDistortion"}',),
     ['ElasticDistortion', 'no affine map describes']),
    (('dataset.source.root=data/dmo',), ['data/dmo', "did you mean", 'demo']),
    (('amp=fp16',), ['fp16 needs a GPU', 'bf16']),
    (('pretrained=README.md',), ['README.md']),
])
def test_mistakes_are_one_sentence_before_any_work(tmp_path, tool, options, told):
    done = tool(*small_run(DEMO, tmp_path / 'run', options=options))
    assert done.returncode == 2 and done.stderr.startswith('error: ') and not done.stdout
    for part in told:
        assert part in done.stderr


def test_a_directory_with_a_run_is_not_overwritten(reference, tool):
    work_dir, _ = reference
    before = (work_dir / 'latest.pth').stat().st_mtime_ns
    done = tool(*small_run(DEMO, work_dir))
    assert done.returncode == 2 and 'already holds a run' in done.stderr
    assert '--resume' in done.stderr
    assert (work_dir / 'latest.pth').stat().st_mtime_ns == before


def test_resuming_another_model_says_so(reference, tmp_path, tool):
    done = tool(*small_run(DEMO, tmp_path, '--resume', str(reference[0] / 'latest.pth'),
                       options=('model.backbone.depth=34',)))
    assert done.returncode == 2 and 'another model' in done.stderr


def test_resuming_in_another_world_says_what_is_no_longer_exact(reference, make_runner, capsys):
    runner = make_runner('epochs=3', 'global_batch_size=8')
    runner.resume(reference[0] / 'latest.pth')
    assert 'global_batch_size was 16 and is now 8' in capsys.readouterr().out
    assert runner.position == Position(2, 0)


def test_pretrained_weights_are_counted_and_used(tmp_path, make_runner):
    model = torchvision.models.resnet18()
    torch.save(model.state_dict(), tmp_path / 'r18.pth')
    runner = make_runner(f'pretrained={tmp_path / "r18.pth"}')
    assert '122' in str(runner.load_report) or '120' in str(runner.load_report)
    for encoder in (runner.algorithm.encoder_q, runner.algorithm.encoder_k):
        assert encoder.backbone.conv1.weight.equal(model.conv1.weight)


def test_weights_that_want_another_normalisation_say_so(tmp_path, make_runner):
    folder = tmp_path / 'hub'
    folder.mkdir()
    torch.save(torchvision.models.resnet18().state_dict(), folder / 'pytorch_model.bin')
    (folder / 'config.json').write_text(json.dumps(dict(
        architecture='resnet18', pretrained_cfg=dict(mean=[0.5] * 3, std=[0.25] * 3))))
    init = f"model.backbone.init_cfg=dict(type='Pretrained', checkpoint='{folder}')"
    told = 'normalize=dict(mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])'
    for options, expected in (
            ([f'pretrained={folder}'], True), ([init], True),
            ([f'pretrained={folder}', 'normalize.mean=[0.5,0.5,0.5]',
              'normalize.std=[0.25,0.25,0.25]'], False),
            ([f"pretrained={folder / 'pytorch_model.bin'}"], True), ([], False)):
        lines = describe_run(make_runner(*options))
        assert any(line.startswith('WARNING') and told in line for line in lines) == expected


def test_accumulation_counts_optimiser_steps(make_runner):
    runner = make_runner('accumulate=2', 'global_batch_size=16', 'dataset.on_corrupt=raise',
                         'dataset.recipe.size=32')
    assert len(runner.loader) == 6 and runner.steps_per_epoch == 3
    assert len(runner.learning_rates) == 6
    runner.train()
    assert runner.steps_done == 6
    steps = {int(s['step']) for s in runner.optimizer.state_dict()['state'].values()}
    assert steps == {6}


def test_keeps_as_many_checkpoints_as_asked(make_runner, tmp_path):
    runner = make_runner('checkpoint_interval=1', 'epochs=3', 'keep_checkpoints=2',
                         'dataset.recipe.size=32')
    runner.train()
    names = {p.name for p in (tmp_path / 'run').glob('*.pth')}
    assert names == {'epoch_2.pth', 'epoch_3.pth', 'latest.pth'}


def test_a_finished_run_has_nothing_left_to_do(reference, make_runner, capsys):
    from openselfsup.training.launch import Launch
    cfg = load_config(DEMO, SMALL)
    cfg.work_dir = str(reference[0])
    assert train(cfg, Launch(0, 1, torch.device('cpu')), 'auto') == 0
    assert 'all 2 epochs are done' in capsys.readouterr().out


@pytest.mark.parametrize('on_corrupt', ['skip', 'raise'])
def test_a_tile_that_turns_out_corrupt_is_named_and_counted(tmp_path, on_corrupt, tool):
    shutil.copytree(REPO / 'data/demo/kather2016', tmp_path / 'tiles')
    broken = tmp_path / 'tiles/TUMOR/image_007.png'
    content = broken.read_bytes()  # header and end stay whole
    broken.write_bytes(content[:30_000] + bytes(50) + content[30_050:])
    done = tool(*small_run(DEMO, tmp_path / 'run', options=(
        f'dataset.source.root={tmp_path / "tiles"}', f'dataset.on_corrupt={on_corrupt}')))
    assert done.returncode == (0 if on_corrupt == 'skip' else 2)
    assert 'image_007.png' in done.stdout + done.stderr
    if on_corrupt == 'skip':
        rows = (tmp_path / 'run/metrics.jsonl').read_text().splitlines()
        assert json.loads(rows[-1])['corrupt_tiles'] == 1
        assert '1 tiles could not be read' in done.stdout


def test_queues_that_hold_two_batches_tell_their_drift(make_runner):
    runner = make_runner('workers=0', 'epochs=1', name='drift')
    runner.train()
    rows = [json.loads(line) for line in
            (runner.work_dir / 'metrics.jsonl').read_text().splitlines()]
    for key in ('queue_drift', 'queue_dense_drift'):  # 16 keys a step
        assert [key in row for row in rows] == [False, True, True]
        assert all(0 <= row[key] <= 1 for row in rows if key in row)
