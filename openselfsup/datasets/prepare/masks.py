"""One reader of masks: the codes that an image file holds, never one channel of its colours."""

import io
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from ...errors import UserError
from ..decode import check_png
from ..headers import TileError

MASKS = ('.png', '.bmp', '.tif', '.tiff')
LOSSY = ('.jpg', '.jpeg', '.webp', '.jp2', '.gif')  # refused by name
_PNG = b'\x89PNG\r\n\x1a\n'


class Mask(NamedTuple):
    """A mask as its file says.

    Attributes:
        values: uint8, uint16 or int32 [H, W]: codes, or colours as 65536 R + 256 G + B.
        colours: whether the values are colours.
    """

    values: np.ndarray
    colours: bool


def read_mask(path: str | Path, colours: bool = False) -> Mask:
    """Read the codes of a mask.

    Codes are the grey values of an image of any depth (0 and 1 of a 1-bit one), the indices of
    a palette, or the value that all three channels have in common everywhere. An image whose
    channels differ has colours. The orientation of EXIF or TIFF is applied, as to images.

    Args:
        path: PNG, BMP, or TIFF of one page.
        colours: return the colours of grey and palette images as well.

    Raises:
        UserError: it is missing, damaged, not of these formats, lossy, of several pages, of
            floating-point values, of colours of more than 8 bits, or partly transparent.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(error.strerror or str(error), where=str(path)) from None
    try:
        if data.startswith(_PNG):
            check_png(data)  # Pillow does not look at the checksums of pixels
        with Image.open(io.BytesIO(data)) as image:
            _refuse_unfit(image, data, path)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _values(image, data, colours, path)
    except TileError as error:
        raise error.at(path) from None
    except UserError:
        raise
    # Pillow documents OSError; on damaged files its decoders raise all of these.
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError,
            OverflowError, MemoryError, struct.error, zlib.error,
            Image.DecompressionBombError) as error:
        raise UserError(f'cannot be read as a mask ({error})', where=str(path),
                        expected='an intact PNG, BMP or TIFF file') from None


def colour_name(value: int) -> str:
    """Return a colour as '#rrggbb'."""
    return f'#{value:06x}'


def _refuse_unfit(image: Image.Image, data: bytes, path: str | Path) -> None:
    if image.format not in ('PNG', 'BMP', 'DIB', 'TIFF'):
        lossy = image.format in ('JPEG', 'WEBP', 'JPEG2000', 'MPO')
        raise UserError(f'is a {image.format} file' + (
            ', which does not keep codes exactly' if lossy else ''), where=str(path),
            expected='a mask written as PNG')
    if (pages := getattr(image, 'n_frames', 1)) > 1:
        raise UserError(f'holds {pages} pages', where=str(path), expected='one')
    if isinstance(image, TiffImageFile):
        bits, compression = image.tag_v2.get(258, (1,)), image.tag_v2.get(259, 1)
        if compression in (6, 7, 34712, 33003, 33005, 50001):
            raise UserError('is compressed as JPEG, JPEG 2000 or WebP, which does not keep codes '
                            'exactly', where=str(path), expected='a mask written as PNG')
        if image.tag_v2.get(262) == 0 and max(bits) > 1:
            raise UserError('says that its 0 is white: what its codes are is not certain',
                            where=str(path), expected='a mask written as PNG')
        wide = len(bits) > 1 and max(bits) > 8
    else:
        wide = image.format == 'PNG' and data[24] == 16 and data[25] != 0
    if wide:
        raise UserError('has colours of 16 bits', where=str(path),
                        expected='codes in one channel, or colours of 8 bits')


def _values(image: Image.Image, data: bytes, colours: bool, path: str | Path) -> Mask:
    if image.mode == 'P' and not colours:
        return Mask(np.asarray(image), False)
    if image.mode in ('1', 'L') and not colours:
        values = np.asarray(image, np.uint8)
        bits = (data[24] if image.format == 'PNG' else image.tag_v2.get(258, (1,))[0]
                if isinstance(image, TiffImageFile) else 8)
        if bits in (2, 4):  # Pillow spreads them over 0 ... 255
            values = values // (255 // (2 ** bits - 1))
        return Mask(values, False)
    if image.mode.startswith('I') and not colours:
        values = np.asarray(image)
        return Mask(values if values.dtype == np.uint16 else values.astype(np.int32), False)
    if image.mode in ('LA', 'RGBA', 'PA') and np.asarray(image.getchannel('A')).min() < 255:
        raise UserError('is partly transparent', where=str(path),
                        expected='a mask without an alpha channel')
    if image.mode not in ('1', 'L', 'P', 'LA', 'PA', 'RGB', 'RGBA'):
        raise UserError(f'holds values of the kind {image.mode!r}', where=str(path),
                        expected='integers in one channel, or RGB')
    rgb = np.asarray(image.convert('RGB'))
    if not colours and (rgb == rgb[..., :1]).all():
        return Mask(np.ascontiguousarray(rgb[..., 0]), False)
    return Mask(rgb.astype(np.int32) @ np.array([65536, 256, 1], np.int32), True)
