"""Every reader gets some mutated files in the suite; ``python -m tests.fuzz`` tries for longer."""

from types import ModuleType

import pytest

from . import harness


@pytest.mark.parametrize('name', harness.names())
def test_no_mutated_file_breaks_the_reader(name):
    assert harness.fuzz(harness.load(name), seconds=20, rounds=1) > 50


def test_a_finding_is_raised_and_its_file_is_kept(tmp_path):
    def check(path, original):
        if len(path.read_bytes()) < 5:
            raise IndexError('too short')

    reader = ModuleType('short')
    reader.SUFFIX, reader.seeds, reader.check = '.txt', lambda: [b'0123456789'], check
    with pytest.raises(IndexError, match='too short'):
        harness.fuzz(reader, seconds=20, keep=tmp_path)
    assert len((tmp_path / 'fuzz_short.txt').read_bytes()) < 5
