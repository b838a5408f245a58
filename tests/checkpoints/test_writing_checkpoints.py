import errno
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from openselfsup import files
from openselfsup.checkpoints import load, save
from openselfsup.errors import UserError
from openselfsup.files import atomic_file, link


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    save({'a': 1}, tmp_path / 'run' / 'x' / 'a.pth')
    save({'a': 2}, tmp_path / 'run' / 'x' / 'a.pth')
    assert load(tmp_path / 'run' / 'x' / 'a.pth') == {'a': 2}
    assert names(tmp_path / 'run' / 'x') == ['a.pth']


@pytest.mark.parametrize('value, where', [
    (np.float64(1), "checkpoint['meta']['x'] is a numpy.float64"),
    (np.zeros(2), 'numpy.ndarray'),
    ([1, {'deep': object()}], "checkpoint['meta']['x'][1]['deep'] is a builtins.object"),
    ({np.int64(3): 1}, "a key of checkpoint['meta']['x']"),
    (torch.nn.Linear(1, 1), 'torch.nn.modules.linear.Linear'),
])
def test_what_could_not_be_read_back_is_not_written(tmp_path, value, where):
    with pytest.raises(TypeError, match='plain Python types only') as error:
        save({'meta': {'x': value}}, tmp_path / 'a.pth')
    assert where in str(error.value)
    assert not names(tmp_path)


def test_the_permissions_are_those_of_any_new_file(tmp_path):
    save({}, tmp_path / 'a.pth')
    (tmp_path / 'plain').touch()
    assert (tmp_path / 'a.pth').stat().st_mode == (tmp_path / 'plain').stat().st_mode


def run(code: str, *arguments) -> str:
    """Run code in a process of its own and return what it printed."""
    return subprocess.run([sys.executable, '-c', textwrap.dedent(code), *map(str, arguments)],
                          capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.skipif(os.name != 'posix', reason='needs a limit on the size of files')
def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path):
    save({'version': 1}, tmp_path / 'a.pth')
    printed = run('''
        import resource, signal, sys, torch
        from openselfsup.checkpoints import save
        from openselfsup.errors import UserError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for limit in (0, 100, 3000, 500_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                save({'version': 2, 'w': [torch.ones(50_000) for _ in range(5)]}, sys.argv[1])
            except UserError as error:
                print(error)
    ''', tmp_path / 'a.pth')
    lines = printed.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line == (f'{tmp_path}/a.pth: could not be written: File too large; '
                        'what was there before is untouched')
    assert load(tmp_path / 'a.pth') == {'version': 1}
    assert names(tmp_path) == ['a.pth']


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full')
def test_a_full_disk_is_named(tmp_path):
    save({'version': 1}, tmp_path / 'a.pth')
    with pytest.raises(UserError, match='a.pth: could not be written: the disk is full'):
        with atomic_file(tmp_path / 'a.pth'), open('/dev/full', 'wb') as full:
            torch.save({'w': torch.ones(50_000)}, full)
    assert load(tmp_path / 'a.pth') == {'version': 1}
    assert names(tmp_path) == ['a.pth']


def test_places_that_cannot_be_written_are_user_errors(tmp_path):
    (tmp_path / 'file').write_text('x')
    with pytest.raises(UserError, match='part of its path is a file'):
        save({}, tmp_path / 'file' / 'a.pth')
    with pytest.raises(UserError, match='part of its path is a file'):
        save({}, tmp_path / 'file' / 'deeper' / 'a.pth')
    with pytest.raises(UserError, match='this is a folder'):
        save({}, tmp_path)


def test_an_error_of_the_caller_passes_and_leaves_the_old_file(tmp_path):
    save({'version': 1}, tmp_path / 'a.pth')
    with pytest.raises(RuntimeError, match='mine'), atomic_file(tmp_path / 'a.pth') as file:
        file.write(b'half')
        raise RuntimeError('mine')
    assert load(tmp_path / 'a.pth') == {'version': 1} and names(tmp_path) == ['a.pth']


# Writes versions 1, 2, ... of one checkpoint, in children that are killed at random moments.
KILLED = '''
    import os, random, signal, sys, time
    import torch
    from pathlib import Path
    from openselfsup.checkpoints import load, save
    folder = Path(sys.argv[1])
    tensors = [torch.zeros(500_000) for _ in range(8)]
    def write(version):
        for tensor in tensors:
            tensor.numpy()[:] = version
        save({'version': version, 'tensors': tensors}, folder / 'latest.pth')
    start = time.monotonic()
    write(0)
    duration = time.monotonic() - start
    last, left, random = 0, 0, random.Random(0)
    for attempt in range(12):
        child = os.fork()
        if child == 0:
            while True:
                last += 1
                write(last)
        time.sleep(random.uniform(0.2, 4) * duration)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        left += len(list(folder.glob('.*')))
        found = load(folder / 'latest.pth')
        assert found['version'] >= last, (found['version'], last)
        assert all((t == found['version']).all() for t in found['tensors'])
        last = found['version']
    write(last + 1)
    print(left, last, *os.listdir(folder))
'''


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_a_killed_writer_leaves_a_whole_file_and_the_next_one_cleans_up(tmp_path):
    left, last, *files = run(KILLED, tmp_path).split()
    assert int(left) > 0, 'no child was killed while it was writing: this tests nothing'
    assert int(last) > 0, 'no child ever finished: this tests nothing'
    assert files == ['latest.pth']


def test_another_process_that_is_still_writing_is_left_alone(tmp_path):
    code = '''
        import sys
        from openselfsup.files import atomic_file
        with atomic_file(sys.argv[1]) as file:
            file.write(b'whole')
            print('writing', flush=True)
            sys.stdin.read()
    '''
    with subprocess.Popen([sys.executable, '-c', textwrap.dedent(code), str(tmp_path / 'other')],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b'writing\n'
        save({'a': 1}, tmp_path / 'a.pth')
        assert not (tmp_path / 'other').exists()
        other.communicate()
    assert (tmp_path / 'other').read_bytes() == b'whole'
    assert names(tmp_path) == ['a.pth', 'other']


def test_latest_takes_no_room_and_outlives_what_it_stands_for(tmp_path):
    save({'version': 1}, tmp_path / 'epoch_1.pth')
    save({'version': 2}, tmp_path / 'epoch_2.pth')
    for epoch in (1, 1, 2):  # twice the same: both names are one file already
        link(tmp_path / f'epoch_{epoch}.pth', tmp_path / 'latest.pth')
        assert load(tmp_path / 'latest.pth') == {'version': epoch}
    assert (tmp_path / 'latest.pth').samefile(tmp_path / 'epoch_2.pth')
    assert names(tmp_path) == ['epoch_1.pth', 'epoch_2.pth', 'latest.pth']
    (tmp_path / 'epoch_2.pth').unlink()
    assert load(tmp_path / 'latest.pth') == {'version': 2}


def test_saving_latest_leaves_the_epoch_it_stood_for(tmp_path):
    save({'version': 1}, tmp_path / 'epoch_1.pth')
    link(tmp_path / 'epoch_1.pth', tmp_path / 'latest.pth')
    save({'version': 2}, tmp_path / 'latest.pth')
    assert load(tmp_path / 'epoch_1.pth') == {'version': 1}
    assert load(tmp_path / 'latest.pth') == {'version': 2}


def test_where_there_are_no_hard_links_latest_is_a_copy(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    monkeypatch.setattr(os, 'link', no_links)
    save({'version': 1}, tmp_path / 'epoch_1.pth')
    link(tmp_path / 'epoch_1.pth', tmp_path / 'latest.pth')
    assert load(tmp_path / 'latest.pth') == {'version': 1}
    assert not (tmp_path / 'latest.pth').samefile(tmp_path / 'epoch_1.pth')
    assert names(tmp_path) == ['epoch_1.pth', 'latest.pth']


def test_linking_what_is_not_there_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match='No such file'):
        link(tmp_path / 'epoch_1.pth', tmp_path / 'latest.pth')


@pytest.mark.skipif(files.fcntl is None, reason='files that are open cannot be removed here')
def test_a_file_that_is_taken_for_abandoned_before_it_is_locked_is_begun_anew(tmp_path,
                                                                             monkeypatch):
    lock, taken = files.fcntl.flock, []

    def late(file, how):
        if not taken:  # another thread looks just now
            taken.extend(tmp_path.glob('.*.unfinished'))
            taken[0].unlink()
        lock(file, how)

    monkeypatch.setattr(files.fcntl, 'flock', late)
    save({'a': 1}, tmp_path / 'a.pth')
    assert taken and load(tmp_path / 'a.pth') == {'a': 1} and names(tmp_path) == ['a.pth']
