"""The tags of a TIFF file, and which of its many forms are read."""

import math
import struct
from collections.abc import Callable

import imagecodecs
import tifffile

from .tile_error import TileError

TIFF_MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # the last two: BigTIFF
Tags = dict[int, tuple[int, ...]]

# TIFF 6.0, section 8 and its supplements.
SUBFILE, WIDTH, LENGTH, BITS, COMPRESSION = 254, 256, 257, 258, 259
PHOTOMETRIC, FILL_ORDER = 262, 266
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS, STRIP_BYTES = 273, 274, 277, 278, 279
MAX_SAMPLE, PLANAR, PREDICTOR, COLOUR_MAP = 281, 284, 317, 320
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT, S_MAX_SAMPLE, DEPTH = 332, 338, 339, 341, 32997
NAMES = {SUBFILE: 'NewSubfileType', WIDTH: 'ImageWidth', LENGTH: 'ImageLength',
         BITS: 'BitsPerSample', COMPRESSION: 'Compression',
         PHOTOMETRIC: 'PhotometricInterpretation', FILL_ORDER: 'FillOrder',
         STRIP_OFFSETS: 'StripOffsets', ORIENTATION: 'Orientation', SAMPLES: 'SamplesPerPixel',
         ROWS: 'RowsPerStrip', STRIP_BYTES: 'StripByteCounts', MAX_SAMPLE: 'MaxSampleValue',
         PLANAR: 'PlanarConfiguration', PREDICTOR: 'Predictor', COLOUR_MAP: 'ColorMap',
         TILE_WIDTH: 'TileWidth', TILE_LENGTH: 'TileLength', TILE_OFFSETS: 'TileOffsets',
         TILE_BYTES: 'TileByteCounts', INK_SET: 'InkSet', EXTRA_SAMPLES: 'ExtraSamples',
         SAMPLE_FORMAT: 'SampleFormat', S_MAX_SAMPLE: 'SMaxSampleValue', DEPTH: 'ImageDepth'}
_TYPES = {1: ('B', 1), 3: ('H', 2), 4: ('I', 4), 16: ('Q', 8)}

COMPRESSIONS = {1: 'none', 2: 'CCITT', 3: 'CCITT fax 3', 4: 'CCITT fax 4', 5: 'LZW', 7: 'JPEG',
                8: 'deflate', 32946: 'deflate', 32773: 'PackBits', 33003: 'JPEG 2000, YCbCr',
                33005: 'JPEG 2000', 34712: 'JPEG 2000', 34925: 'LZMA', 34926: 'zstd',
                50000: 'zstd', 50001: 'WebP'}
UNREAD = {6: 'JPEG of the obsolete kind', 9: 'JBIG', 10: 'JBIG', 34661: 'JBIG', 34887: 'LERC',
          34892: 'JPEG of DNG', 32809: 'ThunderScan', 34676: 'SGI log', 34677: 'SGI log',
          50002: 'JPEG XL', 52546: 'JPEG XL'}
APERIO_YCBCR = 33003
BILEVEL, JPEG2000 = (2, 3, 4), (APERIO_YCBCR, 33005, 34712)
_WITH_PREDICTOR = (5, 8, 32946, 34925, 34926, 50000)
_IMAGES = (7, *JPEG2000, 50001)  # codecs of whole images: bits and colours are theirs to tell
GREY_INVERTED, GREY, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {GREY_INVERTED: 1, GREY: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
_PHOTOMETRICS = {4: 'mask', 8: 'CIELab', 9: 'ICCLab', 10: 'ITULab', 32803: 'colour filter array',
                 32844: 'LogL', 32845: 'LogLuv', 34892: 'linear raw'}
REMEDY = 'rewrite it, for example with ImageMagick or libvips, as uncompressed RGB TIFF or PNG'


def first(tags: Tags, tag: int, default: int) -> int:
    """Return the first value of a tag."""
    return tags.get(tag, (default,))[0]


def read_tiff_tags(read: Callable[[int, int], bytes]) -> Tags:
    """Read the first directory of a TIFF or BigTIFF file: our tags with all their values.

    Args:
        read: (offset, length) -> at most that many bytes of the file.

    Raises:
        struct.error, KeyError: the directory is damaged or cut off.
    """
    head = read(0, 16)
    order = {b'II': '<', b'MM': '>'}[head[:2]]
    big = struct.unpack_from(order + 'H', head, 2)[0] == 43
    word, entry = ('Q', 'HHQ8s') if big else ('I', 'HHI4s')
    inline, counter = (8, 'Q') if big else (4, 'H')
    offset, = struct.unpack_from(order + word, head, 8 if big else 4)
    count, = struct.unpack(order + counter, read(offset, struct.calcsize(order + counter)))
    if count > 1000:
        raise struct.error('no directory has so many entries')
    entries = read(offset + struct.calcsize(order + counter), count * (12 + 8 * big))
    if len(entries) < count * (12 + 8 * big):
        raise struct.error('the directory is cut off')
    tags = {}
    for tag, kind, number, value in struct.iter_unpack(order + entry, entries):
        if tag in NAMES and kind in _TYPES:
            letter, size = _TYPES[kind]
            if not 0 < number <= 1_000_000:
                raise struct.error('no tile has so many strips')
            if number * size > inline:
                value = read(struct.unpack(order + word, value)[0], number * size)
            tags[tag] = struct.unpack_from(f'{order}{number}{letter}', value)
    return tags


def is_plain(tags: Tags) -> bool:
    """Return whether the pixels are contiguous 8-bit RGB, upright, and nothing else."""
    return (tags.get(BITS) == (8, 8, 8) and tags.get(SAMPLES) == (3,)
            and tags.get(PHOTOMETRIC) == (RGB,) and tags.get(PLANAR, (1,)) == (1,)
            and tags.get(ORIENTATION, (1,)) == (1,) and tags.get(FILL_ORDER, (1,)) == (1,)
            and tags.get(SAMPLE_FORMAT, (1,))[0] == 1 and not first(tags, SUBFILE, 0) & 5
            and tags.get(DEPTH, (1,)) == (1,) and EXTRA_SAMPLES not in tags)


def raw_start(tags: Tags, length: int) -> int | None:
    """Return where the pixels of a plain, uncompressed TIFF begin, if they lie in one run.

    Args:
        tags: of the file, any.
        length: of the file in bytes; the pixels lie within it.
    """
    starts, counts = tags.get(STRIP_OFFSETS, ()), tags.get(STRIP_BYTES, ())
    size = first(tags, LENGTH, 0) * first(tags, WIDTH, 0) * 3
    if (tags.get(COMPRESSION, (1,)) == (1,) and is_plain(tags) and TILE_WIDTH not in tags
            and tags.get(PREDICTOR, (1,)) == (1,) and 0 < len(starts) == len(counts)
            and sum(counts) == size > 0 and 0 < starts[0] <= length - size
            and all(a + n == b for a, n, b in zip(starts, counts, starts[1:]))):
        return starts[0]
    return None


def segments(tags: Tags) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return offsets and byte counts of the strips or tiles, as many as the image needs.

    Raises:
        TileError: a tag is missing or there are too few of them.
    """
    tiled = TILE_WIDTH in tags or TILE_OFFSETS in tags
    needed = ((TILE_OFFSETS, TILE_BYTES, TILE_WIDTH, TILE_LENGTH) if tiled
              else (STRIP_OFFSETS, STRIP_BYTES))
    for tag in (*needed, WIDTH, LENGTH):
        if not any(tags.get(tag, ())):
            raise TileError(f'its header is damaged: the tag {NAMES[tag]} ({tag}) is missing or 0')
    height, width = tags[LENGTH][0], tags[WIDTH][0]
    rows, columns = ((tags[TILE_LENGTH][0], tags[TILE_WIDTH][0]) if tiled
                     else (first(tags, ROWS, height), width))
    if rows == 0:
        raise TileError(f'its header is damaged: the tag RowsPerStrip ({ROWS}) is 0')
    count = -(-height // rows) * -(-width // columns)
    count *= first(tags, SAMPLES, 1) if first(tags, PLANAR, 1) == 2 else 1
    starts, counts = tags[needed[0]], tags[needed[1]]
    if min(len(starts), len(counts)) < count:
        raise TileError(f'its header is damaged: {count} strips or tiles are needed, the tags '
                        f'{NAMES[needed[0]]} and {NAMES[needed[1]]} tell of '
                        f'{min(len(starts), len(counts))}')
    return starts[:count], counts[:count]


def check_tiff(tags: Tags, length: int) -> None:
    """Check that a TIFF file of ``length`` bytes is of a form that is read, and complete.

    Raises:
        TileError: it is not; the tag and its value are named.
    """
    if raw_start(tags, length) is not None:
        return
    compression = first(tags, COMPRESSION, 1)
    if compression not in COMPRESSIONS:
        _refuse(tags, COMPRESSION, 1, UNREAD.get(compression))
    if not can_decompress(compression):
        raise TileError(f'imagecodecs {imagecodecs.__version__} has no codec for compression '
                        f'{compression} ({COMPRESSIONS[compression]}); a newer one may')
    starts, counts = segments(tags)
    if any(a <= 0 or n <= 0 for a, n in zip(starts, counts)):
        raise TileError('its header is damaged: some strips or tiles are said to be empty')
    if max(a + n for a, n in zip(starts, counts)) > length:
        raise TileError('the file is cut off: its pixels lie beyond its end')
    if not is_plain(tags) or compression in BILEVEL:
        _check_form(tags, compression)
    if first(tags, PREDICTOR, 1) != 1 and (first(tags, PREDICTOR, 1) != 2
                                           or compression not in _WITH_PREDICTOR
                                           or tags[BITS][0] not in (8, 16)):
        _refuse(tags, PREDICTOR, 1, f'with {tags[BITS][0]} bits and compression {compression}')
    if compression == 1:
        _check_raw_size(tags, counts)


def depth(tags: Tags) -> int:
    """Return how many bits of a sample are used: BitsPerSample, or less by MaxSampleValue.

    MaxSampleValue may be a mere statistic; as a range it is taken where it is 2 ** n - 1.
    """
    bits = first(tags, BITS, 1)
    if bits != 16:
        return bits
    top = set(tags.get(S_MAX_SAMPLE, tags.get(MAX_SAMPLE, (65535,))))
    declared = next(iter(top)) + 1 if len(top) == 1 else 0
    return declared.bit_length() - 1 if declared in [2 ** n for n in range(8, 16)] else bits


def alpha_kind(tags: Tags) -> tuple[int, bool] | None:
    """Return (place, whether colours are multiplied by it) of the alpha channel, None without."""
    for place, kind in enumerate(tags.get(EXTRA_SAMPLES, ())):
        if kind in (1, 2):
            return _COLOURS[tags[PHOTOMETRIC][0]] + place, kind == 1
    return None


def can_decompress(compression: int) -> bool:
    """Return whether the installed imagecodecs has the codec; early ones lack CCITT fax."""
    try:
        tifffile.TIFF.DECOMPRESSORS[compression]
    except KeyError:
        return False
    return True


def _check_form(tags: Tags, compression: int) -> None:
    """Check the tags that say what a sample is."""
    if PHOTOMETRIC not in tags:
        raise TileError(f'its header is damaged: the tag {NAMES[PHOTOMETRIC]} ({PHOTOMETRIC}) is '
                        'missing')
    photometric = tags[PHOTOMETRIC][0]
    bits, samples = first(tags, BITS, 1), first(tags, SAMPLES, 1)
    if photometric not in _COLOURS or (photometric == YCBCR and compression not in (7, 33003)):
        _refuse(tags, PHOTOMETRIC, 1, _PHOTOMETRICS.get(photometric, 'YCbCr without JPEG'
                                                        if photometric == YCBCR else None))
    for tag, allowed in ((SUBFILE, (0, 2)), (DEPTH, (1,)), (PLANAR, (1, 2)), (FILL_ORDER, (1, 2)),
                         (INK_SET, (1,))):
        if first(tags, tag, allowed[0]) not in allowed:
            _refuse(tags, tag, allowed[0])
    if set(tags.get(SAMPLE_FORMAT, (1,))) != {1}:
        _refuse(tags, SAMPLE_FORMAT, 1, 'not unsigned integers')
    few = bits in (1, 2, 4) and samples == 1
    if len(set(tags.get(BITS, (1,)))) > 1 or not (few or bits in (8, 10, 12, 14, 16)):
        _refuse(tags, BITS, 1, 'expected one of 1, 2, 4 (one channel), 8, 10, 12, 14, 16 for all')
    if (compression in (7, 50001, 33003) and bits != 8) or (
            compression in BILEVEL and (bits, samples) != (1, 1)):
        _refuse(tags, BITS, 1, f'with compression {compression}, {COMPRESSIONS[compression]}')
    if compression in _IMAGES and first(tags, FILL_ORDER, 1) != 1:
        _refuse(tags, FILL_ORDER, 1, f'with compression {compression}')
    _check_channels(tags, photometric, bits, samples, compression)


def _check_channels(tags: Tags, photometric: int, bits: int, samples: int,
                    compression: int) -> None:
    """Check that every channel is accounted for: none is dropped that nobody named."""
    extra = samples - _COLOURS[photometric]
    kinds = tags.get(EXTRA_SAMPLES, ())
    if extra < 0 or (extra and photometric in (PALETTE, YCBCR)):
        _refuse(tags, SAMPLES, 1, f'with {NAMES[PHOTOMETRIC]} {photometric}')
    if extra != len(kinds):
        raise TileError(f'{samples} samples a pixel with {NAMES[PHOTOMETRIC]} {photometric}, but '
                        f'{len(kinds)} of them are named by the tag ExtraSamples '
                        f'({EXTRA_SAMPLES})', expected=f'{extra}; {REMEDY}')
    if extra and (compression in (7, *JPEG2000) or not set(kinds) <= {0, 1, 2}
                  or (photometric != RGB and kinds not in ((1,), (2,)))
                  or (photometric == CMYK)):
        _refuse(tags, EXTRA_SAMPLES, 0, f'with {NAMES[PHOTOMETRIC]} {photometric} and '
                                        f'compression {compression}')
    if photometric == PALETTE and (bits > 8 or len(tags.get(COLOUR_MAP, ())) != 3 << bits):
        _refuse(tags, BITS, 1, f'with a ColorMap ({COLOUR_MAP}) of '
                               f'{len(tags.get(COLOUR_MAP, ()))} values')


def _check_raw_size(tags: Tags, counts: tuple[int, ...]) -> None:
    """Check that uncompressed strips hold as many bytes as their pixels need."""
    height, width = tags[LENGTH][0], tags[WIDTH][0]
    bits, planar = first(tags, BITS, 1), first(tags, PLANAR, 1) == 2
    samples = 1 if planar else first(tags, SAMPLES, 1)
    planes = first(tags, SAMPLES, 1) if planar else 1
    if TILE_WIDTH in tags:
        rows = tags[TILE_LENGTH][0] * len(counts)
        width, total = tags[TILE_WIDTH][0], rows
    else:
        total = height * planes
    needed = math.ceil(width * samples * bits / 8) * total
    if sum(counts) < needed:
        raise TileError(f'its strips or tiles hold {sum(counts):,} bytes, its pixels need '
                        f'{needed:,}: the file is damaged or cut off')
    if bits in (10, 12, 14) and sum(counts) >= width * samples * 2 * total:
        raise TileError(f'the tag {NAMES[BITS]} ({BITS}) is {bits}, but its samples take 16 bits',
                        expected=f'{NAMES[BITS]} 16 with SMaxSampleValue ({S_MAX_SAMPLE}) '
                                 f'{2 ** bits - 1}; {REMEDY}')


def _refuse(tags: Tags, tag: int, default: int, why: str | None = None) -> None:
    values = tags.get(tag, (default,))
    told = ', '.join(str(v) for v in (values if len(set(values)) > 1 else values[:1]))
    raise TileError(f'the tag {NAMES[tag]} ({tag}) is {told}' + (f' ({why})' if why else '')
                    + ', which is not read', expected=REMEDY)
