from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).parents[2]
DEMO = 'configs/demo/plm_r18.py'
SCALE = 150 / 72  # pixels a point


@pytest.fixture
def browse(tmp_path, tool):
    return lambda config, *arguments: tool('tools/browse_views.py', config, '--out',
                                           tmp_path / 'sheets', *arguments)


def test_the_demo_config_is_drawn(browse, tmp_path):
    (tmp_path / 'sheets').mkdir()
    (tmp_path / 'sheets/views_07.png').touch()  # of an earlier call
    done = browse(DEMO, '--n', '5')
    assert done.returncode == 0, done.stderr
    names = ['matches_01.png', 'matches_02.png', 'views_01.png']
    assert sorted(path.name for path in (tmp_path / 'sheets').iterdir()) == names
    assert [Path(line).name for line in sorted(done.stdout.split())] == names
    four, one = (cv2.imread(str(tmp_path / 'sheets' / name)) for name in names[:2])
    assert four.shape[0] > 2 * one.shape[0]


def test_without_need_of_geometry_only_views_are_drawn_as_the_config_says(browse, tmp_path):
    config = tmp_path / 'densecl.py'
    config.write_text(f"""
_base_ = ['{ROOT}/{DEMO}']
model = dict(_delete_=True, type='DenseCL', backbone=dict(type='ResNet', depth=18),
             neck=dict(type='DenseCLNeck', in_channels=512, hid_channels=512, out_channels=128))
""")
    done = browse(str(config), '--n', '2', '--cfg-options',
                  'dataset.recipe.steps.gray={"type": "Grayscale", "p": 1}')
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / 'sheets').iterdir()] == ['views_01.png']
    sheet = cv2.imread(str(tmp_path / 'sheets' / 'views_01.png')).astype(int)
    tile, view = (sheet[round(80 * SCALE):round(140 * SCALE),
                        round(left * SCALE):round((left + 66) * SCALE)] for left in (25, 117))
    colour = [abs(image[..., 0] - image[..., 2]).mean() for image in (tile, view)]
    assert colour[0] > 5 and colour[1] < 1  # the tile is not grey, its view is


def test_the_settings_of_a_method_say_whether_it_matches(browse, tmp_path):
    tiles = 'dataset.source.root=data/demo/kather2016'
    for config, sheets in (('DINO/r18_small', ['views_01.png']),
                           ('DINO/r18_small_plm', ['matches_01.png', 'views_01.png'])):
        done = browse(config, '--n', '2', '--cfg-options', tiles)
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in (tmp_path / 'sheets').iterdir()) == sheets


def test_distorted_views_are_drawn_of_whoever_trains_on_them(browse, tmp_path):
    distorted = ['--n', '2', '--cfg-options', 'dataset.source.root=data/demo/kather2016',
                 'dataset.recipe.steps.elastic={"type": "ElasticDistortion"}']
    done = browse('VICRegL/r18_small', *distorted, 'model.alpha=1')
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / 'sheets').iterdir()] == ['views_01.png']
    done = browse('VICRegL/r18_small', *distorted)
    assert done.returncode == 2 and 'nothing to match: these steps distort' in done.stderr


def test_what_stops_the_method_as_it_is_built_is_told_behind_the_views(browse, tmp_path):
    done = browse(DEMO, '--n', '2', '--cfg-options', 'model.neck.in_channels=3')
    assert done.returncode == 2 and 'model.neck' in done.stderr
    assert 'Traceback' not in done.stderr and (tmp_path / 'sheets/views_01.png').exists()


def test_a_mistake_is_one_sentence(browse, tmp_path):
    done = browse(DEMO, '--cfg-options', 'dataset.recipe.steps.crop.scal=1')
    assert done.returncode == 2 and "'scale'" in done.stderr
    assert 'Traceback' not in done.stderr and not (tmp_path / 'sheets').exists()
