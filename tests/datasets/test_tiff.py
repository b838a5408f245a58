"""Every form of TIFF: the pixels that were written, or one sentence that names the tag."""

import io
import logging

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from openselfsup.datasets import pixels as pixel_rules
from openselfsup.datasets import tiff as decoder
from openselfsup.datasets.decode import read_tile
from openselfsup.datasets.headers import Header, TileError, read_header
from openselfsup.datasets.tiff_tags import can_decompress
from tests.datasets.test_decode import PIXELS, TISSUE
from tests.datasets.tiff_writer import CODECS, assemble, tiff

TILE = PIXELS[:97, :75]  # odd sides: rows of few bits end within a byte
COLOURS = np.arange(3 * 256, dtype=np.uint16).reshape(3, 256) * 85  # a colour map of 16 bits
SAMPLES = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4}


def both(path, data: bytes):
    """Return what the header check and the decoder say: a size and a tile, or their sentences."""
    path.write_bytes(data)
    found = []
    for read in (read_header, read_tile):
        try:
            found.append(read(path))
        except TileError as error:
            assert error.where == str(path) and '\n' not in str(error)
            found.append(error)
    return found


def accepted(path, data: bytes) -> np.ndarray:
    header, tile = both(path, data)
    assert isinstance(header, Header), header
    assert isinstance(tile, np.ndarray), tile
    assert tile.shape == (header.height, header.width, 3) and tile.dtype == np.uint8
    return tile


def refused(path, data: bytes) -> str:
    header, tile = both(path, data)
    assert isinstance(header, TileError) and str(header) == str(tile)
    return str(header)


def samples_of(photometric: int, bits: int, extra: int) -> np.ndarray:
    """Return tissue as samples of a depth, with channels behind the colours."""
    wide = TILE.astype(np.uint16) * 257  # 16 bits
    shown = {0: wide[..., :1], 1: wide[..., :1], 2: wide, 3: wide[..., :1],
             5: np.dstack([wide, wide[..., 1]])}[photometric]
    alpha = np.broadcast_to(np.linspace(0, 65535, 75).astype(np.uint16)[None, :, None],
                            (*TILE.shape[:2], extra))
    return np.concatenate([shown, alpha], 2) >> (16 - bits)


def expected(samples: np.ndarray, photometric: int, bits: int, extra: tuple[int, ...],
             orientation: int) -> np.ndarray:
    """Return the upright RGB tile, by plain arithmetic and Pillow."""
    if photometric == 3:
        tile = (COLOURS[:, :1 << bits] >> 8).T[samples[..., 0]].astype(np.uint8)
    else:
        eight = (samples >> (bits - 8) if bits >= 8
                 else samples * (255 // (2 ** bits - 1))).astype(np.int64)
        tile = eight[..., :SAMPLES[photometric]]
        tile = 255 - tile if photometric in (0, 5) else tile
        if photometric == 5:
            tile = (tile[..., :3] * tile[..., 3:] + 127) // 255
        tile = np.broadcast_to(tile, (*tile.shape[:2], 3))
        if extra and extra[0]:
            alpha = eight[..., -1:]
            tile = tile if extra[0] == 1 else (tile * alpha + 127) // 255
            tile = np.minimum(tile + 255 - alpha, 255)
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(tile.astype(np.uint8))
    image.info['exif'] = exif.tobytes()
    return np.asarray(ImageOps.exif_transpose(image))


def reasons(photometric, bits, compression, predictor, extra, channels) -> list[str]:
    """Return the tags that are refused, none for what must be read."""
    found = {
        'Predictor (317)': predictor == 2 and (bits not in (8, 16) or compression in (1, 32773)),
        'BitsPerSample (258)': (bits < 8 and channels > 1) or (photometric == 3 and bits > 8),
        'SamplesPerPixel (277)': photometric == 3 and extra,
        'ExtraSamples (338)': (photometric == 5 and extra) or (photometric < 2 and extra == (0,))}
    return [tag for tag, wrong in found.items() if wrong]


@given(st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_tiff_is_what_was_written_or_refused_by_its_tag(tmp_path_factory, data):
    photometric = data.draw(st.sampled_from(sorted(SAMPLES)), 'photometric')
    bits = data.draw(st.sampled_from([8, 1, 2, 4, 10, 12, 14, 16]), 'bits')
    extra = data.draw(st.sampled_from([(), (0,), (1,), (2,)]), 'extra')
    form = dict(compression=data.draw(st.sampled_from(sorted(CODECS)), 'compression'),
                planar=data.draw(st.sampled_from([1, 2]), 'planar'),
                predictor=data.draw(st.sampled_from([1, 2]), 'predictor'))
    orientation = data.draw(st.integers(1, 8), 'orientation')
    samples = samples_of(photometric, bits, len(extra))
    colours = COLOURS[:, :1 << min(bits, 8)].ravel().tolist()
    more = {320: (3, colours)} if photometric == 3 else {}
    content = tiff(
        samples, photometric, bits, orientation=orientation, extra=extra, more=more, **form,
        fill_order=data.draw(st.sampled_from([1, 1, 2]), 'fill_order'),
        order=data.draw(st.sampled_from('<>'), 'order'), big=data.draw(st.booleans(), 'big'),
        tile=data.draw(st.sampled_from([None, (32, 48)]), 'tile'),
        rows=data.draw(st.sampled_from([7, 97]), 'rows'))
    path = tmp_path_factory.getbasetemp() / 'any.tif'
    why = reasons(photometric, bits, form['compression'], form['predictor'], extra,
                  samples.shape[2])
    if why:
        assert any(tag in refused(path, content) for tag in why)
    else:
        assert np.array_equal(accepted(path, content),
                              expected(samples, photometric, bits, extra, orientation))


@pytest.mark.parametrize('compression', [34712, 33005])
@pytest.mark.parametrize('tile', [None, (64, 64)])
def test_jpeg_2000_is_not_black(compression, tile, tmp_path):
    path = tmp_path / 'tile.tif'
    tifffile.imwrite(path, PIXELS, photometric='rgb', compression=compression, tile=tile)
    assert np.array_equal(accepted(path, path.read_bytes()), PIXELS)
    data = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        place, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    cut = data[:place + count // 2] + bytes(count - count // 2) + data[place + count:]
    assert 'JPEG 2000 stream is damaged or cut off' in str(both(path, cut)[1])


def test_aperio_33003_is_ycbcr(tmp_path):
    path = tmp_path / 'tile.tif'
    ycc = np.asarray(TISSUE.convert('YCbCr'))
    tifffile.imwrite(path, ycc, photometric='rgb', compression=33003, tile=(64, 64))
    truth = np.asarray(Image.fromarray(ycc, 'YCbCr').convert('RGB')).astype(int)
    assert np.abs(accepted(path, path.read_bytes()).astype(int) - truth).max() <= 1


def test_12_bits_in_jpeg_2000(tmp_path):
    path = tmp_path / 'tile.tif'
    deep = PIXELS.astype(np.uint16) * 16 + 5
    tifffile.imwrite(path, deep, photometric='rgb', compression=34712,
                     compressionargs=dict(bitspersample=12))
    data = path.read_bytes()
    assert np.array_equal(accepted(path, data), PIXELS)
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].tags[258].valueoffset
    told = both(path, data[:place] + b'\x10\0' * 3 + data[place + 6:])[1]
    assert 'samples of 12 bits' in str(told) and 'BitsPerSample (258) is 16' in str(told)


@pytest.mark.parametrize('name', ['webp', 'zstd', 'lzma', 'lzw', 'deflate', 'packbits'])
@pytest.mark.parametrize('tile', [None, (64, 64)])
def test_what_tifffile_wrote(name, tile, tmp_path):
    path = tmp_path / 'tile.tif'
    options = dict(compressionargs=dict(level=-1)) if name == 'webp' else {}
    tifffile.imwrite(path, PIXELS, photometric='rgb', compression=name, tile=tile, **options)
    assert np.array_equal(accepted(path, path.read_bytes()), PIXELS)


def saved(image, path, compression, **options):
    """Save by Pillow, whose libtiff is often built without ZSTD."""
    try:
        image.save(path, compression=compression, **options)
    except OSError:
        if compression != 'zstd':
            raise
        pytest.skip('this Pillow cannot write ZSTD')


@pytest.mark.parametrize('name', ['zstd', 'lzma', 'tiff_lzw', 'tiff_adobe_deflate', 'packbits'])
@pytest.mark.parametrize('more', [{}, {278: 16}, {317: 2}], ids=str)
def test_what_libtiff_wrote(name, more, tmp_path):
    path = tmp_path / 'tile.tif'
    saved(TISSUE, path, name, tiffinfo={} if name == 'packbits' else more)
    assert np.array_equal(accepted(path, path.read_bytes()), PIXELS)


@pytest.mark.parametrize('name', ['group3', 'group4', 'tiff_ccitt'])
@pytest.mark.parametrize('inverted', [0, 1])
def test_ccitt(name, inverted, tmp_path):
    path = tmp_path / 'tile.tif'
    bilevel = TISSUE.convert('1')
    bilevel.save(path, compression=name, tiffinfo={262: inverted})
    truth = np.asarray(Image.open(path).convert('RGB'))
    if not can_decompress({'group3': 3, 'group4': 4, 'tiff_ccitt': 2}[name]):
        assert 'has no codec for compression' in str(both(path, path.read_bytes())[1])
        pytest.skip('this imagecodecs has no CCITT')
    assert np.array_equal(accepted(path, path.read_bytes()), truth)
    assert 0 < truth.mean() < 255


@pytest.mark.parametrize('options', [
    dict(subsampling=(1, 1)), dict(subsampling=(2, 2)), dict(subsampling=(2, 1)),
    dict(compressionargs=dict(outcolorspace='rgb')), dict(grey=True), dict(tile=(64, 64))],
    ids=str)
def test_jpeg_in_tiff_equals_pillow(options, tmp_path):
    path = tmp_path / 'tile.tif'
    options = dict(options)
    grey = options.pop('grey', False)
    tifffile.imwrite(path, PIXELS[..., 0] if grey else PIXELS, compression='jpeg',
                     photometric='minisblack' if grey else 'rgb', **options)
    tile = accepted(path, path.read_bytes()).astype(int)
    assert np.abs(tile - np.asarray(Image.open(path).convert('RGB'))).max() <= 2
    assert np.abs(tile - (PIXELS[..., :1] if grey else PIXELS)).mean() < 6


def test_jpeg_tables_of_libtiff(tmp_path):
    path = tmp_path / 'tile.tif'
    TISSUE.save(path, compression='jpeg', quality=90)
    tile = accepted(path, path.read_bytes()).astype(int)
    assert np.abs(tile - np.asarray(Image.open(path).convert('RGB'))).max() <= 2


def test_a_damaged_jpeg_strip_is_not_filled_with_grey(tmp_path):
    path = tmp_path / 'tile.tif'
    TISSUE.save(path, compression='jpeg', quality=90)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        place, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    data[place + count // 2:place + count // 2 + 2] = b'\xff\xd9'
    assert '(compression 7, JPEG) are damaged' in str(both(path, bytes(data))[1])


def test_the_maximum_tells_of_12_bits(tmp_path):
    deep = TILE.astype(np.uint16) << 4
    for more in ({341: (3, [4095] * 3)}, {281: (3, [4095] * 3)}):
        path = tmp_path / 'tile.tif'
        assert np.array_equal(accepted(path, tiff(deep, 2, 16, more=more)), TILE)
        wrong = both(path, tiff(TILE.astype(np.uint16) << 8, 2, 16, more=more))[1]
        assert 'promises 12 bits' in str(wrong)
    statistic = {281: (3, [4000] * 3)}  # the largest value there is: no range
    assert np.array_equal(accepted(path, tiff(deep, 2, 16, more=statistic)), TILE >> 4)


@pytest.mark.parametrize('suffix', ['tif', 'png'])
def test_16_bits_of_which_12_are_used_are_warned_of_once(suffix, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(pixel_rules, '_told', False)
    path = tmp_path / f'tile.{suffix}'
    cv2.imwrite(str(path), TILE[..., ::-1].astype(np.uint16) << 4)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert np.array_equal(read_tile(path), TILE >> 4)
        cv2.imwrite(str(path), TILE[..., ::-1].astype(np.uint16) << 8)
        monkeypatch.setattr(pixel_rules, '_told', False)
        assert np.array_equal(read_tile(path), TILE)
    assert len(caplog.records) == 1
    assert str(path) in caplog.text and 'SMaxSampleValue' in caplog.text


@pytest.mark.parametrize('tags, named', [
    ({259: (3, [6])}, 'Compression (259) is 6 (JPEG of the obsolete kind)'),
    ({259: (3, [34887])}, 'Compression (259) is 34887 (LERC)'),
    ({259: (3, [4242])}, 'Compression (259) is 4242'),
    ({339: (3, [3, 3, 3])}, 'SampleFormat (339) is 3'),
    ({339: (3, [2, 2, 2])}, 'SampleFormat (339) is 2'),
    ({262: (3, [8])}, 'PhotometricInterpretation (262) is 8 (CIELab)'),
    ({262: (3, [6])}, 'PhotometricInterpretation (262) is 6 (YCbCr without JPEG)'),
    ({262: (3, [1])}, 'ExtraSamples (338)'), ({258: (3, [5, 6, 5])}, 'BitsPerSample (258) is 5, 6'),
    ({258: (3, [32] * 3)}, 'BitsPerSample (258) is 32'), ({254: (4, [1])}, 'NewSubfileType (254)'),
    ({32997: (4, [2])}, 'ImageDepth (32997)'), ({266: (3, [3])}, 'FillOrder (266) is 3'),
    ({317: (3, [3])}, 'Predictor (317) is 3'), ({277: (3, [4])}, 'ExtraSamples (338)'),
    ({278: (4, [0])}, 'damaged'), ({284: (3, [3])}, 'PlanarConfiguration (284) is 3')],
    ids=lambda value: value if isinstance(value, str) else '')
def test_forms_that_are_not_read_are_named(tags, named, tmp_path):
    told = refused(tmp_path / 'tile.tif', tiff(TILE, 2, compression=8, more=tags))
    assert named in told and ('expected' in told or 'damaged' in told)


def test_12_bits_in_two_bytes_are_not_read_as_packed(tmp_path):
    parts = [(TILE.astype('<u2') << 4).tobytes()]
    tags = {256: (4, [75]), 257: (4, [97]), 258: (3, [12] * 3), 262: (3, [2]), 277: (3, [3])}
    told = refused(tmp_path / 'tile.tif', assemble(parts, 273, 279, tags, '<'))
    assert 'BitsPerSample (258) is 12, but its samples take 16 bits' in told


@pytest.mark.parametrize('compression', sorted(CODECS))
@pytest.mark.parametrize('tile', [None, (32, 48)])
def test_damage_in_the_middle(compression, tile, tmp_path):
    path = tmp_path / 'tile.tif'
    content = bytearray(tiff(TILE, 2, compression=compression, tile=tile, rows=97))
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        place, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    content[place + count // 2:place + count // 2 + 100] = bytes(100)
    tile = both(path, bytes(content))[1]
    if compression in (8, 32946, 34925):  # these carry a checksum
        assert isinstance(tile, TileError)
    elif not isinstance(tile, TileError):
        try:
            with Image.open(path) as image:
                shown = np.asarray(image)
        except OSError:
            pytest.skip('this Pillow cannot read it')
        assert np.array_equal(tile, shown)


@pytest.mark.parametrize('compression', sorted(CODECS))
def test_short_strips_and_missing_tiles_are_refused(compression, tmp_path):
    path = tmp_path / 'tile.tif'
    short = tiff(TILE, 2, compression=compression, rows=97, more={257: (4, [98]), 278: (4, [98])})
    assert isinstance(both(path, short)[1], TileError)
    absent = tiff(TILE, 2, compression=compression, rows=40, more={278: (4, [20])})
    if compression != 1:  # a run of raw strips is what it is, however many
        assert '5 strips or tiles are needed' in refused(path, absent)


def test_lzw_goes_through_libtiff_only_where_it_is_plain(tmp_path, monkeypatch):
    path, seen = tmp_path / 'tile.tif', []
    fast = decoder._by_libtiff
    monkeypatch.setattr(decoder, '_by_libtiff', lambda *a: seen.append(1) or fast(*a))
    assert np.array_equal(accepted(path, tiff(TILE, 2, compression=5, predictor=2)), TILE)
    assert len(seen) == 1
    accepted(path, tiff(TILE, 2, compression=5, orientation=2))
    accepted(path, tiff(TILE[..., :1], 0, compression=5))
    assert len(seen) == 1
