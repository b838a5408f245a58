"""Maps of slides: alike tiles have one colour on all slides, and a region finds its like."""

import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import tifffile
import torch

from benchmarks.speed.slide_files import write_slide
from openselfsup.cli.main import dispatch
from openselfsup.datasets.slides import open_slide
from openselfsup.errors import UserError
from openselfsup.evaluation.slide_features import open_slide_of, read_slide_features
from openselfsup.visualization.likes import COLOURS
from openselfsup.visualization.slide_maps import fit_components, place_of, tiles_in

SIDE, WIDE, HIGH = 64, 1024, 640  # of a tile and of the slides, in pixels of the base level
PINK, BLUE = (220, 130, 170), (90, 70, 150)
KINDS = np.array([[3., 0, 0, 0, 0], [0, 1, 0, 0, 0]])  # features of a pink and of a blue tile


def features_of(blue: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.05, (len(blue), 5))
    return (KINDS[blue.astype(int)] + noise).astype(np.float32)


def write_features(path, features, corners, size=(WIDE, HIGH)):
    with h5py.File(path, 'w') as file:
        file['features'], file['coords'] = features, corners
        file['coords'].attrs.update(patch_size_level0=SIDE, level0_width=size[0],
                                    level0_height=size[1], level0_mpp=0.5)


@pytest.fixture(scope='module')
def cohort(tmp_path_factory):
    """Two slides, a left one that is pink on its left and blue on its right, and its mirror."""
    folder = tmp_path_factory.mktemp('maps')
    (folder / 'slides').mkdir()
    (folder / 'features').mkdir()
    image = np.full((HIGH, WIDE, 3), PINK, np.uint8)
    image[:, WIDE // 2:] = BLUE
    corners = np.array([(x, y) for y in range(64, HIGH - 64, SIDE)
                        for x in range(64, WIDE - 64, SIDE)])
    for seed, (name, shown) in enumerate((('left', image), ('right', image[:, ::-1]))):
        write_slide(folder / 'slides' / f'{name}.tif', shown, 0.5)
        blue = (corners[:, 0] >= WIDE // 2) == (name == 'left')
        write_features(folder / 'features' / f'{name}.h5', features_of(blue, seed), corners)
    return folder


def draw(cohort, out, *more):
    dispatch(['slides', 'map', str(cohort / 'features'), str(cohort / 'slides'), '--out', str(out),
              *more])
    return (out / 'index.html').read_text()


def picture(path, at):
    """Return the colours of a picture at places of the base level, float (N, 3)."""
    image = cv2.imread(str(path))[..., ::-1].astype(float)
    scale = image.shape[1] / WIDE
    return np.array([image[int(y * scale), int(x * scale)] for x, y in at])


PLACES = np.array([(200, 200), (400, 500), (650, 300), (850, 120)])  # the last two on the right


def test_alike_tiles_have_one_colour_on_all_slides(cohort, tmp_path, capsys):
    text = draw(cohort, tmp_path)
    assert capsys.readouterr().out.strip() == str(tmp_path / 'index.html')
    left, right = (picture(tmp_path / f'map_00{n}_components.png', PLACES) for n in (1, 2))
    # of three components the first, red, tells the kinds apart; the others are noise
    assert left[:2, 0].min() > 200 and right[2:, 0].min() > 200  # pink is brighter than blue
    assert left[2:, 0].max() < 60 and right[:2, 0].max() < 60
    beyond = picture(tmp_path / 'map_001_components.png', [(20, 300), (900, 620)])
    assert np.ptp(beyond, 1).max() == 0 and beyond.min() > 140  # grey and pale: no tile there
    assert 'like' not in ' '.join(file.name for file in tmp_path.iterdir())
    assert '<h2>left</h2>' in text and '224' in text


def test_a_region_finds_its_like_on_all_slides(cohort, tmp_path):
    text = draw(cohort, tmp_path, '--like', 'left.tif#xywh=600,200,200,130')
    ends = [np.array(COLOURS(end)[:3]) for end in (0., 1.)]
    for number, blue in ((1, [2, 3]), (2, [0, 1])):
        found = picture(tmp_path / f'map_00{number}_like.png', PLACES)
        pink = [i for i in range(4) if i not in blue]
        hue = found - found.min(1, keepdims=True)
        assert (hue[blue] @ ends[1] > hue[blue] @ ends[0]).all()
        assert (found[blue, 1] > found[pink, 1] + 80).all()  # viridis: green rises
        nearest = cv2.imread(str(tmp_path / f'map_00{number}_nearest.jpg'))[..., ::-1]
        assert nearest.shape == (232, 464, 3)
        for row in (56, 172):
            for column in (56, 172, 288, 404):
                assert np.abs(nearest[row, column].astype(int) - BLUE).max() < 12
    asked = cv2.imread(str(tmp_path / 'map_000_asked.jpg'))
    assert asked.shape[:2] == (218, 336) and np.abs(asked[100, 100, ::-1] - BLUE).max() < 12
    assert '8 most similar tiles outside of it' in text and 'orange frame' in text
    draw(cohort, tmp_path)
    assert not list(tmp_path.glob('*like*')) and not list(tmp_path.glob('map_000*'))


def test_a_damaged_slide_is_told_and_its_features_are_drawn(cohort, tmp_path):
    shutil.copytree(cohort / 'features', tmp_path / 'features')
    shutil.copytree(cohort / 'slides', tmp_path / 'slides')
    path = tmp_path / 'slides/right.tif'
    with tifffile.TiffFile(path) as file:
        places = [place for page in file.pages
                  for place in zip(page.dataoffsets, page.databytecounts)]
    with open(path, 'r+b') as file:
        for start, count in places:
            file.seek(start)
            file.write(bytes(count))
    text = draw(tmp_path, tmp_path / 'page', '--like', 'left.tif#xywh=600,200,200,130')
    assert 'right.tif: tile ' in text and 'is damaged' in text
    assert 'left.tif: tile ' not in text
    found = picture(tmp_path / 'page/map_002_components.png', PLACES)
    assert np.abs(found[0] - found[1]).max() < np.abs(found[1] - found[2]).max()
    assert (tmp_path / 'page/map_002_like.png').is_file()
    assert not (tmp_path / 'page/map_002_nearest.jpg').exists()
    text = draw(tmp_path, tmp_path / 'page', '--like', 'right.tif#xywh=600,200,200,130')
    assert (tmp_path / 'page/map_001_nearest.jpg').is_file()
    assert not (tmp_path / 'page/map_000_asked.jpg').exists()


def test_components_of_files_are_those_of_all_tiles_at_once(cohort):
    files = sorted((cohort / 'features').iterdir())
    slides = [open_slide(str(cohort / 'slides' / f'{file.stem}.tif')) for file in files]
    mean, axes, shares, counts = fit_components(files, slides)
    every = torch.cat([read_slide_features(file).features for file in files])
    _, values, right = torch.linalg.svd(every.double() - every.double().mean(0))
    torch.testing.assert_close(mean, every.mean(0))
    assert counts == [112, 112]
    torch.testing.assert_close(shares, (values ** 2 / (values ** 2).sum())[:3])
    torch.testing.assert_close((axes.T.double() @ right[:3].T).abs(), torch.eye(3).double(),
                               atol=1e-4, rtol=0)


def test_tiles_of_a_region_have_their_middle_in_it(cohort):
    read = read_slide_features(cohort / 'features' / 'left.h5')
    inside = tiles_in(read, (64, 64, 128, 70))
    assert read.corners[inside].tolist() == [[64, 64], [128, 64]]
    assert read.corners[tiles_in(read, (130, 70, 5, 5))].tolist() == [[128, 64]]  # within one tile
    assert not tiles_in(read, (5, 5, 20, 20)).any()


def test_a_region_is_read_from_a_path_or_a_name():
    for slide in ('/data/b.svs', 'b.svs', 'b'):
        place = place_of(f'{slide}#xywh=10,20.5,30,40', ['/data/a.svs', '/data/b.svs'], ['a', 'b'])
        assert place == (1, (10, 20.5, 30, 40))
    for text, said in (('b.svs', 'is no region; expected SLIDE#xywh='),
                       ('b#xywh=1,2,3', 'is no region'), ('b#xywh=1,2,0,4', 'is no region'),
                       ('slide_1#xywh=1,2,3,4', "'slide_1'; did you mean 'slide_11'")):
        with pytest.raises(UserError, match=said):
            place_of(text, ['x/b.svs', 'x/slide_11.svs'], ['b', 'slide_11'])


def test_what_does_not_fit_is_told(cohort, tmp_path):
    for name in ('slides', 'features'):
        shutil.copytree(cohort / name, tmp_path / name)
    out = tmp_path / 'out'
    with pytest.raises(UserError, match='this region has no tile: it is glass'):
        draw(tmp_path, out, '--like', 'left#xywh=5,5,20,20')
    file = tmp_path / 'features' / 'right.h5'
    whole = file.read_bytes()
    file.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(UserError, match='right.h5: this holds no features of a slide'):
        draw(tmp_path, out)
    corners = np.zeros((3, 2), int)
    write_features(file, np.ones((3, 4), np.float32), corners)
    with pytest.raises(UserError, match='right.h5: its features have 4 values, those of .*left'):
        draw(tmp_path, out)
    write_features(file, np.ones((3, 5), np.float32), corners, (900, 700))
    with pytest.raises(UserError, match='of a slide of 900 x 700 px, this one has 1024 x 640'):
        draw(tmp_path, out)
    (tmp_path / 'slides/again').mkdir()
    again = shutil.copy(tmp_path / 'slides/left.tif', tmp_path / 'slides/again')
    with pytest.raises(UserError, match='(?s)several slides are called as these.*left.h5'):
        draw(tmp_path, out)
    Path(again).unlink()
    file.rename(file.with_name('other.h5'))
    with pytest.raises(UserError, match='(?s)no slide is called as these features are.*other.h5'):
        draw(tmp_path, out)
    with pytest.raises(UserError, match='there are no features of slides'):
        dispatch(['slides', 'map', str(tmp_path / 'slides'), str(tmp_path / 'slides')])


def test_files_of_trident_are_drawn(cohort, tmp_path):
    """They tell no micrometres per pixel: the slide does, or the magnification where it does not.
    """
    shutil.copytree(cohort, tmp_path, dirs_exist_ok=True)
    write_slide(tmp_path / 'slides/right.tif', np.full((HIGH, WIDE, 3), PINK, np.uint8), None)
    for name in ('left', 'right'):
        with h5py.File(tmp_path / f'features/{name}.h5', 'a') as file:
            del file['coords'].attrs['level0_mpp']
            file['coords'].attrs.update(
                patch_size=SIDE, level0_magnification=40, target_magnification=40, overlap=0,
                name=name, savetodir='job/coords')
    for name, mpp in (('left', 0.5), ('right', 0.25)):
        slide = tmp_path / f'slides/{name}.tif'
        assert open_slide_of(tmp_path / f'features/{name}.h5', str(slide)).mpp == mpp
    assert '<h2>right</h2>' in draw(tmp_path, tmp_path / 'out')
    with h5py.File(tmp_path / 'features/left.h5', 'a') as file:
        del file['coords'].attrs['level0_magnification']
    with pytest.raises(UserError, match='left.h5: this holds no features of a slide'):
        draw(tmp_path, tmp_path / 'out')
