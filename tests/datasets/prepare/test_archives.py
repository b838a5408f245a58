"""Archives that are damaged, or of a form that is not read."""

import gzip
import tarfile
import zipfile

import pytest

from openselfsup.archives import unpack
from openselfsup.errors import UserError

CONTENT = {name: bytes(range(256)) * 8 for name in ('a.bin', 'b.bin', 'c.bin')}


@pytest.fixture
def folder(tmp_path):
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def _tar(folder) -> bytearray:
    """Headers of 512 bytes, each before its 2048."""
    with tarfile.open(folder / 'whole.tar', 'w', format=tarfile.USTAR_FORMAT) as tar:
        for name in CONTENT:
            tar.add(folder / name, name)
    return bytearray((folder / 'whole.tar').read_bytes())


def _zip(folder) -> bytearray:
    with zipfile.ZipFile(folder / 'whole.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / 'b.bin', 'b.bin')
        archive.write(folder / 'a.bin', 'a.bin')
    return bytearray((folder / 'whole.zip').read_bytes())


@pytest.mark.parametrize('name', ['a.tar', 'a.tar.gz', 'a.tgz', 'a.zip'])
def test_a_whole_archive_is_unpacked(folder, name):
    content = _zip(folder) if name.endswith('zip') else _tar(folder)
    (folder / name).write_bytes(gzip.compress(content) if name.endswith('gz') else content)
    unpack(folder / name, folder / 'out')
    found = {path.name: path.read_bytes() for path in (folder / 'out').iterdir()}
    assert found == {name: CONTENT[name] for name in found}
    assert len(found) == (2 if name.endswith('zip') else 3)


@pytest.mark.parametrize('place', [512 + 100, 512 + 2048 + 512 + 100])  # in a.bin, in b.bin
def test_a_gzip_whose_checksum_is_wrong_is_refused_before_anything_is_written(folder, place):
    stored = bytearray(gzip.compress(_tar(folder), 0))  # stored: what is flipped can be inflated
    stored[place + 15] ^= 1
    (folder / 'a.tar.gz').write_bytes(stored)
    with pytest.raises(UserError, match=r'a\.tar\.gz: this archive is damaged: CRC'):
        unpack(folder / 'a.tar.gz', folder / 'out')
    assert not (folder / 'out').exists()


@pytest.mark.parametrize('name', ['a.tar', 'a.tar.gz'])
def test_a_damaged_header_is_not_the_end_of_a_tar(folder, name):
    content = _tar(folder)
    content[512 + 2048 + 3] ^= 1  # in the header of b.bin
    (folder / name).write_bytes(gzip.compress(content) if name.endswith('gz') else content)
    with pytest.raises(UserError, match='damaged: no member begins at its byte 2560, and'):
        unpack(folder / name, folder / 'out')
    assert not (folder / 'out').exists()


def test_a_gzip_that_cannot_be_inflated_or_is_cut_off(folder):
    packed = bytearray(gzip.compress(_tar(folder)))
    for wrong in (packed[:-200], packed[:60] + bytes(40) + packed[100:]):
        (folder / 'a.tar.gz').write_bytes(wrong)
        with pytest.raises(UserError, match='this archive is damaged'):
            unpack(folder / 'a.tar.gz', folder / 'out')


def test_a_zip_that_is_damaged_has_a_password_or_another_compression(folder):
    whole = _zip(folder)
    second, directory = whole.rfind(b'PK\3\4'), whole.rfind(b'PK\1\2')  # of a.bin
    damaged, locked, other = (bytearray(whole) for _ in range(3))
    damaged[second + 50:second + 150] = bytes(100)
    locked[second + 6] |= 1
    locked[directory + 8] |= 1
    # Deflate64, which Windows writes for large files.
    other[second + 8] = other[directory + 10] = 9
    for content, said in ((damaged, 'this archive is damaged'), (locked, 'is encrypted.*; expected '
                          'a zip without password written with deflate, or the unpacked folder'),
                          (other, 'cannot be unpacked here: .*compression.*; expected a zip')):
        (folder / 'a.zip').write_bytes(content)
        with pytest.raises(UserError, match=said):
            unpack(folder / 'a.zip', folder / 'out')
        assert not (folder / 'out').exists()
