"""Every format against PIL, and every way in which a file can be bad."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from openselfsup.datasets import tiff
from openselfsup.datasets.decode import read_tile
from openselfsup.datasets.headers import Header, TileError, read_header

DEMO = Path(__file__).parents[2] / 'data/demo'
TISSUE = Image.open(DEMO / 'kather2016/TUMOR/image_007.png').convert('RGB').crop((0, 0, 200, 150))
PIXELS = np.asarray(TISSUE)  # 150 x 200 x 3

FORMATS = {
    'plain.tif': dict(),
    'lzw.tif': dict(compression='tiff_lzw'),
    'packbits.tiff': dict(compression='packbits'),
    'deflate.TIF': dict(compression='tiff_adobe_deflate'),
    'strips.tif': dict(tiffinfo={278: 16}),  # rows per strip
    'tile.png': dict(),
    'tile.jpg': dict(quality=90, subsampling=0),
    'progressive.JPEG': dict(quality=90, progressive=True),
    'tile.bmp': dict(),
}


def write(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def as_pil(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert('RGB'))


@pytest.mark.parametrize('name', FORMATS)
def test_every_format_equals_pil(name, tmp_path):
    path = write(tmp_path / name, TISSUE, **FORMATS[name])
    tile = read_tile(path)
    assert tile.dtype == np.uint8 and tile.flags.writeable and tile.flags.c_contiguous
    expected = as_pil(path)
    # Both decode JPEG with libjpeg-turbo, perhaps in different versions.
    assert np.abs(tile.astype(int) - expected).max() <= (2 if 'j' in name.lower() else 0)
    kind = {'tif': 'TIFF', 'tiff': 'TIFF', 'png': 'PNG', 'bmp': 'BMP'}.get(
        name.lower().split('.')[1], 'JPEG')
    assert read_header(path) == Header(kind, 150, 200)


def big_endian_tiff(swapped: bool = False, padding: bytes = b'') -> bytes:
    """An uncompressed RGB TIFF in 'MM' order: the directory, then its two strips."""
    entries = []
    strips = [PIXELS[:75].tobytes() + padding, PIXELS[75:].tobytes() + padding]
    half = len(strips[0])
    extra = 8 + 2 + 10 * 12 + 4
    starts = [extra + 22, extra + 22 + half]
    if swapped:
        strips, starts = strips[::-1], starts[::-1]
    for tag, kind, values in [(256, 3, [200]), (257, 4, [150]), (258, 3, [8, 8, 8]), (259, 3, [1]),
                              (262, 3, [2]), (273, 4, starts),
                              (277, 3, [3]), (278, 3, [75]), (279, 4, [half, half]), (284, 3, [1])]:
        size = {3: 2, 4: 4}[kind]
        packed = b''.join(v.to_bytes(size, 'big') for v in values)
        if len(packed) > 4:
            offset = {258: extra, 273: extra + 6, 279: extra + 14}[tag]
            packed = offset.to_bytes(4, 'big')
        entries.append(tag.to_bytes(2, 'big') + kind.to_bytes(2, 'big')
                       + len(values).to_bytes(4, 'big') + packed.ljust(4, b'\0'))
    tail = b'\0\x08' * 3 + b''.join(v.to_bytes(4, 'big') for v in [*starts, half, half])
    return (b'MM\0*' + (8).to_bytes(4, 'big') + len(entries).to_bytes(2, 'big')
            + b''.join(entries) + bytes(4) + tail + b''.join(strips))


def test_big_endian_tiff_takes_the_fast_path(tmp_path):
    path = tmp_path / 'big.tif'
    path.write_bytes(big_endian_tiff())
    assert np.array_equal(as_pil(path), PIXELS)
    assert np.array_equal(tiff.raw_rgb(np.fromfile(path, np.uint8)), PIXELS)
    assert read_header(path) == Header('TIFF', 150, 200)


@pytest.mark.parametrize('odd', [dict(swapped=True), dict(padding=b'1234')])
def test_strips_in_another_order_or_padded_are_put_right(odd, tmp_path):
    path = tmp_path / 'odd.tif'
    path.write_bytes(big_endian_tiff(**odd))
    assert tiff.raw_rgb(np.fromfile(path, np.uint8)) is None
    assert np.array_equal(as_pil(path), PIXELS)
    assert np.array_equal(read_tile(path), PIXELS)


@pytest.mark.parametrize('name, fast', [('plain.tif', True), ('strips.tif', True),
                                        ('lzw.tif', False), ('packbits.tiff', False)])
def test_which_tiffs_need_no_decoder(name, fast, tmp_path):
    path = write(tmp_path / name, TISSUE, **FORMATS[name])
    raw = tiff.raw_rgb(np.fromfile(path, np.uint8))
    assert (raw is not None) == fast
    if fast:
        assert np.array_equal(raw, PIXELS)


@pytest.mark.parametrize('mode, suffix', [
    (mode, suffix) for mode in 'LP1' for suffix in ('png', 'tif', 'bmp', 'jpg')
    if (mode, suffix) != ('P', 'jpg')])
def test_grey_palette_and_bilevel_equal_pil(mode, suffix, tmp_path):
    path = write(tmp_path / f'tile.{suffix}', TISSUE.convert(mode))
    assert np.abs(read_tile(path).astype(int) - as_pil(path)).max() <= (2 if suffix == 'jpg' else 0)


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_transparent_pixels_lie_over_white(suffix, tmp_path):
    alpha = np.full(PIXELS.shape[:2], 255, np.uint8)
    alpha[:50], alpha[50:100] = 0, 128
    image = TISSUE.copy()
    image.putalpha(Image.fromarray(alpha))
    tile = read_tile(write(tmp_path / f'tile.{suffix}', image))
    ground = Image.new('RGBA', image.size, 'white')
    ground.alpha_composite(image)
    assert (tile[:50] == 255).all()
    assert np.array_equal(tile[100:], PIXELS[100:])
    assert np.abs(tile.astype(int) - np.asarray(ground)[..., :3]).max() <= 1


@pytest.mark.parametrize('suffix', ['png', 'tif'])
@pytest.mark.parametrize('image', [PIXELS, PIXELS[..., 0]], ids=['colour', 'grey'])
def test_16_bit_keeps_the_upper_byte(image, suffix, tmp_path):
    path = tmp_path / f'tile.{suffix}'
    deep = image.astype(np.uint16) * 256 + 200
    cv2.imwrite(str(path), deep[..., ::-1] if image.ndim == 3 else deep)
    assert np.array_equal(read_tile(path), image if image.ndim == 3 else np.dstack([image] * 3))


def test_float_pixels_are_refused(tmp_path):
    path = write(tmp_path / 'tile.tif', Image.fromarray(PIXELS[..., 0].astype(np.float32)))
    for read in (read_header, read_tile):
        with pytest.raises(TileError, match=r'SampleFormat \(339\) is 3'):
            read(path)


def test_cmyk_jpeg_is_converted(tmp_path):
    path = write(tmp_path / 'tile.jpg', TISSUE.convert('CMYK'), quality=95)
    assert np.abs(read_tile(path).astype(int) - as_pil(path)).max() <= 2


def test_first_page_of_several(tmp_path):
    path = tmp_path / 'pages.tif'
    TISSUE.save(path, save_all=True, append_images=[TISSUE.rotate(180)])
    assert np.array_equal(read_tile(path), PIXELS)


@pytest.mark.parametrize('name', FORMATS)
@pytest.mark.parametrize('keep', [0.999, 0.5, 0.1])
def test_truncated_files_are_refused(name, keep, tmp_path):
    path = write(tmp_path / name, TISSUE, **FORMATS[name])
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * keep)])
    with pytest.raises(TileError) as caught:
        read_tile(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize('name', FORMATS)
def test_cut_off_headers_are_refused(name, tmp_path):
    path = write(tmp_path / name, TISSUE, **FORMATS[name])
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(TileError, match='damaged|cut off') as caught:
        read_header(path)
    assert caught.value.where == str(path)


def test_header_check_notices_a_truncated_tiff(tmp_path):
    path = write(tmp_path / 'tile.tif', TISSUE)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(TileError, match='cut off'):
        read_header(path)


@pytest.mark.parametrize('content, what', [
    (b'', 'empty'), (b'hello, I am no image', 'neither TIFF'), (b'BM', 'damaged'),
    (b'II*\0\xff\xff\xff\xff', 'damaged'), (b'\xff\xd8\xff\xe0\0\x10', 'damaged'),
    (b'II+\0\x08\0\0\0' + b'\xff' * 8, 'damaged')])
@pytest.mark.parametrize('read', [read_tile, read_header])
def test_what_is_no_image(read, content, what, tmp_path):
    path = tmp_path / 'tile.tif'
    path.write_bytes(content)
    with pytest.raises(TileError, match=what if read is read_header else None):
        read(path)


@pytest.mark.parametrize('read', [read_tile, read_header])
def test_missing_file_and_folder(read, tmp_path):
    with pytest.raises(TileError, match='No such file'):
        read(tmp_path / 'none.png')
    with pytest.raises(TileError):
        read(tmp_path)


@pytest.mark.parametrize('read', [read_tile, read_header])
def test_too_small(read, tmp_path):
    small = write(tmp_path / 'small.png', TISSUE.crop((0, 0, 200, 31)))
    with pytest.raises(TileError, match='200 x 31 px; expected at least 32 x 32'):
        read(small)
    enough = write(tmp_path / 'enough.png', TISSUE.crop((0, 0, 32, 32)))
    read(enough)


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif'])
@pytest.mark.parametrize('orientation', range(10))
def test_the_orientation_is_applied_to_size_and_pixels(suffix, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path / f'tile.{suffix}', TISSUE, exif=exif)
    tile = read_tile(path)
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    assert np.abs(tile - shown).max() <= (2 if suffix == 'jpg' else 0)
    assert read_header(path) == Header(suffix.upper().replace('JPG', 'JPEG').replace('TIF', 'TIFF'),
                                       *tile.shape[:2])
    assert tile.shape[0] == (200 if 5 <= orientation <= 8 else 150)
    assert tile.flags.c_contiguous and tile.flags.writeable


def test_a_damaged_exif_block_turns_nothing(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write(tmp_path / 'tile.jpg', TISSUE, exif=exif)
    data = bytearray(path.read_bytes())
    place = data.index(b'Exif\0\0') + 6
    data[place + 4:place + 8] = b'\xff' * 4  # where its directory is
    path.write_bytes(data)
    assert read_tile(path).shape == (150, 200, 3) and read_header(path).height == 150


def test_an_exif_directory_that_promises_too_many_entries_is_read_as_far_as_it_goes(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write(tmp_path / 'tile.jpg', TISSUE, exif=exif)
    data = bytearray(path.read_bytes())
    place = data.index(b'Exif\0\0') + 6 + 8
    assert int.from_bytes(data[place:place + 2], 'big') == 1
    data[place] = 1  # 257 entries
    path.write_bytes(data)
    with Image.open(path) as image, pytest.warns(UserWarning):
        shown = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    assert read_header(path).height == 200 and np.abs(read_tile(path) - shown).max() <= 2


def test_non_ascii_and_spaces_in_paths(tmp_path):
    path = write(tmp_path / 'Präparat 7 (a).png', TISSUE)
    assert np.array_equal(read_tile(path), PIXELS)


def test_a_jpeg_header_behind_long_comments_and_tables(tmp_path):
    plain = io.BytesIO()
    TISSUE.save(plain, 'JPEG')
    content = plain.getvalue()
    comment = b'\xff\xfe' + (60000).to_bytes(2, 'big') + b'x' * 59998
    place = content.index(b'\xff\xc4')  # a Huffman table, here brought before the frame
    table = content[place:place + 2 + int.from_bytes(content[place + 2:place + 4], 'big')]
    path = tmp_path / 'tile.jpg'
    path.write_bytes(content[:2] + comment + b'\xff' + comment + table + content[2:])
    assert np.array_equal(read_tile(path), as_pil(path))
    assert read_header(path) == Header('JPEG', 150, 200)
