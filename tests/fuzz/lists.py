"""Lists of tiles: whatever bytes a list holds, it is read as a list or refused in a sentence."""

from pathlib import Path

from openselfsup.datasets.headers import SUFFIXES
from openselfsup.datasets.sources import ImageList

SUFFIX = '.txt'


def seeds() -> list[bytes]:
    text = 'TUM/a b.tif 8\nADI/größe.png 0\n\nSTR\\c.jpg\t7\n'
    return [text.encode(), text.encode('utf-8-sig'), text.encode('utf-16'),
            b'\xfe\xff' + text.replace('\n', '\r\n').encode('utf-16-be'),
            b'a.tif\nb\xc3\xb6.tif\nc.PNG\n']


def check(path: Path, original: bytes) -> None:
    source = ImageList(str(path), str(path.parent))
    assert len(source) and all(p.lower().endswith(SUFFIXES) for p in source.paths)
    if source.labels is not None:
        assert len(source.labels) == len(source) and source.labels.min() >= 0
    data = path.read_bytes()
    if data.isascii() and b'\0' not in data and b'\\' not in data:  # Python's own reading of it
        lines = [line.strip() for line in data.decode().replace('\r', '\n').split('\n')]
        names = [line if source.labels is None else line.rsplit(None, 1)[0] for line in lines
                 if line]
        assert source.paths == [f'{path.parent}/{name}' if not name.startswith('/') else name
                                for name in names]
