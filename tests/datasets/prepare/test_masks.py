"""What a mask's file says is what its codes are, or the file is refused by name."""

import io
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from openselfsup.datasets.decode import read_tile
from openselfsup.datasets.prepare import bcss
from openselfsup.datasets.prepare.instances import annotations_of, read_instance_map
from openselfsup.datasets.prepare.mask_codes import CodeTable
from openselfsup.datasets.prepare.mask_folders import judge, pair_masks, survey
from openselfsup.datasets.prepare.masks import Mask, read_mask
from openselfsup.datasets.prepare.report import Report
from openselfsup.errors import UserError

CODES = np.zeros((40, 48), np.uint8)
CODES[5:20, 5:30], CODES[25:, 10:] = 1, 3


def palette(values: np.ndarray) -> Image.Image:
    image = Image.fromarray(values, mode='P')
    image.putpalette([10, 20, 30, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    return image


def low_depth_png(values: np.ndarray, bits: int) -> bytes:
    """A grey PNG of 1, 2 or 4 bits, which Pillow cannot write."""
    import struct
    import zlib
    rows = b''.join(b'\0' + np.packbits(np.unpackbits(
        row[:, None], axis=1)[:, -bits:].ravel()).tobytes() for row in values)
    parts = ((b'IHDR', struct.pack('>IIBBBBB', values.shape[1], values.shape[0], bits, 0, 0, 0, 0)),
             (b'IDAT', zlib.compress(rows)), (b'IEND', b''))
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))
        for name, body in parts)


def write(path: Path, kind: str) -> np.ndarray:
    """Write a mask in one of many forms; return the codes that it must be read as."""
    wide = CODES.astype(np.uint16) * 700
    if kind == 'grey':
        Image.fromarray(CODES * 85).save(path)
        return CODES * 85
    if kind == '1 bit':
        Image.fromarray(CODES > 0).save(path)
        return (CODES > 0).astype(np.uint8)
    if kind in ('2 bits', '4 bits'):
        path.write_bytes(low_depth_png(CODES, int(kind[0])))
    elif kind == 'palette':
        palette(CODES).save(path)
    elif kind == '16 bits':
        Image.fromarray(wide).save(path)
        return wide
    elif kind == 'rgb of one value':
        Image.fromarray(np.stack([CODES] * 3, -1)).save(path)
    elif kind == 'opaque alpha':
        Image.fromarray(np.stack([CODES] * 3 + [np.full_like(CODES, 255)], -1)).save(path)
    elif kind == '16-bit tiff, big-endian':
        Image.frombytes('I;16B', CODES.shape[::-1], wide.astype('>u2').tobytes()).save(path)
        return wide
    elif kind == '32-bit tiff':
        Image.fromarray(wide.astype(np.int32) * 100).save(path)
        return wide.astype(np.int32) * 100
    elif kind in ('2-bit tiff', '4-bit tiff'):
        tifffile.imwrite(path, CODES, bitspersample=int(kind[0]), photometric='minisblack')
    elif kind == 'lzw tiff':
        Image.fromarray(CODES).save(path, compression='tiff_lzw')
    return CODES


@pytest.mark.parametrize('kind, suffix', [
    ('grey', '.png'), ('grey', '.bmp'), ('1 bit', '.png'), ('1 bit', '.tif'), ('2 bits', '.png'),
    ('4 bits', '.png'), ('palette', '.png'), ('palette', '.bmp'),
    ('16 bits', '.png'), ('rgb of one value', '.png'), ('opaque alpha', '.png'),
    ('16-bit tiff, big-endian', '.tif'), ('32-bit tiff', '.tif'), ('lzw tiff', '.tif'),
    ('4-bit tiff', '.tif'), ('2-bit tiff', '.tif')])
def test_codes_are_those_that_were_written(tmp_path, kind, suffix):
    expected = write(tmp_path / f'a{suffix}', kind)
    read = read_mask(tmp_path / f'a{suffix}')
    assert not read.colours and (read.values == expected).all()
    assert (read_instance_map(tmp_path / f'a{suffix}') == expected).all()


@pytest.mark.parametrize('suffix', ['png', 'tif'])
@pytest.mark.parametrize('mode', ['L', 'P'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_the_orientation_is_applied_as_to_images(tmp_path, suffix, mode, orientation):
    codes = np.zeros((40, 60), np.uint8)
    codes[:10, :30], codes[10:, :5] = 1, 2
    exif = Image.Exif()
    exif[274] = orientation
    palette = Image.fromarray(codes).convert('P')
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    path, image = tmp_path / f'mask.{suffix}', tmp_path / f'image.{suffix}'
    (palette if mode == 'P' else Image.fromarray(codes)).save(path, exif=exif)
    Image.fromarray(codes * 100).save(image, exif=exif)
    mask = read_mask(path).values
    assert np.array_equal(mask * 100, read_tile(image)[..., 0])
    assert (orientation == 1) == np.array_equal(mask, codes)


def test_colours_are_read_from_all_channels_and_from_palettes(tmp_path):
    rgb = np.array([[10, 20, 30], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)[CODES]
    Image.fromarray(rgb).save(tmp_path / 'rgb.png')
    palette(CODES).save(tmp_path / 'palette.png')
    expected = np.array([0x0a141e, 0xff0000, 0x00ff00, 0x0000ff])[CODES]
    assert read_mask(tmp_path / 'rgb.png').colours
    for name in ('rgb.png', 'palette.png'):
        read = read_mask(tmp_path / name, colours=True)
        assert read.colours and (read.values == expected).all()


def spoilt(path: Path, kind: str) -> None:
    grey = Image.fromarray(CODES * 85)
    if kind == 'jpeg':
        grey.save(path, 'JPEG')
    elif kind == 'transparent':
        alpha = np.where(CODES > 0, 255, 0).astype(np.uint8)
        Image.fromarray(np.stack([CODES] * 3 + [alpha], -1)).save(path, 'PNG')
    elif kind == 'float':
        Image.fromarray(CODES.astype(np.float32)).save(path, 'TIFF')
    elif kind == 'pages':
        grey.save(path, 'TIFF', save_all=True, append_images=[grey, grey])
    elif kind == 'jpeg in tiff':
        grey.convert('RGB').save(path, 'TIFF', compression='jpeg')
    elif kind == '16-bit colours':
        wide = np.stack([CODES.astype(np.uint16) * 700] * 3, -1)
        path.write_bytes(cv2.imencode('.png', wide)[1].tobytes())
    else:
        data = io.BytesIO()
        grey.save(data, 'PNG')
        whole = bytearray(data.getvalue())
        if kind == 'flipped':
            whole[whole.index(b'IDAT') + 12] ^= 1
        path.write_bytes(whole[:-30] if kind == 'cut' else whole if kind == 'flipped' else b'x')


@pytest.mark.parametrize('kind, words', [
    ('jpeg', 'JPEG file, which does not keep codes exactly'), ('transparent', 'transparent'),
    ('float', "of the kind 'F'"), ('pages', '3 pages'), ('16-bit colours', 'colours of 16 bits'),
    ('jpeg in tiff', 'compressed as JPEG'), ('cut', 'damaged or cut off'),
    ('flipped', "the checksum of its 'IDAT' is wrong"), ('text', 'cannot be read as a mask')])
def test_masks_that_say_nothing_exact_are_refused(tmp_path, kind, words):
    spoilt(tmp_path / 'a.mask', kind)
    with pytest.raises(UserError, match=f'a.mask: .*{words}'):
        read_mask(tmp_path / 'a.mask')


def folders(folder: Path, masks: dict[str, np.ndarray | Image.Image]) -> list:
    for kind in ('images', 'masks'):
        (folder / kind).mkdir(parents=True)
    for name, mask in masks.items():
        image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        image.save(folder / 'masks' / name)
        Image.new('RGB', image.size).save(folder / 'images' / f'{Path(name).stem}.png')
    return pair_masks(folder / 'images', folder / 'masks', Report(''))


BINARY = (CODES > 0).astype(np.uint8)


@pytest.mark.parametrize('mask, codes, told', [
    (BINARY * 255, {0: 0, 1: 1}, 'codes: {0: stroma, 255: gland}'),
    (BINARY * np.uint16(1000), {0: 0, 1: 1}, 'codes: {0: stroma, 1000: gland}'),
    (CODES, {0: 0, 1: 1}, 'codes: {0: stroma, 1: gland, 3: CLASS}'),
    (np.stack([BINARY * 0, BINARY * 255, BINARY * 0], -1), {0: 0, 1: 1},
     "codes: {'#000000': stroma, '#00ff00': gland}"),
    (np.stack([BINARY * 255, BINARY * 255, BINARY * 0], -1), {'#000000': 0, '#ff0000': 1},
     "codes: {'#000000': stroma, '#ffff00': gland}"),
    (np.arange(40 * 48, dtype=np.uint16).reshape(40, 48), {0: 0}, 'are they masks?')])
def test_codes_that_are_not_named_are_refused_with_what_to_write(tmp_path, mask, codes, told):
    report = Report('')
    survey(folders(tmp_path, {'a.png': mask}), CodeTable(['stroma', 'gland'], 255, codes), 'train',
           report)
    assert len(report.problems) == 1 and told in report.problems[0], report.problems


@pytest.mark.parametrize('mask, codes', [
    (BINARY * 255, {0: 0, 255: 1}), (BINARY * 255, {0: 'stroma', 255: 'gland'}),
    (BINARY > 0, None), (BINARY * np.uint16(1000), {0: 0, 1000: 1}),
    (np.stack([BINARY * 0, BINARY * 255, BINARY * 0], -1), {'#000000': 0, '0,255,0': 1}),
    (palette(BINARY), {0: 0, 1: 1}), (palette(BINARY), {'#0a141e': 0, '#ff0000': 1})])
def test_what_the_message_says_to_write_is_understood(tmp_path, mask, codes):
    pairs, report = folders(tmp_path, {'a.png': mask}), Report('')
    table = CodeTable(['stroma', 'gland'], 255, codes)
    found = survey(pairs, table, 'train', report)
    assert not report.problems and found.labels == Counter(BINARY.ravel().tolist())
    labels = table.labels(read_mask(pairs[0][1], table.colours))
    assert (labels == BINARY).all()


def test_every_wrong_mask_of_a_folder_is_told_at_once(tmp_path):
    pairs = folders(tmp_path, {'a.png': BINARY, 'b.png': BINARY, 'c.png': BINARY})
    Image.fromarray(BINARY[:36]).save(tmp_path / 'masks' / 'b.png')
    Image.fromarray(BINARY).save(tmp_path / 'masks' / 'c.png', 'JPEG')
    report = Report('')
    survey(pairs, CodeTable(['stroma', 'gland']), 'train', report)
    assert len(report.problems) == 2
    assert 'b.png: is 48 x 36 px, its image is 48 x 40' in '\n'.join(report.problems)


def test_pairs_that_do_not_match_are_told(tmp_path):
    folders(tmp_path, {'a_mask.png': BINARY, 'b.png': BINARY})
    (tmp_path / 'images' / 'a_mask.png').rename(tmp_path / 'images' / 'a.png')
    Image.fromarray(BINARY).save(tmp_path / 'masks' / 'b.tif')
    report = Report('')
    assert len(pair_masks(tmp_path / 'images', tmp_path / 'masks', report)) == 1
    told = '\n'.join(report.problems)
    assert "1 of 2 images have no mask" in told and "is 'a_mask.png' that of a.png?" in told
    assert 'more than one file of one name: b.png, b.tif' in told
    assert '1 masks have no image: a_mask.png' in report.notes[0]
    with pytest.raises(UserError, match="no such folder; did you mean 'masks'"):
        pair_masks(tmp_path / 'images', tmp_path / 'mask', report)


def test_a_mask_of_another_image_is_not_suggested(tmp_path):
    folders(tmp_path, {'tile_1.png': BINARY, 'tile_2.png': BINARY, 'tile_3.png': BINARY})
    (tmp_path / 'masks/tile_3.png').unlink()
    pair_masks(tmp_path / 'images', tmp_path / 'masks', report := Report(''))
    assert report.problems[0].endswith(f"in {tmp_path / 'masks'}: tile_3.png")
    Image.fromarray(BINARY).save(tmp_path / 'masks/tile3.png')
    pair_masks(tmp_path / 'images', tmp_path / 'masks', report := Report(''))
    assert report.problems[0].endswith("tile_3.png; is 'tile3.png' that of tile_3.png?")


def test_a_class_that_never_occurs_is_told_before_its_dice_is_0(tmp_path):
    table = CodeTable(['stroma', 'gland', 'fat', 'nerve'], 255, {0: 0, 1: 1, 3: 2, 9: 3})
    read = {name: survey(folders(tmp_path / name, {'a.png': mask}), table, name, Report(''))
            for name, mask in dict(train=BINARY, test=CODES, flat=BINARY * 0).items()}
    report = Report('')
    judge(read['train'], read['test'], table, report)
    assert not report.problems
    assert [n.split(': ', 1)[1] for n in report.notes] == [
        "class 'fat' never occurs: it cannot be learned, and its Dice will be 0",
        "class 'nerve' never occurs: it cannot be learned",
        "class 'nerve' never occurs: it has no Dice, or 0 where it is found"]
    judge(read['flat'], read['test'], table, report)
    assert "every pixel that counts is of class 'stroma'" in report.problems[0]
    # 255 is 'ignored' by default: masks of 0 and 255 have one class then.
    table, report = CodeTable(['stroma', 'gland']), Report('')
    read = survey(folders(tmp_path / 'white', {'a.png': BINARY * 255}), table, '', report)
    judge(read, read, table, report)
    assert 'codes: {0: stroma, 255: gland}' in report.problems[0]


@pytest.mark.parametrize('classes, ignore, codes, told', [
    (['a', 'b'], 255, {0: 2}, '0 is 2, expected a class'), (['a', 'b'], 1, None, 'ignore_index is'),
    (['a', 'b'], 255, {0: 'c'}, "0 is 'c'"), (['a', 'b'], 255, {'red': 0}, "'red' is no code"),
    (['a', 'b'], 255, {0: 0, '#ff0000': 1}, 'expected one kind'),
    ([False], 255, None, 'classes is'),
    (['a', 'a'], 255, None, 'must differ'), (['a', 'b'], 255, [0, 1], 'expected a mapping'),
    (['a'], 300, None, 'ignore_index is 300'), (['a'], 255, {'300,0,0': 0}, 'is no code')])
def test_mistakes_of_the_mapping_are_told(classes, ignore, codes, told):
    with pytest.raises(UserError, match=told):
        CodeTable(classes, ignore, codes)


def test_any_integers_are_looked_up():
    table = CodeTable(['a', 'b'], 9, {-5: 0, 70000: 1, 2: 'ignore', 'others': 'b'})
    values = np.array([[-5, 70000, 2, 0, 2 ** 31 - 1]], np.int32)
    assert table.labels(Mask(values, False)).tolist() == [[0, 1, 9, 1, 1]]


def test_bcss_masks_of_colours_or_wide_codes(tmp_path):
    """Colours are left out by name, codes above 255 are ignored: never one channel or a crash."""
    for kind in ('rgbs', 'masks'):
        (tmp_path / 'src' / kind).mkdir(parents=True)
    codes = np.full((64, 64), 2, np.uint16)
    codes[:8] = 300
    for site, mask in (('A2', codes), ('OL', np.stack([codes.astype(np.uint8)] * 2 + [
            codes.astype(np.uint8) * 0], -1))):
        name = f'TCGA-{site}-A0XX.png'
        Image.new('RGB', (64, 64)).save(tmp_path / 'src' / 'rgbs' / name)
        Image.fromarray(mask).save(tmp_path / 'src' / 'masks' / name)
    report = Report('BCSS')
    bcss.prepare_bcss(tmp_path / 'src', tmp_path, report, tile=64)
    assert len(report.problems) == 1 and 'OL-A0XX.png: holds colours' in report.problems[0]
    mask = np.asarray(Image.open(next((tmp_path / 'BCSS/train/masks').iterdir())))
    assert (mask[:8] == bcss.IGNORE).all() and (mask[8:] == 1).all()
    assert any('unknown codes [300] are ignored' in note for note in report.notes)


def test_instance_ids_of_any_size_make_annotations_of_different_ids(tmp_path):
    ids = np.zeros((40, 40), np.int32)
    ids[:9, :9], ids[20:30, 20:30] = 100_001, 7_000_000
    Image.fromarray(ids).save(tmp_path / 'a.tif')
    made = [a for image in (1, 2) for a in annotations_of(read_instance_map(tmp_path / 'a.tif'),
                                                         image)]
    assert len({a['id'] for a in made}) == 4
    Image.fromarray(-ids).save(tmp_path / 'b.tif')
    with pytest.raises(UserError, match='b.tif: holds the value -7000000'):
        read_instance_map(tmp_path / 'b.tif')
