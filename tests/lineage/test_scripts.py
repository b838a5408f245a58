"""Published scripts as real processes; `python` and `srun` are stand-ins where that is enough."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from openselfsup.checkpoints import load
from openselfsup.claims import claimed, stop_holder
from openselfsup.cli.main import execute, parse
from openselfsup.errors import UserError
from openselfsup.files import read_json
from openselfsup.lineage.commands import without_blanks
from openselfsup.training.launch import use_port

REPO = Path(__file__).resolve().parents[2]
TILES = REPO / 'data/demo/kather2016'
# What srun does for a single task: it names the rank in the environment and runs the command.
SRUN = f'''#!{sys.executable}
import os, sys
words = sys.argv[1:]
count = 0
while words[count].startswith('-'):
    count += 2 if words[count] in ('-p', '-N', '-t') else 1
print('srun', *words[:count], flush=True)
os.environ.update(SLURM_PROCID='0', SLURM_LOCALID='0', SLURM_NTASKS='1', SLURM_JOB_ID='7')
os.execvp(words[count], words[count:])
'''


@pytest.fixture
def shell(tmp_path):
    """Run words in ``tmp_path``, where `python` says what it is asked, and srun runs it."""
    commands = tmp_path / 'commands'
    commands.mkdir()
    for name, text in (('python', '#!/bin/sh\necho "python $@"\n'), ('srun', SRUN)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)

    def run(*words: object, status: int = 0, **environment: str) -> str:
        done = subprocess.run([*map(str, words)], cwd=tmp_path, text=True, timeout=240,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env={**os.environ, 'PATH': f"{commands}:{os.environ['PATH']}",
                                   **environment})
        assert done.returncode == status, done.stdout
        return done.stdout
    return run


def lines(said: str) -> list[str]:
    return [line for line in said.splitlines() if not line.startswith('+')]  # not those of set -x


def test_training_on_one_machine(shell):
    tools = REPO / 'tools'
    said = shell(tools / 'dist_train.sh', 'configs/PLM_SSL/a.py', 2, '--resume', PORT='7')
    assert lines(said) == [
        f'python -m torch.distributed.run --nproc_per_node=2 --master_port=7 {tools}/train.py '
        'configs/PLM_SSL/a.py --work_dir work_dirs/PLM_SSL/a/ --seed 0 --launcher pytorch --resume']
    assert lines(shell(tools / 'single_train.sh', 'configs/a.py', '--seed', 3)) == [
        f'python -u {tools}/train.py configs/a.py --work_dir work_dirs/a/ --seed 3']


def test_training_by_slurm(shell, tmp_path):
    tools = REPO / 'tools'
    said = shell(tools / 'srun_train.sh', 'gpu', 'configs/a.py', 4, '-c', SRUN_ARGS='-N 1')
    assert lines(said) == [
        'srun -p gpu --job-name=openselfsup --gres=gpu:4 --ntasks=4 --ntasks-per-node=4 '
        '--cpus-per-task=5 --kill-on-bad-exit=1 -N 1',
        f'python -u {tools}/train.py configs/a.py --work_dir work_dirs/a/ --seed 0 '
        '--launcher=slurm -c']
    said = shell(tools / 'srun_extract.sh', 'gpu', 'c.py', 2, 'out', '--checkpoint', 'a.pth')
    assert lines(said)[1] == (f'python -u {tools}/extract.py c.py --layer-ind 0,1,2,3,4 '
                              '--work_dir out --launcher=slurm --checkpoint a.pth')
    # In the background: its output comes into the folder.
    assert lines(shell('bash', '-c', f'{tools}/slurm_train.sh gpu job configs/a.py out; sleep 1')
                 ) == []
    assert lines((tmp_path / 'out/nohup_output.out').read_text()) == [
        'srun -p gpu --job-name=job --gres=gpu:4 --ntasks=4 --ntasks-per-node=4 '
        '--cpus-per-task=16 --kill-on-bad-exit=1 -N 1 -t 7:59:49',
        f'python -u -W ignore {tools}/train.py configs/a.py --work_dir out --seed 0 '
        '--launcher slurm']


def test_training_from_a_local_copy_that_is_removed(shell, tmp_path):
    """As it was published, with a real run behind it."""
    script = REPO / 'tools/slurm_train_local_data.sh'
    words = [script, 'gpu', 'job', REPO / 'configs/demo/plm_r18.py', 'out', '--cfg-options',
             'dataset.recipe.size=32', 'global_batch_size=16', 'model.queue_len=40', 'epochs=1',
             'workers=0', 'schedule.warmup_epochs=1']
    assert 'SRC names no folder' in shell(*words, status=2)
    local = dict(GPUS='1', PYTHON=sys.executable, SRC=str(TILES), DST=str(tmp_path / 'disk/tiles'))
    said = shell(*words, **local)
    assert f'copying {TILES} to {tmp_path}/disk/tiles' in said
    assert load(tmp_path / 'out/latest.pth')['meta']['epoch'] == 1
    assert f"root='{tmp_path}/disk/tiles'" in (tmp_path / 'out/config.py').read_text()
    assert not (tmp_path / 'disk/tiles').exists() and TILES.is_dir()
    # What it did not make it does not remove, whatever becomes of the run.
    (tmp_path / 'disk/tiles').mkdir()
    shell(*words, status=2, **local)
    assert 'error: ' in (tmp_path / 'out/nohup_output.out').read_text()
    assert (tmp_path / 'disk/tiles').is_dir()


def test_flags_of_old_of_the_trainer(tool, tmp_path, monkeypatch):
    args = parse('train', ['c.py', '--resume_from', 'a.pth', '--gpus', '1', '--port', '60122'])
    assert args.resume == 'a.pth' and args.port == 60122 and not args.dev
    assert parse('train', ['c.py', '-c']).resume == 'auto'
    assert parse('train', ['c.py']).resume is None
    assert parse('train', ['c.py', '--local-rank=0']).local_rank == 0  # as torch's launcher says it
    monkeypatch.setenv('MASTER_PORT', '1')
    for launcher, port in (('pytorch', '1'), ('slurm', '60122')):
        use_port(launcher, args.port)
        assert os.environ['MASTER_PORT'] == port
    config = str(REPO / 'configs/demo/plm_r18.py')
    with pytest.raises(UserError, match='--gpus: 4 GPUs are asked for, 1 process.* started'):
        execute('train', [config, '--gpus', '4'])
    with pytest.raises(UserError, match='nowhere.pth'):
        execute('train', [config, '--dry-run', '--resume_from', 'nowhere.pth', '--cfg-options',
                          'dataset.recipe.size=32', 'workers=0'])
    done = tool('tools/train.py', config, '--dry-run', '-d', '-c', '--work_dir', 'out',
                '--local_rank', 0, '--launcher', 'none', '--cfg-options',
                f"dataset.source.root='{TILES}'", 'dataset.recipe.size=32', 'workers=0',
                cwd=tmp_path)
    assert done.returncode == 0 and 'global batch 16 = 1 rank(s) x 16' in done.stdout


def test_a_run_is_stopped_by_its_work_directory(shell, tmp_path):
    holder = ('import signal, sys, time; from openselfsup.claims import claimed\n'
              'signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n'
              "with claimed('out', 'pretraining'): print('holds', flush=True); time.sleep(60)")
    process = subprocess.Popen([sys.executable, '-c', holder], cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE, env={**os.environ, 'PYTHONPATH': str(REPO)})
    assert process.stdout.readline() == 'holds\n'
    kill = [REPO / 'tools/kill.sh', 'out']
    said = shell(*kill, PYTHON=sys.executable)
    assert f'asked to save and end: process {process.pid} on' in said
    assert process.wait(30) == 7
    assert 'no process writes into this folder' in shell(*kill, PYTHON=sys.executable, status=2)


def test_a_run_of_another_user_or_host_is_named_and_left_alone(tmp_path, monkeypatch):
    def not_permitted(pid, number):
        raise PermissionError
    monkeypatch.setattr(os, 'kill', not_permitted)
    with claimed(tmp_path / 'out', 'pretraining'):
        with pytest.raises(UserError, match=f'process {os.getpid()} .*pretraining.* not yours$'):
            stop_holder(tmp_path / 'out')
        record = tmp_path / 'out/.in_use'
        record.write_text(json.dumps({**json.loads(record.read_text()), 'machine': 'another',
                                      'host': 'node7'}))
        with pytest.raises(UserError, match='node7.* writes into .* expected the command on node7'):
            stop_holder(tmp_path / 'out')
    with pytest.raises(UserError, match='cannot be read: File name too long'):
        stop_holder(tmp_path / ('a' * 300))


# The two command lines of CA2CL's README: the blanks behind backslashes are its own.
FINE_TUNE = r'''python ft_le.py --dataset_path '../data/Kather_Multi_Class/' \
                --model_name 'resnet18' \
                --model_path './save/NCT/pretrain/resnet18/CA2CL_NCT.tar' \
                --ft_epoch 40 \ 
                --lr 0.0003 \ 
                --seed 1 \ 
                --only_fine_turning \ 
                --labeled_train 0.01 \ 
                --gpu_index 3
'''  # noqa: W291
LINEAR = r'''python ft_le.py --dataset_path '../data/Kather_Multi_Class/' 
                --model_name 'resnet18'
                --model_path './save/NCT/pretrain/resnet18/CA2CL_NCT.tar' \
                --ft_epoch 100
                --lr 0.01
                --seed 1
                --only_linear_eval
                --labeled_train 0.01
                --gpu_index 3
'''  # noqa: W291


@pytest.fixture
def ca2cl(shell, tmp_path):
    """The folders that the README names, a few tiles in them; also return what runs in them."""
    (tmp_path / 'repo/save/NCT/pretrain/resnet18').mkdir(parents=True)
    (tmp_path / 'repo/ft_le.py').symlink_to(REPO / 'ft_le.py')
    (tmp_path / 'commands/python').write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    return lambda text, status=0: shell('bash', '-c', f'cd repo; {text}', status=status)


def test_a_command_that_the_shell_cuts_is_found_out(ca2cl):
    said = ca2cl(FINE_TUNE, status=127)  # the next lines are commands that are not there
    assert ('error: behind 40: the command ends in a backslash and a blank, so that the shell cut '
            'it there') in said and '--lr: command not found' in said
    words = ['--ft_epoch', '40', ' ', '--model_path', '', '\t']
    with pytest.raises(UserError, match='backslash'):
        without_blanks(words)
    assert without_blanks(words[:-1]) == ['--ft_epoch', '40', '--model_path', '']
    # The other one has no backslashes at all, but after its third line.
    said = ca2cl(LINEAR, status=127)
    assert ('error: behind ../data/Kather_Multi_Class/: no weights are named; where a line' in said
            and '--model_name: command not found' in said)
    args = parse('evaluate', shlex.split(re.sub(r'\\?\n', ' ', LINEAR))[2:])
    assert (args.only_linear_eval, args.ft_epoch, args.lr, args.labeled_train, args.gpu_index) == (
        True, 100, 0.01, [0.01], 3)


def test_ca2cls_evaluation_at_the_root(ca2cl, tmp_path, weights):
    for kind in ('LYMPHO', 'STROMA'):
        for i, tile in enumerate(sorted((TILES / kind).iterdir())):
            part = 'test' if i == 0 else 'train'
            folder = tmp_path / f'data/Kather_Multi_Class/{part}/{kind}'
            folder.mkdir(parents=True, exist_ok=True)
            (folder / tile.name).symlink_to(tile)
    shutil.copy(weights, tmp_path / 'repo/save/NCT/pretrain/resnet18/CA2CL_NCT.tar')
    text = re.sub(r'\\ +\n', '\\\n', FINE_TUNE).rstrip() + ' --debug --image_size 32 --out out'
    said = ca2cl(text)
    assert 'this is: openselfsup evaluate' in said and 'finetune-v1' in said
    rows = read_json(tmp_path / 'repo/out/results.json')['rows']
    assert any(row['protocol'] == 'finetune-v1' and row['settings']['lr'] == 3e-4 for row in rows)


SVM = '--protocols svm-v1 svm-low-shot-v1 --labeled_train 1.0 --seeds 1 2 3 4 5'


@pytest.mark.parametrize('script, words, told', [
    ('test_svm_epoch', ['configs/a/b.py', 200, 'feat5', 8],
     f'--model_path work_dirs/a/b/epoch_200.pth --out work_dirs/a/b/svm {SVM}'),
    ('test_svm_pretrain', ['configs/a.py', 'random'],
     f'--model_path  --out work_dirs/a/random/svm {SVM}'),
    ('train_linear', ['configs/r50_multihead.py', 'w/r.pth', '--seed', 3],
     '--model_path w/r.pth --out work_dirs/r50_multihead/r.pth --protocols linear-v1 '
     'linear-stages-v1 --labeled_train 1.0 --seed 3'),
    ('train_semi', ['configs/imagenet_10percent/base.py', 'r.pth', '--lr', 0.1],
     '--model_path r.pth --out work_dirs/imagenet_10percent/base/r.pth --protocols semi-v1 '
     '--labeled_train 0.1 --ft_epoch 20 --lr 0.1')])
def test_benchmarks_are_evaluations_on_labelled_tiles(shell, script, words, told):
    door = REPO / f'benchmarks/dist_{script}.sh'
    assert 'DATA names no labelled tiles' in shell(door, *words, status=2)
    said, = lines(shell(door, *words, DATA='d'))
    assert said == (f'python {REPO}/benchmarks/classification/ft_le.py --dataset_path d {told}')
    parse('evaluate', [word for word in said.split(' ')[2:]])  # an empty word is one
    if 'svm' in script:
        assert "FEAT_LIST is 'feat4 feat5'" in shell(door, *words[:2], 'feat4 feat5', 8, DATA='d',
                                                     status=2)
    slurm, said = lines(shell(REPO / f'benchmarks/srun_{script}.sh', 'gpu', *words, DATA='d',
                              TEST='t', SRUN_ARGS='-N 1'))
    assert slurm == 'srun -p gpu --gres=gpu:1 -N 1' and f'--train d --test t {told}' in said


@pytest.mark.parametrize('folder', ['segmentation/detection', 'segmetation/detection',
                                    'benchmarks/detection'])
def test_detection_from_all_published_folders(shell, tmp_path, folder):
    scripts = REPO / folder
    said = shell('bash', scripts / 'run.sh', 'configs/GlaS/GlaS_R_18_FPN_1x_moco.yaml', 'b.pkl', 2,
                 'out', '--resume')
    program, _, words = said.partition('train_net.py ')
    assert Path(program.split()[1]).resolve() == REPO / 'segmentation/detection'
    assert words == ('--config-file configs/GlaS/GlaS_R_18_FPN_1x_moco.yaml --num-gpus 2 '
                     '--datasets-folder datasets --resume SOLVER.IMS_PER_BATCH 4 '
                     'MODEL.WEIGHTS b.pkl OUTPUT_DIR out SEED -1\n')
    said = shell('bash', scripts / 'run_random.sh', 'a.yaml', 2, 'out', 'SOLVER.IMS_PER_BATCH', 8,
                 DETECTRON2_DATASETS='/d')
    assert said.partition('train_net.py')[2] == (
        ' --config-file a.yaml --num-gpus 2 --datasets-folder /d SOLVER.IMS_PER_BATCH 8 '
        'MODEL.WEIGHTS  OUTPUT_DIR out\n')
    assert "NUM_GPUS is 'out'" in shell('bash', scripts / 'run.sh', 'a.yaml', 'b.pkl', 'out',
                                        status=2)
    assert 'there is no converted_weights/CA2CL.pkl here' in shell(
        'bash', scripts / 'run_ft.sh', status=2)
    assert (scripts / 'convert-pretrain-to-detectron2.py').is_file()


def test_run_ft_without_arguments(shell, tmp_path):
    """Five runs on each data set, and their mean, with two GPUs and the converted weights."""
    (tmp_path / 'converted_weights').mkdir()
    (tmp_path / 'converted_weights/CA2CL.pkl').write_bytes(b'')
    said = shell('bash', REPO / 'benchmarks/detection/run_ft.sh').splitlines()
    assert len(said) == 12 and 'summarize.py' in said[5] and 'summarize.py' in said[11]
    assert said[6].partition('--config-file ')[2] == (
        f'{REPO}/segmentation/detection/configs/CRAG/CRAG_R_18_FPN_1x_moco.yaml --resume '
        '--num-gpus 2 --datasets-folder datasets SOLVER.IMS_PER_BATCH 4 MODEL.WEIGHTS '
        'converted_weights/CA2CL.pkl OUTPUT_DIR work_dirs/CRAG_R_18_FPN_1x_moco/1 SEED 1')


def test_plms_way_to_detectron2_from_the_folder_that_it_misspells(shell, tool, tmp_path, weights):
    folder, out = 'segmetation/detection', tmp_path / 'segmentation'
    state = {f'backbone.{name}': value for name, value in load(weights).items()}
    torch.save(dict(meta={}, state_dict=state), tmp_path / 'epoch_200.pth')
    for words in (['tools/extract_backbone_weights.py', tmp_path / 'epoch_200.pth',
                   out / 'backbone.pth'],
                  [f'{folder}/convert-pretrain-to-detectron2.py', out / 'backbone.pth',
                   out / 'backbone.pkl']):
        assert tool(*words).returncode == 0
    assert (out / 'backbone.pkl').stat().st_size > 40e6
    words = ['train_net.py', '--config-file', 'configs/GlaS/GlaS_R_18_FPN_1x_moco.yaml',
             '--num-gpus', 4, '--datasets-folder', tmp_path, 'MODEL.WEIGHTS', out / 'backbone.pkl',
             'SOLVER.IMS_PER_BATCH', 16, 'OUTPUT_DIR', out / 'GlaS_R_18_FPN_1x_moco/1']
    said = shell('bash', '-c', f'cd {REPO / folder}; {sys.executable} {" ".join(map(str, words))}',
                 status=2)
    assert '4 GPUs are asked for, this machine has' in said
