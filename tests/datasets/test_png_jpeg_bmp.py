"""Forms of PNG, JPEG and BMP against Pillow and arithmetic; what is damaged is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from openselfsup.datasets.decode import read_tile
from openselfsup.datasets.headers import TileError, read_header
from tests.datasets.test_decode import PIXELS, TISSUE
from tests.datasets.test_tiff import accepted, both, refused

GREY = PIXELS[..., 0]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))


def png(values: np.ndarray, bits: int, colour: int, more: bytes = b'',
        behind: bytes = b'') -> bytes:
    """Write a PNG file; values [H, W] or [H, W, C] of so many bits."""
    height, width = values.shape[:2]
    if bits < 8:
        planes = np.unpackbits(values.astype(np.uint8)[..., None], axis=2)[..., 8 - bits:]
        rows = np.packbits(planes.reshape(height, -1), axis=1)
    else:
        rows = values.astype(f'>u{bits // 8}')
    data = b''.join(b'\0' + row.tobytes() for row in rows)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, bits,
                                                              colour, 0, 0, 0))
            + more + chunk(b'IDAT', zlib.compress(data)) + behind + chunk(b'IEND', b''))


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    colour, alpha = colour.astype(int), alpha.astype(int)[..., None]
    return ((colour * alpha + 127) // 255 + 255 - alpha).clip(0, 255)


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
@pytest.mark.parametrize('transparent', [False, True])
def test_png_of_few_bits(bits, transparent, tmp_path):
    path, codes = tmp_path / 'tile.png', GREY >> (8 - bits)
    grey = codes * (255 // (2 ** bits - 1))
    alpha = np.where(codes == 1, 0, 255) if transparent else np.full(codes.shape, 255)
    key = chunk(b'tRNS', b'\0\1') if transparent else b''
    assert np.array_equal(accepted(path, png(codes, bits, 0, key)),
                          over_white(np.dstack([grey] * 3), alpha))
    palette = np.random.default_rng(0).integers(0, 256, (2 ** bits, 3), np.uint8)
    ghost = np.full(2 ** bits, 255)
    ghost[:2] = (128, 0) if transparent else (255, 255)
    more = chunk(b'PLTE', palette.tobytes()) + (chunk(b'tRNS', b'\x80\0') if transparent else b'')
    assert np.array_equal(accepted(path, png(codes, bits, 3, more)),
                          over_white(palette[codes], ghost[codes]))


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('colour', [0, 2, 4, 6])
@pytest.mark.parametrize('key', [False, True])
def test_png_of_8_and_16_bits(bits, colour, key, tmp_path):
    deep = PIXELS.astype(int) * 257 >> (16 - bits)
    ramp = np.broadcast_to(np.linspace(0, 2 ** bits - 1, 200).astype(int), GREY.shape)
    values = {0: deep[..., 0], 2: deep, 4: np.dstack([deep[..., 0], ramp]),
              6: np.dstack([deep, ramp])}[colour]
    shown = PIXELS if colour & 2 else np.dstack([GREY] * 3)
    alpha = ramp >> (bits - 8) if colour & 4 else np.full(GREY.shape, 255)
    more = b''
    if key and not colour & 4:
        first = values[0, 0]
        more = chunk(b'tRNS', np.array(first, '>u2').tobytes())
        alpha = np.where((shown == shown[0, 0]).all(-1), 0, 255)
    tile = accepted(tmp_path / 'tile.png', png(values, bits, colour, more))
    assert np.array_equal(tile, over_white(shown, alpha))


@pytest.mark.parametrize('place', ['more', 'behind'])
def test_png_orientation_stands_before_or_behind_the_pixels(place, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    block = chunk(b'eXIf', exif.tobytes()[6:])
    tile = accepted(tmp_path / 'tile.png', png(PIXELS, 8, 2, **{place: block}))
    assert np.array_equal(tile, np.rot90(PIXELS, -1))


@pytest.mark.parametrize('kind', [b'IHDR', b'IDAT', b'PLTE'])
def test_png_with_a_wrong_checksum_is_refused(kind, tmp_path):
    content = bytearray(png(GREY, 8, 3, chunk(b'PLTE', bytes(range(256)) * 3)))
    content[content.index(kind) + 14] ^= 1
    assert 'damaged' in str(both(tmp_path / 'tile.png', bytes(content))[1])


def test_png_with_too_few_rows_or_no_end_is_refused(tmp_path):
    whole, path = png(PIXELS, 8, 2), tmp_path / 'tile.png'
    few = png(PIXELS[:100], 8, 2)
    head = slice(0, 8 + 25)
    assert 'damaged' in str(both(path, whole[head] + few[head.stop:])[1])
    assert 'cut off' in refused(path, whole[:-12])
    accepted(path, whole + b'garbage' * 10)


def jpeg(**options) -> bytes:
    file = io.BytesIO()
    TISSUE.save(file, 'JPEG', quality=90, **options)
    return file.getvalue()


@pytest.mark.parametrize('progressive', [False, True])
def test_a_jpeg_without_all_of_its_data_is_refused(progressive, tmp_path):
    whole, path = jpeg(progressive=progressive), tmp_path / 'tile.jpg'
    middle = len(whole) // 2
    assert 'cut off' in refused(path, whole[:middle])
    assert 'cut off' in refused(path, whole[:-2])
    for content in (whole[:middle] + b'\xff\xd9', whole[:middle] + whole[middle + 100:],
                    whole[:middle] + b'\xff\xd9' + whole[middle + 2:],
                    whole[:middle] + b'\xff' * 300 + whole[middle + 300:]):
        assert 'cannot be decoded' in str(both(path, content)[1])
    tile = accepted(path, whole + b'garbage' * 1000)
    assert np.abs(tile.astype(int) - np.asarray(Image.open(path))).max() <= 2


@pytest.mark.parametrize('options', [
    dict(subsampling=0), dict(subsampling=1), dict(subsampling=2), dict(progressive=True),
    dict(restart_marker_rows=1), dict(keep_rgb=True), dict(optimize=True)], ids=str)
@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
def test_jpeg_equals_pillow(options, mode, tmp_path):
    path = tmp_path / 'tile.jpg'
    if mode != 'RGB':
        options = {key: value for key, value in options.items() if key != 'keep_rgb'}
    TISSUE.convert(mode).save(path, quality=90, **options)
    if mode == 'CMYK' and options.get('subsampling'):
        assert 'is subsampled 2 x ' in refused(path, path.read_bytes())
        return
    tile = accepted(path, path.read_bytes()).astype(int)
    assert np.abs(tile - np.asarray(Image.open(path).convert('RGB'))).max() <= 2


@pytest.mark.parametrize('marker, bits, named', [
    (0xc3, 8, 'lossless'), (0xc9, 8, 'arithmetic-coded'), (0xc1, 12, '12 bits')])
def test_jpegs_that_are_not_read_are_named(marker, bits, named, tmp_path):
    content = bytearray(jpeg())
    place = content.index(b'\xff\xc0')
    content[place + 1], content[place + 4] = marker, bits
    assert named in refused(tmp_path / 'tile.jpg', bytes(content))


@pytest.mark.parametrize('sampling', [(0x22, 0x12, 0x12), (0x21, 0x21, 0x21), (0x41, 0x11, 0x11),
                                      (0x31, 0x11, 0x11), (0x22, 0x21, 0x11), (0x14, 0x11, 0x11)])
def test_header_and_decoder_know_the_same_subsamplings(sampling, tmp_path):
    content = bytearray(jpeg(subsampling=0))
    place = content.index(b'\xff\xc0') + 11
    content[place:place + 9:3] = sampling
    header, tile = both(tmp_path / 'tile.jpg', bytes(content))  # its data are of other blocks
    assert isinstance(header, TileError) == ('subsampling level' in str(tile)
                                             or 'subsampled' in str(tile))


def bmp(bits: int, rows: np.ndarray, compression: int = 0, more: bytes = b'', old: bool = False,
        height: int = 150) -> bytes:
    """Write a BMP file; rows [H, bytes], the lowest first, of a width of 200 px."""
    data = np.pad(rows, [(0, 0), (0, -rows.shape[1] % 4)]).tobytes()
    head = (struct.pack('<IHHHH', 12, 200, height, 1, bits) if old else
            struct.pack('<IiiHHIIiiII', 40, 200, height, 1, bits, compression, *[0] * 5)) + more
    return (b'BM' + struct.pack('<IHHI', 14 + len(head) + len(data), 0, 0, 14 + len(head)) + head
            + data)


def test_bmp_variants(tmp_path):
    path = tmp_path / 'tile.bmp'
    lowest, bgr = PIXELS[::-1], np.ascontiguousarray(PIXELS[::-1, :, ::-1])
    assert np.array_equal(accepted(path, bmp(24, bgr.reshape(150, -1))), PIXELS)
    assert np.array_equal(accepted(path, bmp(24, bgr.reshape(150, -1), old=True)), PIXELS)
    top = bmp(24, bgr[::-1].reshape(150, -1), height=-150)
    assert np.array_equal(accepted(path, top), PIXELS)
    zero = np.dstack([bgr, np.zeros_like(bgr[..., 0])])  # the fourth byte means nothing
    assert np.array_equal(accepted(path, bmp(32, zero.reshape(150, -1))), PIXELS)
    palette = np.dstack([np.arange(256)] * 4).astype(np.uint8).tobytes()
    grey = np.dstack([GREY] * 3)
    assert np.array_equal(accepted(path, bmp(8, lowest[..., 0], more=palette)), grey)
    for compression in (1, 4):
        assert f'compression {compression}' in refused(path, bmp(
            8, lowest[..., 0], compression, palette))
    whole = bmp(24, bgr.reshape(150, -1))
    assert 'cut off' in refused(path, whole[:-1])
    assert 'begin in it' in refused(path, whole[:10] + bytes(4) + whole[14:])


def test_far_too_large_a_size_is_refused_without_trying(tmp_path):
    path = tmp_path / 'tile.png'
    content = bytearray(png(PIXELS, 8, 2))
    content[16:24] = struct.pack('>II', 60000, 60000)
    path.write_bytes(content)
    for read in (read_header, read_tile):
        with pytest.raises(TileError, match='60000 x 60000 px; expected at most'):
            read(path)
