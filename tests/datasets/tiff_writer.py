"""A TIFF writer for tests: every form from plain arrays, so that what was written is known."""

import lzma
import struct
import zlib

import imagecodecs
import numpy as np

CODECS = {1: bytes, 5: imagecodecs.lzw_encode, 8: zlib.compress, 32946: zlib.compress,
          32773: imagecodecs.packbits_encode, 34925: lzma.compress,
          50000: imagecodecs.zstd_encode}
_LETTERS = {3: 'H', 4: 'I', 16: 'Q'}


def tiff(samples: np.ndarray, photometric: int, bits: int = 8, compression: int = 1,
         planar: int = 1, predictor: int = 1, orientation: int = 1, fill_order: int = 1,
         order: str = '<', big: bool = False, tile: tuple[int, int] | None = None, rows: int = 40,
         extra: tuple[int, ...] = (), more: dict[int, tuple[int, list[int]]] | None = None
         ) -> bytes:
    """Write unsigned integers [H, W, C] as a TIFF file.

    Args:
        samples: values of at most ``bits`` bits.
        order: '<' little or '>' big endian.
        big: BigTIFF.
        tile: (height, width) of tiles instead of strips.
        rows: of a strip.
        extra: values of ExtraSamples.
        more: further tags, or other values of ours: tag to (type, values).
    """
    height, width, channels = samples.shape
    planes = [samples] if planar == 1 else [samples[..., i:i + 1] for i in range(channels)]
    side = tile or (rows, width)
    parts = []
    for plane in planes:
        for y in range(0, height, side[0]):
            for x in range(0, width, side[1]):
                part = plane[y:y + side[0], x:x + side[1]]
                if tile:
                    part = np.pad(part, [(0, side[0] - part.shape[0]),
                                         (0, side[1] - part.shape[1]), (0, 0)])
                if predictor == 2:
                    part = np.diff(part.astype(np.int64), axis=1, prepend=0) % (1 << bits)
                data = CODECS[compression](_packed(part, bits, order))
                parts.append(data if fill_order == 1 else _reversed_bits(data))
    starts, tags = (324, 325) if tile else (273, 279), {}
    tags.update({256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * channels),
                 259: (3, [compression]), 262: (3, [photometric]), 266: (3, [fill_order]),
                 274: (3, [orientation]), 277: (3, [channels]), 284: (3, [planar]),
                 317: (3, [predictor])})
    tags.update({322: (4, [tile[1]]), 323: (4, [tile[0]])} if tile else {278: (4, [rows])})
    if extra:
        tags[338] = (3, list(extra))
    return assemble(parts, *starts, tags | (more or {}), order, big)


def assemble(parts: list[bytes], offsets: int, counts: int,
             tags: dict[int, tuple[int, list[int]]], order: str, big: bool = False) -> bytes:
    """Put strips and tags together: header, strips, long values, directory."""
    word = 16 if big else 4
    head = 16 if big else 8
    body, places = bytearray(head), []
    for part in parts:
        places.append(len(body))
        body += part
    tags = {**tags, offsets: (word, places), counts: (word, [len(part) for part in parts])}
    entries = b''
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f'{order}{len(values)}{_LETTERS[kind]}', *values)
        if len(packed) > struct.calcsize(_LETTERS[word]):
            place = len(body)
            body += packed
            packed = struct.pack(order + _LETTERS[word], place)
        entries += struct.pack(order + ('HHQ' if big else 'HHI'), tag, kind, len(values))
        entries += packed.ljust(8 if big else 4, b'\0')
    directory = len(body)
    body += struct.pack(order + ('Q' if big else 'H'), len(tags)) + entries + bytes(8)
    body[:head] = ((b'II' if order == '<' else b'MM') + (
        struct.pack(order + 'HHHQ', 43, 8, 0, directory) if big
        else struct.pack(order + 'HI', 42, directory)))
    return bytes(body)


def _packed(part: np.ndarray, bits: int, order: str) -> bytes:
    if bits in (8, 16):
        return part.astype(f'{order}u{bits // 8}').tobytes()
    flat = part.reshape(part.shape[0], -1).astype('>u2')
    planes = np.unpackbits(flat.view(np.uint8).reshape(*flat.shape, 2), axis=2)[..., 16 - bits:]
    return np.packbits(planes.reshape(len(flat), -1), axis=1).tobytes()


def _reversed_bits(data: bytes) -> bytes:
    table = bytes(int(f'{value:08b}'[::-1], 2) for value in range(256))
    return data.translate(table)
