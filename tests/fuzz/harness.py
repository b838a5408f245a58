"""Mutated files for the readers: no traceback, no hang, nothing accepted that is wrong.

    python -m tests.fuzz [READER ...] [--seconds 300] [--seed 0]

A reader is a module of this folder with

    SUFFIX: str                                  of its files
    seeds() -> list[bytes]                       small valid files
    check(path: Path, original: bytes) -> None   opens the file as the product does

``check`` may raise a UserError: that is an answer. Any other exception is a finding, and so is
an AssertionError of its oracle, a crash of the interpreter, or a file that takes longer than
``HANG`` seconds.
"""

import faulthandler
import importlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from openselfsup.errors import UserError

HANG = 20
EXAMPLES = 100  # of one round; rounds follow each other until the time is over
INTERESTING = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def names() -> list[str]:
    """Return the names of all readers."""
    other = {'__init__', '__main__', 'harness'}
    return sorted(path.stem for path in Path(__file__).parent.glob('*.py')
                  if path.stem not in other and not path.stem.startswith('test_'))


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> tuple[bytes, bytes]:
    """Draw (a mutated file, the file it was): up to eight edits, each anywhere."""
    original = draw(st.sampled_from(originals))
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 8))):
        # Headers are short and matter most: half of the edits go into the first 256 bytes.
        room = min(len(data), 256) if draw(st.booleans()) else len(data)
        place = draw(st.integers(0, max(room - 1, 0)))
        kind = draw(st.sampled_from(('bit', 'byte', 'number', 'cut', 'insert', 'delete', 'repeat',
                                     'splice')))
        if kind == 'bit' and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == 'byte' and data:
            data[place] = draw(st.integers(0, 255))
        elif kind == 'number':
            order, width = draw(st.sampled_from(('little', 'big'))), draw(st.sampled_from((2, 4)))
            number = draw(st.sampled_from(INTERESTING)) % 256 ** width
            data[place:place + width] = number.to_bytes(width, order)
        elif kind == 'cut':
            del data[place:]
        elif kind == 'insert':
            data[place:place] = draw(st.binary(min_size=1, max_size=16))
        elif kind == 'delete':
            del data[place:place + draw(st.integers(1, 64))]
        elif kind == 'repeat':
            data[place:place] = data[place:place + draw(st.integers(1, 64))]
        elif kind == 'splice':
            other = draw(st.sampled_from(originals))
            data[place:] = other[place:]
    return bytes(data), original


def load(name: str) -> ModuleType:
    """Import the reader of this name."""
    return importlib.import_module(f'{__package__}.{name}')


def fuzz(reader: ModuleType, seconds: float, first_seed: int = 0, rounds: int | None = None,
         keep: Path | None = None) -> int:
    """Fuzz one reader in this process until the time is over.

    Args:
        reader: module of this folder.
        seconds: time to spend.
        first_seed: of the first round; rounds count on from it.
        rounds: end after so many rounds of ``EXAMPLES`` files.
        keep: folder for the file that failed; that of temporary files by default.

    Returns:
        Number of files tried.

    Raises:
        Whatever ``check`` raised but a UserError, for the smallest file that hypothesis found; the
        file is kept and its path is printed.
    """
    name = reader.__name__.rpartition('.')[2]
    kept = (keep or Path(tempfile.gettempdir())) / f'fuzz_{name}{reader.SUFFIX}'
    originals = reader.seeds()
    tried = refused = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f'mutated{reader.SUFFIX}'

        def run(data: bytes, original: bytes) -> None:
            nonlocal tried, refused
            tried += 1
            path.write_bytes(data)
            faulthandler.dump_traceback_later(HANG, exit=True)
            try:
                reader.check(path, original)
            except UserError:
                refused += 1
            except BaseException:
                kept.write_bytes(data)
                print(f'{name}: the file that failed last is kept at {kept}')
                raise
            finally:
                faulthandler.cancel_dump_traceback_later()

        for original in originals:  # the valid ones are accepted
            path.write_bytes(original)
            reader.check(path, original)
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end and (rounds is None or number < rounds):
            _round(mutated(originals), run, first_seed + number)
            number += 1
    print(f'{name}: {tried} files, {refused} refused, {tried - refused} accepted')
    return tried


def _round(strategy: st.SearchStrategy, run: Callable[[bytes, bytes], None], number: int) -> None:
    @seed(number)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=False,
              phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck))
    @given(strategy)
    def once(pair: tuple[bytes, bytes]) -> None:
        run(*pair)

    once()
