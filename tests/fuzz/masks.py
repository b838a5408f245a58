"""Masks: what is accepted has the values that OpenCV's decoders read."""

import io
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from openselfsup.datasets.prepare.instances import read_instance_map
from openselfsup.datasets.prepare.mask_codes import CodeTable, advice, shares
from openselfsup.datasets.prepare.masks import read_mask
from openselfsup.errors import UserError

SUFFIX = '.png'


def seeds() -> list[bytes]:
    """PNG, BMP and TIFF; grey, of 1 and 16 bits, with a palette, RGB."""
    codes = np.zeros((20, 24), np.uint8)
    codes[2:9, 3:12], codes[12:, 10:] = 1, 3
    palette = Image.fromarray(codes, mode='P')
    palette.putpalette([10, 20, 30, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    rgb = Image.fromarray(np.stack([codes * 80, codes, codes * 0], -1))
    files = []
    for image, kinds in ((Image.fromarray(codes), ('PNG', 'BMP', 'TIFF')),
                         (Image.fromarray(codes > 0), ('PNG', 'TIFF')),
                         (Image.fromarray(codes.astype(np.uint16) * 700), ('PNG', 'TIFF')),
                         (palette, ('PNG', 'BMP', 'TIFF')), (rgb, ('PNG', 'BMP', 'TIFF'))):
        for kind in kinds:
            data = io.BytesIO()
            image.save(data, kind, **(dict(compression='tiff_lzw') if kind == 'TIFF' else {}))
            files.append(data.getvalue())
    return files


def check(path: Path, original: bytes) -> None:
    """Read codes, colours and instance ids; compare with OpenCV where both have them."""
    mask = read_mask(path)
    table = CodeTable(['stroma', 'gland'], 255, {0: 0, 1: 1, 'others': 'ignore'})
    assert set(np.unique(table.labels(mask)).tolist()) <= {0, 1, 255}
    found = dict(zip(*(v.tolist() for v in np.unique(mask.values, return_counts=True))))
    advice(Counter(found), mask.colours, table), shares(Counter(found), mask.colours)
    for also in (read_instance_map, lambda p: read_mask(p, colours=True)):
        try:
            also(path)
        except UserError:
            pass
    data = path.read_bytes()
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if theirs is None or theirs.dtype not in (np.uint8, np.uint16):
        return
    with Image.open(path) as image:
        mode, png = image.mode, image.format == 'PNG'
    if mode == 'RGB' and theirs.ndim == 3 and theirs.shape[2] == 3 and png:
        colours = read_mask(path, colours=True).values
        assert (colours == theirs[..., ::-1].astype(np.int32) @ [65536, 256, 1]).all()
    elif mode == 'L' and theirs.ndim == 2 and (not png or data[24] == 8):
        assert (mask.values == theirs).all()
    elif mode.startswith('I;16') and theirs.ndim == 2 and theirs.dtype == np.uint16:
        assert (mask.values == theirs).all()
