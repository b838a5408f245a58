"""Checkpoints written in the background: what is written is what was, whatever the disk does."""

import errno
import signal
import stat
import sys
import threading
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from small_runs import DEMO, REPO, SMALL, start
from test_training import wait_for_lines

from openselfsup import checkpoints, files
from openselfsup.checkpoints import load
from openselfsup.engine.saving import Saver, copied_state
from openselfsup.errors import UserError
from openselfsup.files import NotWritten
from openselfsup.training.logs import build_logger


class SlowDisk:
    """Stands for ``checkpoints.save``: waits until it is let go on; may fail, too."""

    def __init__(self, monkeypatch):
        self.go, self.problem, self.names = threading.Event(), None, []
        self.real = checkpoints.save
        monkeypatch.setattr(checkpoints, 'save', self)

    def __call__(self, state, path):
        self.names.append(path.name)
        if threading.current_thread() is not threading.main_thread():
            assert self.go.wait(20)
        if self.problem:
            raise NotWritten(self.problem, where=str(path))
        self.real(state, path)


@pytest.fixture
def disk(monkeypatch):
    return SlowDisk(monkeypatch)


@pytest.fixture
def saver(tmp_path):
    return Saver(tmp_path, build_logger(tmp_path / 'train.log'))


def state(value: float) -> dict:
    return dict(state_dict=dict(weight=torch.full((3,), value)), meta=dict(step=int(value)))


def step_of(path: Path) -> int:
    found = torch.load(path, weights_only=True)
    assert (found['state_dict']['weight'] == found['meta']['step']).all()
    return found['meta']['step']


def test_the_run_goes_on_while_a_copy_is_written(saver, disk, tmp_path):
    done = []
    assert saver.save(state(1), 'epoch_1.pth', background=True)  # the first one is waited for
    assert step_of(tmp_path / 'latest.pth') == 1
    mine = state(2)
    assert saver.save(mine, 'epoch_2.pth', background=True, written=lambda: done.append(2))
    mine['state_dict']['weight'] += 7  # the next step
    mine['meta']['step'] = 9
    assert not saver.settle() and not done  # nobody waited
    assert saver.last == str(tmp_path / 'epoch_1.pth') and step_of(tmp_path / 'latest.pth') == 1
    assert saver.save(state(3), 'latest.pth', background=True)  # left out: one is on its way
    disk.go.set()
    assert saver.settle(wait=True) and done == [2]
    assert saver.last == str(tmp_path / 'epoch_2.pth') and step_of(tmp_path / 'latest.pth') == 2
    assert disk.names == ['epoch_1.pth', 'epoch_2.pth']


def test_what_a_run_ends_with_waits_for_what_is_on_its_way(saver, disk, tmp_path):
    saver.save(state(1), 'latest.pth')
    saver.save(state(2), 'epoch_2.pth', background=True)
    threading.Timer(0.1, disk.go.set).start()
    assert saver.save(state(3), 'latest.pth', must=True)
    assert step_of(tmp_path / 'epoch_2.pth') == 2 and step_of(tmp_path / 'latest.pth') == 3


def test_a_disk_that_fills_meanwhile_is_told_and_the_last_good_one_stays(saver, disk, tmp_path,
                                                                         capsys):
    saver.save(state(1), 'epoch_1.pth')
    disk.problem = 'the disk is full'
    disk.go.set()
    saver.save(state(2), 'epoch_2.pth', background=True)
    assert not saver.settle(wait=True) and saver.failed == 1
    assert saver.last == str(tmp_path / 'epoch_1.pth') and step_of(tmp_path / 'latest.pth') == 1
    assert 'epoch_2.pth: the disk is full (attempt 1); training goes on' in capsys.readouterr().out
    with pytest.raises(UserError, match='the disk is full; the last good checkpoint is .*epoch_1'):
        saver.save(state(3), 'latest.pth', must=True)
    disk.problem = None
    assert saver.save(state(4), 'latest.pth', background=True) and saver.settle(wait=True)
    assert saver.failed == 0 and step_of(tmp_path / 'latest.pth') == 4


def test_a_disk_that_turns_read_only_ends_no_run(saver, tmp_path, monkeypatch, capsys):
    def refused(*args):
        raise OSError(errno.EROFS, 'Read-only file system')

    saver.save(state(1), 'latest.pth')
    with monkeypatch.context() as patch:
        patch.setattr(files, 'open', refused, raising=False)
        saver.save(state(2), 'epoch_2.pth', background=True)
        assert not saver.settle(wait=True)
    assert 'Read-only file system' in (said := capsys.readouterr().out)
    assert 'training goes on' in said and step_of(tmp_path / 'latest.pth') == 1
    assert saver.save(state(3), 'epoch_3.pth', background=True) and saver.settle(wait=True)
    assert step_of(tmp_path / 'latest.pth') == 3


def test_a_copy_is_the_state_bit_for_bit(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    module.add_module('tied', module[0])
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    whole = dict(state_dict=module.state_dict(), optimizer=optimizer.state_dict(),
                 map=torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
                 empty=[torch.empty(0), torch.empty(0)], meta=dict(size=torch.Size([2]), name='x'))
    copied, wait = copied_state(whole)
    wait()
    checkpoints.save(whole, tmp_path / 'whole.pth')
    checkpoints.save(copied, tmp_path / 'copied.pth')
    names = load(tmp_path / 'copied.pth')['state_dict']
    assert names['0.weight'].data_ptr() == names['tied.weight'].data_ptr()  # one tensor, still
    assert isinstance(copied['state_dict'], OrderedDict)
    assert copied['state_dict']._metadata == whole['state_dict']._metadata
    assert copied['map'].is_contiguous(memory_format=torch.channels_last)
    before = {key: value.clone() for key, value in whole['state_dict'].items()}
    steps = copied['optimizer']['state'][0]['step'].clone()
    module(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    assert all(torch.equal(copied['state_dict'][key], value) for key, value in before.items())
    assert torch.equal(copied['optimizer']['state'][0]['step'], steps)
    assert not torch.equal(module[0].weight, copied['state_dict']['0.weight'])


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_a_copy_from_a_gpu_is_of_the_moment():
    weight = torch.zeros(1 << 24, device='cuda')
    for _ in range(20):
        weight += 1
    copied, wait = copied_state(dict(weight=weight))
    weight += 1
    wait()
    assert copied['weight'].is_pinned() and (copied['weight'] == 20).all()


BASH = '#!/usr/bin/env bash\n'
STANDS_IN = dict(
    srun=BASH + 'export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=1\nexec "$@"\n',
    scontrol=BASH + 'echo "scontrol $*"\n',
    waits=BASH + 'trap "exit 143" TERM\necho "$@" > "$0.called"\nwhile true; do sleep 0.05; done\n')


@pytest.fixture
def job(tmp_path):
    """Starts the Slurm script; all of it but Slurm: its two commands are stand-ins."""
    for name, text in STANDS_IN.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)

    def start_job(python: object, *options: str):
        return start(['bash', str(REPO / 'tools/slurm/pretrain.sbatch'), str(DEMO),
                      str(tmp_path / 'run'), '--cfg-options', *SMALL, 'workers=0', *options],
                     PATH=f'{tmp_path}:/usr/bin:/bin', PYTHON=str(python), SLURM_JOB_ID='17',
                     MASTER_ADDR='127.0.0.1', OMP_NUM_THREADS='1', GRACE='0')

    return start_job


def test_the_slurm_script_saves_before_the_limit_and_is_queued_again(job, tmp_path):
    process = job(sys.executable, 'epochs=2000')
    wait_for_lines(tmp_path / 'run/metrics.jsonl', 1, process)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and 'scontrol requeue 17' in output, output
    assert 'go on with --resume' in output
    assert load(tmp_path / 'run/latest.pth')['meta']['step'] > 0


def test_the_slurm_script_leaves_a_pre_empted_job_to_slurm(job, tmp_path):
    process = job(tmp_path / 'waits')
    wait_for_lines(tmp_path / 'waits.called', 1, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 143 and 'scontrol' not in output, output
    called = (tmp_path / 'waits.called').read_text()
    assert '--launcher slurm --resume --cfg-options' in called
