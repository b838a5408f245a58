"""Hosts made of network namespaces of this machine, joined by a bridge that can be cut.

Needs root and iproute2. Processes, disk and memory are those of one machine, addresses are not.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
SUBNET, PORT = '10.77.0', 29400


def can_make_hosts() -> bool:
    """Return whether this machine lets us make hosts."""
    if shutil.which('ip') is None or os.geteuid():
        return False
    tried = subprocess.run(['ip', 'netns', 'add', 'oss-try'], capture_output=True)
    return not tried.returncode and not subprocess.run(['ip', 'netns', 'del', 'oss-try']).returncode


def ip(*words: object) -> None:
    subprocess.run(['ip', *map(str, words)], check=True)


class Hosts:
    """Some hosts in one network; the first is where torchrun's agents meet."""

    def __init__(self, count: int):
        self.count = count
        self.agents: dict[int, subprocess.Popen] = {}
        ip('netns', 'add', 'oss-switch')
        ip('-n', 'oss-switch', 'link', 'add', 'bridge', 'type', 'bridge')
        ip('-n', 'oss-switch', 'link', 'set', 'bridge', 'up')
        for i in range(count):
            name = f'oss-host{i}'
            ip('netns', 'add', name)
            ip('-n', 'oss-switch', 'link', 'add', f'port{i}', 'type', 'veth', 'peer', 'name',
               'eth0', 'netns', name)
            ip('-n', 'oss-switch', 'link', 'set', f'port{i}', 'master', 'bridge', 'up')
            ip('-n', name, 'addr', 'add', f'{SUBNET}.{i + 1}/24', 'dev', 'eth0')
            ip('-n', name, 'link', 'set', 'eth0', 'up')
            ip('-n', name, 'link', 'set', 'lo', 'up')

    def start(self, host: int, log: Path, train: list[str], least: int = 1) -> subprocess.Popen:
        """Start torchrun's agent of a host with one rank, as a user would on each of them."""
        words = ['ip', 'netns', 'exec', f'oss-host{host}', sys.executable, '-W', 'ignore', '-m',
                 'torch.distributed.run', f'--nnodes={least}:{self.count}', '--nproc_per_node=1',
                 '--max-restarts=9', '--rdzv-backend=c10d', '--rdzv-id=run',
                 f'--rdzv-endpoint={SUBNET}.1:{PORT}', f'--local-addr={SUBNET}.{host + 1}',
                 f'--rdzv-conf=is_host={int(host == 0)},last_call_timeout=10', '-m', 'openselfsup',
                 'train', *train]
        environment = {**os.environ, 'GLOO_SOCKET_IFNAME': 'eth0', 'OMP_NUM_THREADS': '1',
                       'TORCH_DISABLE_SHARE_RDZV_TCP_STORE': '1'}
        self.agents[host] = subprocess.Popen(words, cwd=REPO, env=environment, text=True,
                                             stdout=open(log, 'a'), stderr=subprocess.STDOUT)
        return self.agents[host]

    def cut(self, host: int) -> None:
        """Pull the plug of a host's network."""
        ip('-n', 'oss-switch', 'link', 'set', f'port{host}', 'down')

    def mend(self, host: int) -> None:
        """Put it back."""
        ip('-n', 'oss-switch', 'link', 'set', f'port{host}', 'up')

    def ranks(self, host: int) -> list[int]:
        """Return the processes of a host that train, without their loaders' workers."""
        found = subprocess.run(['ip', 'netns', 'pids', f'oss-host{host}'], capture_output=True,
                               text=True).stdout.split()
        agents = [pid for pid in found if b'torch.distributed.run' in _words(pid)]
        return [int(pid) for pid in found if b'openselfsup' in _words(pid)
                and pid not in agents and _parent(pid) in agents]

    def kill(self, host: int) -> None:
        """Kill all that runs on a host."""
        for pid in subprocess.run(['ip', 'netns', 'pids', f'oss-host{host}'], text=True,
                                  capture_output=True).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def close(self) -> None:
        """Kill what runs on the hosts and take the network away."""
        for host in range(self.count):
            self.kill(host)
            ip('netns', 'del', f'oss-host{host}')
        ip('netns', 'del', 'oss-switch')


def _words(pid: str) -> bytes:
    path = Path(f'/proc/{pid}/cmdline')
    return path.read_bytes() if path.exists() else b''


def _parent(pid: str) -> str:
    return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1]
