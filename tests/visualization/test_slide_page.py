"""A page of slides: what is drawn is what is sampled."""

import cv2
import numpy as np
import pytest
import tifffile

from benchmarks.speed.slide_files import demo_tissue, write_slide
from openselfsup.cli.main import dispatch
from openselfsup.datasets import Slides
from openselfsup.errors import UserError
from openselfsup.visualization.canvas import view_color
from openselfsup.visualization.slide_page import first_tiles, thumbnail, write_slide_page


@pytest.fixture(scope='module')
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp('cohort')
    image = demo_tissue(900, 700, 150)
    write_slide(folder / 'a <b>.svs', image, 0.5, kind='svs')
    write_slide(folder / 'other.tif', image[::-1], 0.25)
    (folder / 'wrong.svs').write_text('no slide')
    return folder


@pytest.fixture
def source(cohort):
    return Slides(str(cohort), size=64, tiles_per_epoch=40, masks=str(cohort / 'masks'))


def like(image, colour):
    """Return which pixels have a colour of the house, as RGB."""
    wanted = [int(colour[i:i + 2], 16) for i in (1, 3, 5)]
    return (image == np.array(wanted, np.uint8)).all(-1)


def test_the_outline_lies_where_tissue_ends_and_boxes_where_tiles_are(source):
    image = thumbnail(source, 0, [])
    edge = like(image, view_color(0))
    ys, xs = np.nonzero(edge)
    scale = image.shape[1] / 900
    assert abs(xs.min() / scale - 150) < 20 and abs(xs.max() / scale - 750) < 20
    assert abs(ys.min() / scale - 150) < 20 and abs(ys.max() / scale - 550) < 20
    assert not like(image, view_color(1)).any()
    (_, region), *_ = first_tiles(source, 1)[0]
    ys, xs = np.nonzero(like(thumbnail(source, 0, [region]), view_color(1)))
    left, top, width, height = (value * scale for value in region.box)
    assert abs(xs.min() - left) <= 2 and abs(xs.max() - left - width) <= 2
    assert abs(ys.min() - top) <= 2 and abs(ys.max() - top - height) <= 2


def test_the_page_of_a_folder_and_of_a_config(cohort, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    out = tmp_path / 'page'
    out.mkdir()
    (out / 'slide_099_tissue.jpg').write_bytes(b'of an earlier page')
    dispatch(['slides', 'browse', str(cohort), '--out', str(out), '--size', '64', '--tiles', '3'])
    assert str(out / 'index.html') in capsys.readouterr().out
    text = (out / 'index.html').read_text()
    assert 'a &lt;b&gt;.svs' in text and '<b>' not in text
    assert 'wrong.svs: this is no slide that can be read' in text
    assert '900 x 700 px of 0.5 µm, levels at 1/1, 4; ' in text
    pictures = sorted(file.name for file in out.glob('*.jpg'))
    assert pictures == [f'slide_{n:03}_{kind}.jpg' for n in (1, 2) for kind in ('tiles', 'tissue')]
    assert cv2.imread(str(out / pictures[0])).shape == (116, 3 * 116, 3)

    config = tmp_path / 'mine.py'
    config.write_text(f"""_base_ = ['demo/plm_r18']
dataset = dict(source=dict(_delete_=True, type='Slides', root={str(cohort)!r}, size=64,
                           tiles_per_epoch=40))
""")
    dispatch(['slides', 'browse', str(config), '--out', str(out), '--slides', '1'])
    assert len(list(out.glob('*.jpg'))) == 2
    with pytest.raises(UserError, match="no such config, slide, folder or pattern.*'demo/plm_r18'"):
        dispatch(['slides', 'browse', 'demo/plm_r8', '--out', str(out)])
    with pytest.raises(UserError, match='its tiles come from ImageFolder'):
        dispatch(['slides', 'browse', 'demo/plm_r18', '--out', str(out)])
    with pytest.raises(UserError, match='a config tells it'):
        dispatch(['slides', 'browse', str(config), '--out', str(out), '--mpp', '1'])


def test_a_damaged_native_tile_is_told_on_the_page(cohort, tmp_path):
    """Of one slide that shows no thumbnail and not all tiles, beside one that is whole."""
    slides = tmp_path / 'slides'
    slides.mkdir()
    for name in ('a <b>.svs', 'other.tif'):
        (slides / name).write_bytes((cohort / name).read_bytes())
    source = Slides(str(slides), size=64, tiles_per_epoch=40, masks=str(tmp_path / 'masks'))
    with tifffile.TiffFile(slides / 'other.tif') as file:
        places = [(page.dataoffsets[i], page.databytecounts[i]) for page in file.pages
                  for i in range(len(page.dataoffsets)) if page.imagewidth < 900 or i % 2]
    with open(slides / 'other.tif', 'r+b') as file:
        for start, count in places:
            file.seek(start)
            file.write(bytes(count))
    text = write_slide_page(source, tmp_path / 'page').read_text()
    assert 'other.tif: tile ' in text and 'of level 0 is damaged' in text
    names = sorted(file.name for file in (tmp_path / 'page').glob('*.jpg'))
    assert names[:2] == ['slide_001_tiles.jpg', 'slide_001_tissue.jpg']
    assert 'slide_002_tissue.jpg' not in names
