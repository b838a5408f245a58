"""Claims on folders, by real processes; other hosts and file systems without locks are played."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from openselfsup import claims
from openselfsup.claim_records import about_us
from openselfsup.claims import IN_USE, claimed
from openselfsup.errors import UserError

HOLDER = '''
import os, sys, time
from openselfsup import claims
if 'no locks' in sys.argv:
    claims._lock = lambda file: 'none'
with claims.claimed(sys.argv[1], 'packing tiles'):
    if 'forks' in sys.argv and not os.fork():
        time.sleep(60)
        os._exit(0)
    print('held', flush=True)
    time.sleep(60)
'''


@pytest.fixture
def start_holder(tmp_path):
    """Start a process that holds ``tmp_path``, in a session of its own that ends with the test."""
    started = []

    def start(*words: str) -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, '-c', HOLDER, str(tmp_path), *words],
                                   stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        assert process.stdout.readline() == 'held\n'
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):  # all of it has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.fixture
def no_locks(monkeypatch):
    monkeypatch.setattr(claims, '_lock', lambda file: 'none')


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(claims, 'SILENCE', 1.5)
    monkeypatch.setattr(claims, 'SETTLE', 0.05)
    monkeypatch.setattr(claims, 'LOOK', 0.3)


def left_behind(folder, **changes) -> dict:
    """Write the claim of a process that is gone, or that runs on another host."""
    record = {**about_us('pretraining'), 'token': 'theirs', **changes}
    (folder / IN_USE).write_text(json.dumps(record))
    return record


def other_host() -> dict:
    return dict(host='node-17', machine='another boot', pid=os.getpid())


def taken(folder) -> dict:
    """Claim a folder and return what the claim says of us."""
    with claimed(folder, 'testing') as claim:
        claim.check()
        record = json.loads((folder / IN_USE).read_text())
    assert record['pid'] == os.getpid() and not (folder / IN_USE).exists()
    return record


def refused(folder) -> str:
    with pytest.raises(UserError) as caught, claimed(folder, 'testing'):
        raise AssertionError('two hold this folder')
    return str(caught.value)


def test_a_second_process_is_told_who_holds_the_folder(tmp_path, start_holder):
    holder = start_holder()
    said = refused(tmp_path)
    record = json.loads((tmp_path / IN_USE).read_text())
    for part in (f'process {holder.pid} on {record["host"]}', 'packing tiles', record['command'],
                 record['since'], str(tmp_path), 'another folder', str(tmp_path / IN_USE)):
        assert part in said, part
    assert record['command'].endswith(str(tmp_path))


@pytest.mark.parametrize('words', [(), ('forks',), ('no locks',)])
def test_a_killed_holder_is_taken_over_at_once(words, tmp_path, start_holder, monkeypatch):
    holder = start_holder(*words)
    if 'no locks' in words:
        monkeypatch.setattr(claims, '_lock', lambda file: 'none')
    assert f'process {holder.pid} ' in refused(tmp_path)
    os.kill(holder.pid, signal.SIGKILL)  # what it forked lives on
    holder.wait()
    assert json.loads((tmp_path / IN_USE).read_text())['pid'] == holder.pid
    monkeypatch.setattr(time, 'sleep', lambda seconds: pytest.fail('waited')
                        if seconds != claims.SETTLE else None)
    taken(tmp_path)


def test_a_process_id_that_was_given_anew_is_not_the_holder(tmp_path, no_locks, quick):
    left_behind(tmp_path)
    assert f'process {os.getpid()} ' in refused(tmp_path)  # so it is the start that counts
    left_behind(tmp_path, start='1')
    taken(tmp_path)


def test_a_holder_on_another_host_is_believed_while_its_claim_is_touched(tmp_path, quick):
    for no_locks in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if no_locks:
                patch.setattr(claims, '_lock', lambda file: 'none')
            left_behind(tmp_path, **other_host())
            beats = subprocess.Popen([sys.executable, '-c', 'import os, sys, time\nwhile True:\n'
                                      '    time.sleep(0.2)\n    os.utime(sys.argv[1])',
                                      str(tmp_path / IN_USE)])
            try:
                assert 'on node-17' in refused(tmp_path)
            finally:
                beats.kill()
                beats.wait()
            taken(tmp_path)  # silent for long enough


def test_an_old_claim_of_another_host_is_taken_over_without_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(time, 'sleep', lambda seconds: pytest.fail('waited'))
    left_behind(tmp_path, **other_host())
    old = time.time() - claims.SILENCE - 5
    os.utime(tmp_path / IN_USE, (old, old))
    taken(tmp_path)


@pytest.mark.parametrize('locks', [True, False])
def test_a_requeued_job_takes_over_from_its_earlier_start(locks, tmp_path, monkeypatch):
    if not locks:
        monkeypatch.setattr(claims, '_lock', lambda file: 'none')
    monkeypatch.setattr(time, 'sleep', lambda seconds: None if seconds == claims.SETTLE
                        else pytest.fail('waited'))
    monkeypatch.setenv('SLURM_JOB_ID', '4711')
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    left_behind(tmp_path, **other_host(), job='4711', restarts=0)
    assert taken(tmp_path)['restarts'] == 1
    left_behind(tmp_path, **other_host(), job='4711', restarts=1)  # srun twice in one job
    with pytest.raises(pytest.fail.Exception, match='waited'):
        taken(tmp_path)


def test_a_claim_that_is_not_written_yet_is_waited_for(tmp_path, no_locks, monkeypatch):
    (tmp_path / IN_USE).write_bytes(b'{"pid"')
    monkeypatch.setattr(time, 'sleep', lambda seconds: left_behind(tmp_path))
    assert f'process {os.getpid()} ' in refused(tmp_path)


def test_this_process_does_not_hold_a_folder_twice(tmp_path):
    with claimed(tmp_path, 'testing'):
        assert 'this process writes into this folder already' in refused(tmp_path / '.')
        with claimed(tmp_path, 'testing', name='.other'), claimed(tmp_path / 'below', 'testing'):
            pass
    taken(tmp_path)


def test_a_holder_learns_that_it_lost_the_folder(tmp_path):
    with claimed(tmp_path, 'testing') as claim:
        os.replace(tmp_path / IN_USE, tmp_path / 'moved')
        left_behind(tmp_path)
        with pytest.raises(UserError, match='no longer holds'):
            claim.check()
    assert (tmp_path / IN_USE).exists()  # the other's


def test_a_folder_into_which_nothing_was_written_leaves_no_trace(tmp_path):
    with claimed(tmp_path / 'a/b', 'testing'):
        assert (tmp_path / 'a/b' / IN_USE).is_file()
    assert not (tmp_path / 'a').exists()
    with claimed(tmp_path / 'a/b', 'testing'):
        (tmp_path / 'a/result').touch()
    assert [p.name for p in tmp_path.rglob('*')] == ['a', 'result']


def test_a_folder_that_cannot_be_held_is_named(tmp_path):
    (tmp_path / 'file').touch()
    assert f'{tmp_path}/file: this folder cannot be made: a file, not a folder, is there' in \
        refused(tmp_path / 'file')
    assert '/proc/1/' in refused('/proc/1/out')


def test_one_of_many_that_start_at_once_gets_the_folder(tmp_path):
    code = ('import sys, time\nfrom openselfsup import claims\n'
            "if sys.argv[2] == 'none': claims._lock = lambda file: 'none'\n"
            'try:\n'
            "    with claims.claimed(sys.argv[1], 'x'):\n"
            "        print('held', flush=True)\n        sys.stdin.read()\n"
            "except Exception as error: print(type(error).__name__, flush=True)")
    for lock in ('posix', 'none'):
        folder = tmp_path / lock
        folder.mkdir()
        left_behind(folder, start='1')  # all find a dead holder
        crowd = [subprocess.Popen([sys.executable, '-c', code, str(folder), lock], text=True,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                 for _ in range(6)]
        said = sorted(process.stdout.readline().strip() for process in crowd)
        for process in crowd:
            process.communicate('')
        assert said == ['UserError'] * 5 + ['held']
