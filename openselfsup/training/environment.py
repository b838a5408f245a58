"""What a run ran on: versions, devices, the state of the source tree."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

PACKAGES = ('torch', 'torchvision', 'onedl-mmengine', 'onedl-mmcv', 'opencv-python', 'numpy',
            'pillow')
# Instruction sets that decide how fast bf16 is on a CPU.
CPU_FEATURES = ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16', 'amx_tile')


def describe_environment(device: torch.device, world_size: int) -> dict:
    """Return versions, device, processor and git state as plain types."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = 'not installed'
    return dict(
        python=platform.python_version(), platform=platform.platform(), versions=versions,
        device=str(device), world_size=world_size, processor=describe_cpu(),
        gpus=[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        cuda=torch.version.cuda, threads=torch.get_num_threads(), cores=os.cpu_count(),
        git=git_state(), command=' '.join(sys.argv))


def describe_cpu() -> str:
    """Return the processor's name and those of its features that matter for bf16."""
    name, features = platform.processor() or platform.machine(), set()
    info = Path('/proc/cpuinfo')
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(':')
            if key.strip() == 'model name':
                name = value.strip()
            elif key.strip() == 'flags':
                features = set(value.split())
                break
    found = [f for f in CPU_FEATURES if f in features]
    return f"{name} ({', '.join(found)})" if found else name


def git_state() -> str:
    """Return the commit of the source tree, with '+changes' if files differ from it."""
    root = Path(__file__).resolve().parents[2]
    if not (root / '.git').exists():
        return 'not a git checkout'
    try:
        def git(*words: str) -> str:
            return subprocess.run(['git', '-C', str(root), *words], check=True, text=True,
                                  capture_output=True, timeout=20).stdout.strip()
        return git('rev-parse', 'HEAD') + ('+changes' if git('status', '--porcelain') else '')
    except (OSError, subprocess.SubprocessError) as error:
        return f'unknown ({error})'
