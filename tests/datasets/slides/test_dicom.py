"""Slides in DICOM: files of a series are one slide, whose tiles are what was written."""

import os
import shutil

import cv2
import numpy as np
import pytest

from benchmarks.speed.slide_files import write_slide
from openselfsup.cli.slides_embed import files_of
from openselfsup.datasets import Slides, TileDataset
from openselfsup.datasets.prepare.report import Report
from openselfsup.datasets.prepare.slides import prepare_slides
from openselfsup.datasets.slides import find_slides, open_slide, slide_names
from openselfsup.datasets.slides.dicom import series_of
from openselfsup.errors import UserError

pydicom = pytest.importorskip('pydicom')
from tests.datasets.slides.dicom_files import write_series  # noqa: E402

RECIPE = dict(type='ViewRecipe', size=32, steps=dict(
    crop=dict(type='RandomResizedCrop', scale=(0.2, 1.))))


@pytest.fixture(scope='module')
def folder(tissue_image, tmp_path_factory):
    """Two series, one of them in a folder of its own, beside a TIFF."""
    folder = tmp_path_factory.mktemp('dicom')
    write_series(folder / 'case1', tissue_image, 0.25, (1, 2, 8))
    write_series(folder / 'case2', tissue_image[::-1], 0.5)
    write_slide(folder / 'b.tif', tissue_image[:, ::-1], 0.5)
    return folder


def build(root, tmp_path, **options):
    return Slides(root if isinstance(root, list) else str(root), tiles_per_epoch=40,
                  masks=str(tmp_path / 'masks'), **{**dict(size=64), **options})


def test_levels_mpp_and_pixels_are_those_that_were_written(folder, tissue_image):
    slide = open_slide(str(folder / 'case1' / 'level2.dcm'))
    assert slide.mpp == 0.25 and (slide.width, slide.height) == (1400, 1100)
    assert [level.downsample for level in slide.levels] == [1, 2, 8]
    assert {level.native for level in slide.levels} == {(256, 256)}
    for mpp, n in ((0.25, 1), (0.5, 2)):
        region = slide.region(700, 500, mpp, 224)
        left, top, width, height = (round(v) for v in region.box)
        expected = cv2.resize(tissue_image[top:top + height, left:left + width], (224, 224),
                              interpolation=cv2.INTER_AREA)
        assert region.level.downsample == n
        difference = np.abs(slide.read(region, 224).astype(int) - expected).mean()
        assert difference < 6
        assert difference < np.abs(np.roll(expected, 1, 1).astype(int) - expected).mean() / 2


def test_prepared_tiles_are_of_each_slide_once(folder, tmp_path):
    report = Report('slides')
    prepare_slides(folder, tmp_path, report, mpp=0.5, size=128, min_tissue=0.)
    assert report.facts['slides'] == 3 and not report.problems
    assert sorted(path.name for path in (tmp_path / 'tiles').iterdir()) == ['b', 'case1', 'case2']


def test_a_cohort_of_dicom_and_tiff_has_each_slide_once(folder, tmp_path, tissue_image):
    source = build(folder, tmp_path, mpp=0.5)
    assert len(source.slides) == 3 and not source.left_out
    seen = {source.place(i)[0].path for i in range(40)}
    assert seen == set(source.files())
    images = {'case1': tissue_image, 'case2': tissue_image[::-1], 'b': tissue_image[:, ::-1]}
    for i in range(8):
        slide, region = source.place(i)
        name = files_of(source, tmp_path)[source.slides.index(slide)].stem
        left, top, width, height = (round(v) for v in region.box)
        expected = cv2.resize(images[name][top:top + height, left:left + width], (64, 64),
                              interpolation=cv2.INTER_AREA)
        assert np.abs(source.read(i).astype(int) - expected).mean() < 6


def test_a_folder_a_file_and_both_are_one_slide(folder):
    case, file = str(folder / 'case1'), str(folder / 'case1' / 'level1.dcm')
    for root in (case, file, [case, file], [file, case], case + '/*.dcm'):
        assert len(find_slides(root)) == 1
    assert len(find_slides([case, str(folder / 'case2')])) == 2


def test_series_in_one_folder_are_told_apart(tissue_image, tmp_path):
    for stem in ('a', 'b'):
        write_series(tmp_path / 'all', tissue_image[:500, :600], stem=stem)
    source = build(tmp_path / 'all', tmp_path)
    assert len(source.slides) == 2
    assert [file.name for file in files_of(source, tmp_path)] == ['a0.h5', 'b0.h5']


@pytest.mark.parametrize('table', [None, 'slide\na0.dcm\n'])
def test_names_do_not_depend_on_which_slides_can_be_used(tissue_image, tmp_path, table):
    """Else features of a slide would be called otherwise than ``slides map`` calls the slide."""
    for stem in ('a', 'b'):
        files = write_series(tmp_path / 'all', tissue_image[:500, :600], stem=stem)
    if table:
        (tmp_path / 'slides.csv').write_text(table)
    else:
        for file in files:
            os.truncate(file, 3000)
    source = build(tmp_path / 'all', tmp_path, table=table and str(tmp_path / 'slides.csv'))
    known = dict(zip(found := find_slides(str(tmp_path / 'all')), slide_names(found)))
    assert [known[path] for path in source.files()] == source.names == ['a0']
    assert [file.name for file in files_of(source, tmp_path)] == ['a0.h5']


def test_the_series_is_the_files_own(folder):
    for number in range(3):
        file = folder / 'case1' / f'level{number}.dcm'
        told = pydicom.dcmread(file, stop_before_pixels=True)
        assert series_of(str(file)) == told.SeriesInstanceUID
        assert told.ReferencedSeriesSequence[0].SeriesInstanceUID != told.SeriesInstanceUID


def test_a_table_names_the_folder_or_the_first_file(folder, tmp_path):
    table = tmp_path / 'slides.csv'
    table.write_text('slide,weight\ncase1,1\ncase2/level0.dcm,3\n')
    source = build(folder, tmp_path, table=str(table), sampling='slides')
    np.testing.assert_allclose(source.weights, [1 / 4, 3 / 4])


@pytest.mark.parametrize('kept', [200, 1000, 1200])
def test_a_series_whose_base_is_cut_off_is_told_in_one_sentence(folder, tmp_path, kept):
    """Of a file cut within its header, and of one whose frames are missing."""
    shutil.copytree(folder / 'case2', tmp_path / 'case2')
    shutil.copy(folder / 'b.tif', tmp_path)
    os.truncate(tmp_path / 'case2' / 'level0.dcm', kept)
    (tmp_path / 'case2' / 'level1.dcm').unlink()
    source = build(tmp_path, tmp_path)
    assert len(source.slides) == 1 and len(source.left_out) == 1
    said = str(source.left_out[0])
    assert said.startswith(str(tmp_path / 'case2' / 'level0.dcm')) and '\n' not in said
    assert 'damaged' in said or 'no slide that can be read' in said


def test_frames_that_are_damaged_are_told_and_other_tiles_take_their_place(folder, tmp_path,
                                                                           caplog):
    shutil.copytree(folder / 'case2', tmp_path / 'case2')
    file = tmp_path / 'case2' / 'level0.dcm'
    os.truncate(file, os.path.getsize(file) // 2)
    dataset = TileDataset(build(tmp_path, tmp_path), RECIPE)
    read = [dataset.read(i)[1] for i in range(40)]
    assert read != list(range(40)) and set(read) < set(range(40))
    assert all('level 0 is damaged' in error for error in dataset.corrupt.values())
    assert caplog.text.count('tile skipped') == len(dataset.corrupt) > 0


def test_ome_zarr_is_said_not_to_be_read(tmp_path):
    (tmp_path / 'a.ome.zarr' / '0').mkdir(parents=True)
    (tmp_path / 'a.ome.zarr' / '.zattrs').write_text('{}')
    for root in (tmp_path / 'a.ome.zarr', f'{tmp_path}/a.ome.zarr/', tmp_path):
        with pytest.raises(UserError, match='a.ome.zarr/?: OME-Zarr is not read; expected a '
                                            'pyramid of OME-TIFF, as raw2ometiff --rgb ') as caught:
            find_slides(str(root))
        assert '\n' not in str(caught.value)
