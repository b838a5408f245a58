import os
import struct
import sys
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.speed.slide_files import write_slide
from openselfsup.datasets.prepare.report import Report
from openselfsup.datasets.prepare.slides import prepare_slides
from openselfsup.datasets.slides import (
    Level,
    Region,
    Slide,
    SlideError,
    open_slide,
    opening,
    vendor,
)
from openselfsup.datasets.slides.bounded import Bounded
from openselfsup.datasets.slides.slide import exact_downsample, few_natives
from openselfsup.datasets.slides.tiff import TiffSlide
from openselfsup.datasets.slides.vendor import OpenSlideSlide

YUV16 = (  # written by opj_compress -F 64,64,3,8,u@1x1:2x1:2x1
    'ff4fff51002f000000000040000000400000000000000000000000400000004000000000000000000003070101070201'
    '070201ff52000c00000001000004040001ff5c00044040ff640025000143726561746564206279204f70656e4a504547'
    '2076657273696f6e20322e352e30ff90000a0000000000400001ff93c3e71414005cafff7fe983ff7fc3e71214005caf'
    'ff7fff607fc7d42c14005cafff7fff6076a07000000000000018484bff7fffd9')
REAL = os.environ.get('OPENSELFSUP_TEST_SLIDE', '')  # CMU-1-Small-Region.svs of OpenSlide


@pytest.mark.parametrize('name, mpp, downsamples', [
    ('a.svs', 0.5, {1, 2, 4, 8, 16, 32}), ('b.tif', 0.25, {1, 2, 4, 8, 16, 32}),
    ('c.ome.tif', 0.4, {1, 2, 4, 8, 16, 32})])
def test_every_tiled_tiff_tells_mpp_and_levels(cohort, name, mpp, downsamples):
    slide = open_slide(str(cohort / name))
    assert isinstance(slide, TiffSlide)
    assert slide.mpp == pytest.approx(mpp, rel=1e-4)
    assert {level.downsample for level in slide.levels} == downsamples
    assert sum(level.reduce == 1 for level in slide.levels) == 2  # stored ones are preferred


@pytest.mark.parametrize('name', ['a.svs', 'b.tif'])
def test_pixels_are_those_of_openslide(cohort, name):
    ours, theirs = TiffSlide(str(cohort / name)), OpenSlideSlide(str(cohort / name))
    for mine, level in ((next(m for m in ours.levels if m.downsample == its.downsample), its)
                        for its in theirs.levels):
        box = (level.width // 5, level.height // 7, level.width // 2, level.height // 2)
        np.testing.assert_array_equal(ours.pixels(Region(mine, *box)),
                                      theirs.pixels(Region(level, *box)))
    assert ours.mpp == pytest.approx(theirs.mpp)


@pytest.mark.skipif(not REAL, reason='OPENSELFSUP_TEST_SLIDE names no slide')
def test_a_real_slide_is_read_as_by_openslide():
    ours, theirs = open_slide(REAL), OpenSlideSlide(REAL)
    assert isinstance(ours, TiffSlide) and ours.mpp == theirs.mpp == 0.499
    region = ours.region(1000, 1000, 0.5, 512)
    np.testing.assert_array_equal(ours.read(region, 512), theirs.read(
        theirs.region(1000, 1000, 0.5, 512), 512))


def test_shrinking_while_decoding_shows_the_same(cohort):
    """A JPEG decoded at half its size is nearly what it is when resized afterwards."""
    slide = open_slide(str(cohort / 'a.svs'))
    region = slide.region(700, 550, 1.0, 224)
    assert region.level.reduce == 2
    plain = slide.read(Region(slide.levels[0], *(int(v) for v in region.box)), 224)
    shrunk = slide.read(region, 224)
    assert np.abs(plain.astype(int) - shrunk).mean() < 2.5
    for by in (1, -1):  # half a pixel off would be seen
        moved = slide.read(Region(slide.levels[0], int(region.box[0]) + by,
                                  *(int(v) for v in region.box[1:])), 224)
        assert np.abs(moved.astype(int) - shrunk).mean() > 8


@pytest.mark.parametrize('compression', ['deflate', 'lzw', 'jpeg2000'])
def test_other_codecs(tissue_image, tmp_path, compression):
    path = tmp_path / 'one.tif'
    write_slide(path, tissue_image, compression=compression)
    slide = open_slide(str(path))
    assert isinstance(slide, TiffSlide)
    found = slide.pixels(Region(slide.levels[0], 300, 200, 400, 500))
    assert np.abs(found.astype(int) - tissue_image[200:700, 300:700]).max() <= 1


@pytest.mark.parametrize('photometric', ['rgb', 'ycbcr'])
def test_aperio_33003_is_ycbcr_whatever_its_tag_says(tissue_image, tmp_path, photometric):
    path, image = tmp_path / 'a.svs', tissue_image[200:712, 300:812]
    stored = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    _write_33003(path, stored.shape, [
        imagecodecs.jpeg2k_encode(np.ascontiguousarray(stored[y:y + 256, x:x + 256]),
                                  codecformat='j2k', level=0, mct=False, reversible=True)
        for y in (0, 256) for x in (0, 256)], 256, photometric)
    ours, theirs = open_slide(str(path)), OpenSlideSlide(str(path))
    assert isinstance(ours, TiffSlide)
    found = ours.pixels(Region(ours.levels[0], 0, 0, 512, 512)).astype(int)
    assert np.abs(found - image).max() <= 3
    assert np.abs(found - theirs.pixels(Region(theirs.levels[0], 0, 0, 512, 512))).max() <= 1


def test_aperio_33003_whose_colours_lie_wider(tmp_path):
    """As Aperio writes it: one Cb and one Cr for two pixels, here of (200, 120, 180)."""
    _write_33003(tmp_path / 'a.svs', (64, 64, 3), [bytes.fromhex(YUV16)], 64, 'rgb')
    ours, theirs = open_slide(str(tmp_path / 'a.svs')), OpenSlideSlide(str(tmp_path / 'a.svs'))
    found = ours.pixels(Region(ours.levels[0], 0, 0, 64, 64)).astype(int)
    assert np.abs(found - (200, 120, 180)).max() <= 2
    assert np.abs(found - theirs.pixels(Region(theirs.levels[0], 0, 0, 64, 64))).max() <= 2


def _write_33003(path, shape, streams, side, photometric):
    with tifffile.TiffWriter(path) as file:
        file.write(iter(streams), shape=shape, dtype=np.uint8, tile=(side, side),
                   photometric=photometric, compression=33003, metadata=None,
                   description=f'Aperio Image Library v1\n{shape[1]}x{shape[0]}|MPP = 0.5')


class White(Slide):
    def pixels(self, region):
        return np.full((region.height, region.width, 3), 255, np.uint8)


@given(st.floats(0, 1e5), st.floats(0, 8e4), st.floats(0.25, 8), st.integers(32, 600))
def test_regions_are_whole_pixels_where_they_were_asked_for(x, y, mpp, size):
    levels = [Level(round(1e5 / n), round(8e4 / n), float(n), i)
              for i, n in enumerate((1, 4, 16))]
    region = White('x', 0.25, levels).region(x, y, mpp, size)
    left, top, width, height = region.box
    assert 0 <= region.left <= region.level.width - region.width
    assert 0 <= region.top <= region.level.height - region.height
    assert width == height == pytest.approx(size * mpp / 0.25, rel=0.021)
    middle = left + width / 2
    if width / 2 < x < 1e5 - width / 2:
        assert abs(middle - x) <= region.level.downsample


@given(st.floats(-500, 1e5), st.integers(32, 3000), st.integers(16, 1024))
def test_regions_are_moved_to_where_they_need_few_native_tiles(corner, length, native):
    moved = few_natives(corner, length, native)
    assert abs(moved - corner) <= native / 2 + 1
    if 16 * (-length % native) >= length:
        assert (moved + length - 1) // native - moved // native + 1 == -(-length // native)
    else:
        assert moved == round(corner)


def test_moved_regions_still_lie_anywhere():
    found = [few_natives(corner, 448, 256) % 256 for corner in range(2560)]
    counts = np.bincount(found, minlength=65)
    assert len(counts) == 65 and counts[1:64].min() >= 30 and counts.max() <= 50  # 40 expected


def test_downsamples_are_exact_where_sizes_tell():
    assert exact_downsample((46000, 32914), (2875, 2057)) == 16
    assert exact_downsample((1000, 1000), (400, 400)) == 2.5


def test_one_sentence_for_what_cannot_be_used(tissue_image, tmp_path):
    no_mpp, cut, no_slide = (str(tmp_path / name) for name in ('no.tif', 'cut.svs', 'text.svs'))
    write_slide(no_mpp, tissue_image, None)
    write_slide(cut, tissue_image, 0.5, kind='svs')
    os.truncate(cut, os.path.getsize(cut) - 4000)
    Path(no_slide).write_text('not a slide')
    for path, said in ((no_mpp, 'does not tell its micrometres per pixel'),
                       (cut, 'damaged'), (no_slide, 'no slide that can be read')):
        with pytest.raises(SlideError, match=said) as caught:
            open_slide(path)
        assert path in str(caught.value) and '\n' not in str(caught.value)
    assert open_slide(no_mpp, mpp=0.3).mpp == 0.3


@pytest.mark.parametrize('told', ['0', 'NaN', '-0.5', 'INF', 'unknown'])
def test_a_magnification_that_is_none_is_not_told(tissue_image, tmp_path, told):
    path = tmp_path / 'a.ome.tif'
    write_slide(path, tissue_image, 0.123456789, kind='ome')
    path.write_bytes(path.read_bytes().replace(b'0.123456789', told.encode().ljust(11)))
    with pytest.raises(SlideError, match='does not tell its micrometres per pixel'):
        open_slide(str(path))
    assert isinstance(slide := open_slide(str(path), 0.5), TiffSlide) and slide.mpp == 0.5
    for mpp in (0., float('nan'), -1.):
        with pytest.raises(SlideError, match='does not tell its micrometres per pixel'):
            _ = White('x', mpp, slide.levels).mpp


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_channels_in_separate_pages_are_not_read_as_the_first(tissue_image, tmp_path, dtype):
    path = str(tmp_path / 'a.ome.tif')
    with tifffile.TiffWriter(path, ome=True) as file:
        for number, shown in enumerate((tissue_image, tissue_image[::4, ::4])):
            file.write(np.moveaxis(shown, -1, 0).astype(dtype), tile=(256, 256),
                       photometric='minisblack', subifds=1 - number, subfiletype=number,
                       metadata=dict(axes='CYX', PhysicalSizeX=0.5, PhysicalSizeXUnit='µm'))
    with pytest.raises(SlideError, match='a.ome.tif: its 3 channels lie in separate pages; expected'
                                         ' RGB in one page, as raw2ometiff --rgb writes it'):
        open_slide(path)


def test_magnifications_in_nanometres(tissue_image, tmp_path):
    path = str(tmp_path / 'a.ome.tif')
    tifffile.imwrite(path, tissue_image, ome=True, tile=(256, 256), photometric='rgb',
                     metadata=dict(axes='YXS', PhysicalSizeX=1250, PhysicalSizeXUnit='nm'))
    assert open_slide(path).mpp == 1.25


def test_planes_of_one_page_are_read(tissue_image, tmp_path):
    path = str(tmp_path / 'a.ome.tif')
    tifffile.imwrite(path, np.moveaxis(tissue_image, -1, 0), ome=True, tile=(256, 256),
                     photometric='rgb', planarconfig='separate', metadata=dict(axes='SYX'))
    slide = open_slide(path, 0.5)
    np.testing.assert_array_equal(slide.pixels(Region(slide.levels[0], 300, 200, 400, 500)),
                                  tissue_image[200:700, 300:700])


def test_native_tiles_that_no_memory_holds_do_not_end_the_process(tissue_image, tmp_path):
    path = tmp_path / 'src/wide.tif'
    path.parent.mkdir()
    write_slide(path, tissue_image[:1024, :1024], compression='deflate')
    with tifffile.TiffFile(path) as file:
        tag, order = file.pages[0].tags['TileWidth'], file.byteorder
        assert tag.valuebytecount == 4
    content = bytearray(path.read_bytes())
    content[tag.valueoffset:tag.valueoffset + 4] = struct.pack(order + 'I', 167772416)
    path.write_bytes(content)
    with pytest.raises(SlideError, match='level 0 is damaged: it has 1024 x 1024 px, its native '
                                         'tiles 167772416 x 256 px') as told:
        OpenSlideSlide(str(path))
    assert told.value.where == str(path)
    prepare_slides(path.parent, tmp_path / 'dst', report := Report('s'))
    assert 'level 0 is damaged' in report.problems[0] and report.facts['tiles'] == 0


def test_pixels_that_are_not_square_tell_no_magnification(tissue_image, tmp_path):
    for name, down in (('square', 0.502), ('wide', 0.25)):
        tifffile.imwrite(tmp_path / f'{name}.ome.tif', tissue_image, ome=True, tile=(256, 256),
                         photometric='rgb', metadata=dict(axes='YXS', PhysicalSizeX=0.5,
                                                          PhysicalSizeY=down))
        tifffile.imwrite(tmp_path / f'{name}.tif', tissue_image, tile=(256, 256),
                         photometric='rgb', resolution=(1e4 / 0.5, 1e4 / down),
                         resolutionunit='CENTIMETER')
    for ending in ('ome.tif', 'tif'):
        assert open_slide(str(tmp_path / f'square.{ending}')).mpp == pytest.approx(0.501)
        with pytest.raises(SlideError, match='or other ones across than down'):
            open_slide(str(tmp_path / f'wide.{ending}'))
        assert open_slide(str(tmp_path / f'wide.{ending}'), 0.4).mpp == 0.4
        assert open_slide(str(tmp_path / f'wide.{ending}'), otherwise=0.3).mpp == 0.3
        assert open_slide(str(tmp_path / f'square.{ending}'), otherwise=0.3).mpp != 0.3
    properties = {'openslide.mpp-x': '0.5', 'openslide.mpp-y': '0.25'}
    assert vendor._mpp(properties) is None
    assert vendor._mpp(properties | {'openslide.mpp-y': '0.5'}) == 0.5


def test_a_slide_without_a_pyramid_and_a_missing_library_are_told(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, 'MAX_OVERVIEW', 1000)
    with pytest.raises(SlideError, match='it has no pyramid: its smallest level is 44 x 35 px'):
        open_slide(str(cohort / 'a.svs'))
    (tmp_path / 'a.ndpi').write_text('whatever')
    monkeypatch.setitem(sys.modules, 'openslide', None)
    with pytest.raises(SlideError, match=r'OpenSlide, which is not installed; expected pip install '
                                         r'.*\[slides\]'):
        open_slide(str(tmp_path / 'a.ndpi'))


def test_what_is_kept_is_bounded():
    kept = Bounded(10)
    for i in range(20):
        assert kept.get(i, lambda i=i: i * 'x', len) == i * 'x'
    assert len(kept) == 1  # the last one is larger than the limit
    assert kept.get('a', lambda: 'xx', len) is kept.get('a', lambda: 'yy', len)
