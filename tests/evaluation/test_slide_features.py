"""Features of whole slides: what is in the files, and what is not done twice."""

import shutil

import h5py
import numpy as np
import pytest
import torch

from benchmarks.speed.slide_files import demo_tissue, write_slide
from openselfsup import checkpoints
from openselfsup.cli.main import dispatch
from openselfsup.datasets.slides import open_slide
from openselfsup.engine.config import load_config
from openselfsup.errors import UserError
from openselfsup.evaluation.slide_features import open_slide_of, read_slide_features
from openselfsup.registry import BACKBONES
from openselfsup.training.features import extract_features


@pytest.fixture(scope='module')
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp('cohort')
    image = demo_tissue(1000, 800, 150)
    write_slide(folder / 'a.svs', image, 0.5, kind='svs')
    write_slide(folder / 'b.tif', image, 0.25)
    return folder


@pytest.fixture(scope='module')
def backbone(tmp_path_factory):
    torch.manual_seed(0)
    model = BACKBONES.build(load_config('demo/plm_r18').model.backbone)
    path = tmp_path_factory.mktemp('weights') / 'backbone.pth'
    checkpoints.save(dict(state_dict=model.state_dict()), path)
    return model, path


def test_features_are_those_of_the_tiles_at_their_coords(cohort, backbone, tmp_path, capsys):
    model, weights = backbone
    words = ['slides', 'embed', 'demo/plm_r18', str(weights), str(cohort), '--out',
             str(tmp_path / 'out'), '--size', '64', '--device', 'cpu', '--masks',
             str(cohort / 'masks')]
    dispatch(words)
    assert 'tiles of 2 slides' in capsys.readouterr().out
    cfg = load_config('demo/plm_r18')
    for name, downsample in (('a.svs', 1), ('b.tif', 2)):
        with h5py.File(tmp_path / 'out' / f'{name[0]}.h5') as file:
            features, coords = file['features'][:], file['coords'][:]
            told = dict(file['coords'].attrs)
        assert told['patch_size'] == 64 and told['patch_size_level0'] == 64 * downsample
        assert told['target_magnification'] == 20 and told['name'] == name[0]
        assert told['level0_magnification'] == 20 * downsample and told['overlap'] == 0
        assert features.shape == (len(coords), 512) and features.dtype == np.float32
        assert len(coords) > 4 and (coords % (64 * downsample) == 0).all()
        slide = open_slide(str(cohort / name))
        middle = coords[3] + 32 * downsample
        tile = slide.read(slide.region(*middle, 0.5, 64), 64)
        expected = extract_features(model, torch.from_numpy(tile).permute(2, 0, 1)[None], 1,
                                    cfg.normalize['mean'], cfg.normalize['std'])
        np.testing.assert_allclose(features[3], expected[0], atol=1e-4, rtol=1e-3)
        read = read_slide_features(tmp_path / 'out' / f'{name[0]}.h5')
        assert read.size == (slide.width, slide.height) == (1000, 800)
        assert read.side == 64 * downsample and np.array_equal(read.corners, coords)
        np.testing.assert_allclose(read.features[3], features[3] / np.linalg.norm(features[3]),
                                   rtol=1e-4, atol=1e-6)
    dispatch(['slides', 'map', str(tmp_path / 'out'), str(cohort), '--out', str(tmp_path / 'maps'),
              '--like', 'a.svs#xywh=400,300,130,130'])
    assert len(list((tmp_path / 'maps').glob('map_*'))) == 9

    before = (tmp_path / 'out/a.h5').stat().st_mtime_ns
    (tmp_path / 'out/b.h5').unlink()
    dispatch(words)  # as after a kill
    assert (tmp_path / 'out/a.h5').stat().st_mtime_ns == before
    assert (tmp_path / 'out/b.h5').is_file()
    with pytest.raises(UserError, match='(?s)2 of 2 slides were not.*holds something else'):
        dispatch([*words, '--min-share', '0.9'])


def test_a_table_tells_the_magnification_that_a_file_lacks(backbone, tmp_path, capsys):
    (tmp_path / 'slides').mkdir()
    for name in ('a.tif', 'b.tif', 'c.tif'):
        write_slide(tmp_path / 'slides' / name, demo_tissue(700, 600, 150),
                    None if name == 'a.tif' else 0.5)
    (tmp_path / 'slides.csv').write_text('slide,mpp\na,1\n')
    words = ['slides', 'embed', 'demo/plm_r18', str(backbone[1]), str(tmp_path / 'slides'), '--out',
             str(tmp_path / 'out'), '--size', '64', '--masks', str(tmp_path / 'masks')]
    dispatch([*words, '--mpp', '1', '--table', str(tmp_path / 'slides.csv')])
    assert 'tiles of 1 slide: ' in capsys.readouterr().out
    file, = (tmp_path / 'out').glob('*.h5')  # b and c are not in the table
    assert file.stem == 'a' and read_slide_features(file).side == 64
    shutil.copy(file, tmp_path / 'without.h5')
    with h5py.File(tmp_path / 'without.h5', 'a') as without:
        del without['features']
    slide = str(tmp_path / 'slides/a.tif')
    assert open_slide_of(file, slide).mpp == open_slide_of(tmp_path / 'without.h5', slide).mpp == 1
    (tmp_path / 'none.h5').write_text('none')
    with pytest.raises(UserError, match='none.h5: this holds no features of a slide'):
        open_slide_of(tmp_path / 'none.h5', slide)
    dispatch(['slides', 'map', str(tmp_path / 'out'), str(tmp_path / 'slides'), '--out',
              str(tmp_path / 'maps')])
    assert '<h2>a</h2>' in (tmp_path / 'maps/index.html').read_text()


def test_slides_that_cannot_be_read_are_told_in_the_end(backbone, tmp_path, capsys):
    (tmp_path / 'slides').mkdir()
    write_slide(tmp_path / 'slides/a.tif', demo_tissue(700, 600, 150), 0.5)
    (tmp_path / 'slides/wrong.svs').write_text('no slide')
    with pytest.raises(UserError, match='(?s)^1 of 2 slides were not embedded:.*wrong.svs: this is '
                                        'no slide'):
        dispatch(['slides', 'embed', 'demo/plm_r18', str(backbone[1]), str(tmp_path / 'slides'),
                  '--out', str(tmp_path / 'out'), '--size', '64', '--masks',
                  str(tmp_path / 'masks')])
    assert 'tiles of 1 slide: ' in capsys.readouterr().out
    assert [file.name for file in (tmp_path / 'out').glob('*.h5')] == ['a.h5']


def test_slides_of_one_name_are_refused(cohort, backbone, tmp_path):
    (tmp_path / 'x').mkdir()
    write_slide(tmp_path / 'x/a.svs', demo_tissue(700, 600, 150), 0.5, kind='svs')
    write_slide(tmp_path / 'a.tif', demo_tissue(700, 600, 150), 0.5)
    with pytest.raises(UserError, match='slides of one name would share a file'):
        dispatch(['slides', 'embed', 'demo/plm_r18', str(backbone[1]), str(tmp_path), '--out',
                  str(tmp_path / 'out'), '--size', '64', '--masks', str(tmp_path / 'masks')])
