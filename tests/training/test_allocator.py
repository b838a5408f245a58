import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
SCRIPT = '''
import resource, torch
from openselfsup.training.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.zeros(50_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before, kept = faults(), keep_freed_memory()
for _ in range(4):  # small blocks settle between the large ones
    faults()
print(before, kept, faults())
'''


@pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')
def test_freed_memory_is_not_fetched_again():
    out = subprocess.run([sys.executable, '-c', SCRIPT], cwd=REPO, text=True, check=True,
                         capture_output=True).stdout.split()
    if out[1] == 'False':
        pytest.skip('another C library than glibc')
    # 200 MB in pages of at most 2 MB, five times over; then none of them.
    assert int(out[0]) >= 200 and int(out[2]) < 100
