"""GlaS, CRAG, MoNuSeg and synthetic glands: every pixel arrives, oddities are told by file."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from openselfsup.archives import unpack
from openselfsup.datasets.prepare import check, glands, nuclei, synthetic
from openselfsup.datasets.prepare.instances import (
    annotations_of,
    decode,
    instance_map,
    read_instance_map,
)
from openselfsup.datasets.prepare.report import Report
from openselfsup.errors import UserError
from openselfsup.files import read_json

ROOT = Path(__file__).resolve().parents[3]
MONUSEG = ROOT.parent / 'shared' / 'data' / 'monuseg'


@pytest.fixture(scope='module')
def official(tmp_path_factory) -> Path:
    return synthetic.write_glas_layout(tmp_path_factory.mktemp('glas'), (4, 2, 1), size=96)


def test_synthetic_images_are_reproducible_and_their_objects_differ_from_stroma():
    image, ids = synthetic.draw_glands(96, np.random.default_rng(3))
    again, _ = synthetic.draw_glands(96, np.random.default_rng(3))
    assert (image == again).all()
    assert sorted(np.unique(ids)) == list(range(ids.max() + 1)) and ids.max() >= 2
    # Basal nuclei: the rim of every gland is darker than the stroma.
    for instance in range(1, ids.max() + 1):
        mask = (ids == instance).astype(np.uint8)
        rim = mask - cv2.erode(mask, np.ones((5, 5)), borderValue=1)
        assert image[rim > 0].mean() < image[ids == 0].mean() - 25


def test_glas_becomes_coco_without_losing_a_pixel(official, tmp_path):
    report = Report('GlaS')
    glands.prepare_glas(official, tmp_path, report)
    assert not report.problems and not report.notes
    for split, subsets in (('train', ['train']), ('test', ['testA', 'testB'])):
        content = read_json(tmp_path / 'GlaS' / 'annotations' / f'{split}.json')
        by_image = {i['id']: [a for a in content['annotations'] if a['image_id'] == i['id']]
                    for i in content['images']}
        for image in content['images']:
            stem = Path(image['file_name']).stem
            truth = np.asarray(Image.open(official / f'{stem}_anno.bmp')).astype(int)
            assert (instance_map(by_image[image['id']], 96, 96) == truth).all()
            copied = tmp_path / 'GlaS' / split / image['file_name']
            assert copied.read_bytes() == (official / image['file_name']).read_bytes()
        ids = [i['id'] for i in content['images']]
        parts = [read_json(tmp_path / 'GlaS' / 'annotations' / f'{s}.json') for s in subsets]
        assert sorted(i['id'] for p in parts for i in p['images']) == ids
    found = Report('check')
    check.check_coco(tmp_path / 'GlaS', found)
    assert not found.problems


def test_preparing_again_copies_nothing_and_gives_the_same(official, tmp_path):
    def prepared() -> tuple[int, bytes]:
        glands.prepare_glas(official, tmp_path, Report('GlaS'))
        return ((tmp_path / 'GlaS/train/train_1.bmp').stat().st_ino,
                (tmp_path / 'GlaS/annotations/train.json').read_bytes())
    assert prepared() == prepared()


def test_odd_cases_are_reported_by_file(official, tmp_path):
    src = tmp_path / 'src'
    src.mkdir()
    for path in official.iterdir():
        (src / path.name).write_bytes(path.read_bytes())
    (src / 'train_1_anno.bmp').unlink()
    (src / 'testA_1.bmp').unlink()
    ids = np.array(Image.open(src / 'train_2_anno.bmp'))
    ids[:] = 0
    ids[2:9, 2:9] = ids[40:50, 40:50] = 7  # two pieces of one object
    Image.fromarray(ids).save(src / 'train_2_anno.bmp')
    Image.fromarray(ids[:90]).save(src / 'train_3_anno.bmp')
    report = Report('GlaS')
    glands.prepare_glas(src, tmp_path / 'dst', report)
    problems = '\n'.join(report.problems)
    assert 'train_1.bmp: its labels' in problems and 'testA_1_anno.bmp: its image' in problems
    assert 'train_3_anno.bmp: is 96 x 90 px, its image train_3.bmp is 96 x 96' in problems
    assert [n for n in report.notes if 'train_2_anno.bmp: object 7 lies in 2 pieces' in n]
    content = read_json(tmp_path / 'dst/GlaS/annotations/train.json')
    assert [i['file_name'] for i in content['images']] == ['train_2.bmp', 'train_4.bmp']
    (two_pieces,) = [a for a in content['annotations'] if a['image_id'] == 1]
    assert two_pieces['area'] == 149 and two_pieces['bbox'] == [2, 2, 48, 48]


def test_counts_of_the_real_dataset_are_expected_unless_synthetic(official, tmp_path):
    src = tmp_path / 'src'
    src.mkdir()
    for path in official.iterdir():
        if path.name != synthetic.MARKER:
            (src / path.name).write_bytes(path.read_bytes())
    report = Report('GlaS')
    glands.prepare_glas(src, tmp_path / 'dst', report)
    assert 'GlaS: 4 train images, the published dataset has 85' in report.notes


@pytest.mark.parametrize('test_name, folder', [('test', 'Annotation'), ('valid', 'Annotations')])
def test_both_layouts_of_crag(official, tmp_path, test_name, folder):
    src = tmp_path / 'CRAG'
    if test_name == 'test':
        (src / 'valid').mkdir(parents=True)
    for split, stem in (('train', 'train'), (test_name, 'testA')):
        for sub in ('Images', folder, 'Overlay'):
            (src / split / sub).mkdir(parents=True)
        for i in (1, 2):
            Image.open(official / f'{stem}_{i}.bmp').save(src / split / 'Images' / f'{i}.png')
            Image.open(official / f'{stem}_{i}_anno.bmp').save(src / split / folder / f'{i}.png')
    report = Report('CRAG')
    glands.prepare_crag(src, tmp_path, report)
    assert not report.problems
    assert (f'{src}: valid passed over: test is test' in report.notes) == (test_name == 'test')
    assert len(read_json(tmp_path / 'CRAG/annotations/test.json')['images']) == 2


def test_16_bit_palette_and_rgb_labels_keep_their_ids(tmp_path):
    ids = np.zeros((40, 50), np.uint16)
    ids[3:9, 3:9], ids[20:30, 20:30] = 300, 65535
    Image.fromarray(ids).save(tmp_path / 'wide.png')
    assert (read_instance_map(tmp_path / 'wide.png') == ids).all()
    small = (ids > 0).astype(np.uint8) * 9
    palette = Image.fromarray(small, mode='P')
    palette.putpalette([255 - i // 3 for i in range(768)])
    palette.save(tmp_path / 'palette.bmp')
    assert (read_instance_map(tmp_path / 'palette.bmp') == small).all()
    Image.fromarray(np.stack([small] * 3, -1)).save(tmp_path / 'rgb.png')
    assert (read_instance_map(tmp_path / 'rgb.png') == small).all()
    Image.fromarray(np.stack([small, small, small * 2], -1)).save(tmp_path / 'colours.png')
    with pytest.raises(UserError, match='colours.png: its colours are no instance ids'):
        read_instance_map(tmp_path / 'colours.png')


def test_polygons_lose_holes_and_run_lengths_do_not():
    ids = np.zeros((30, 30), np.int32)
    ids[5:25, 5:25], ids[12:18, 12:18] = 1, 0
    (rle,) = annotations_of(ids, 1)
    (polygon,) = annotations_of(ids, 1, 'polygon')
    assert (decode(rle['segmentation'], 30, 30) == (ids > 0)).all()
    filled = decode(polygon['segmentation'], 30, 30)
    assert filled[12:18, 12:18].all() and filled.sum() == 400


def test_check_finds_what_was_spoilt(official, tmp_path):
    glands.prepare_glas(official, tmp_path, Report('GlaS'))
    folder = tmp_path / 'GlaS'
    path = folder / 'annotations' / 'train.json'
    content = read_json(path)
    content['annotations'][0]['area'] += 1
    content['annotations'][1]['image_id'] = 99
    path.write_text(json.dumps(content))
    (folder / 'train' / 'train_2.bmp').unlink()
    (folder / 'train' / 'train_3.bmp').write_bytes((folder / 'test/testA_1.bmp').read_bytes())
    report = Report('check')
    check.check_coco(folder, report)
    problems = '\n'.join(report.problems)
    for word in ('is of no image', 'train_2.bmp', 'are the same image'):
        assert word in problems, problems
    assert [note for note in report.notes if 'has area other than its mask' in note]


def test_polygons_of_the_challenge_fill_nuclei(tmp_path):
    regions = ''
    for corners in (((2, 3), (9, 3), (9, 8), (2, 8)), ((20, 20), (21, 20)),
                    ((15, 15), (18, 15), (18, 18))):
        vertices = ''.join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners)
        regions += f'<Region><Vertices>{vertices}</Vertices></Region>'
    (tmp_path / 'a.xml').write_text(
        f'<Annotations><Annotation><Regions>{regions}</Regions></Annotation></Annotations>')
    ids = nuclei.draw_polygons(tmp_path / 'a.xml', 30, 40)
    assert (ids == 1).sum() == 7 * 5 and ids.max() == 2 and ids[15, 16] == 2
    assert ids[3:8, 2:9].all()  # poly2mask: the centre of pixel 0 lies at 1


def test_the_first_of_nuclei_has_the_pixels_and_areas_are_those_of_the_polygons(tmp_path):
    def drawn(*polygons):
        regions = ''.join('<Region>' + ''.join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in polygon)
                          + '</Region>' for polygon in polygons)
        (tmp_path / 'a.xml').write_text(f'<A>{regions}</A>')
        return nuclei.draw_polygons(tmp_path / 'a.xml', 80, 80)

    def square(left, top, side):
        return [(left, top), (left + side, top), (left + side, top + side), (left, top + side)]
    found = drawn(square(10, 10, 10), square(15, 10, 10), square(25, 10, 10))
    assert [int((found == i).sum()) for i in (1, 2, 3)] == [100, 50, 100]
    for radius in (5, 10, 15):
        angles = np.linspace(0, 2 * np.pi, 60)
        circle = np.stack([40.3 + radius * np.cos(angles), 40.7 + radius * np.sin(angles)], 1)
        assert drawn(circle).sum() == pytest.approx(np.pi * radius ** 2, rel=0.04)


@pytest.mark.parametrize('vertex, told', [
    ('X="1"', 'without numbers X and Y'), ('X="a" Y="2"', 'without numbers X and Y'),
    ('X="nan" Y="2"', 'far from the image'), ('X="1e300" Y="2"', 'far from the image')])
def test_polygons_that_are_none_are_told_by_file_and_the_others_are_prepared(tmp_path, vertex,
                                                                            told):
    good = ''.join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in ((2, 3), (9, 3), (9, 8)))
    for kind in ('images', 'Annotations'):
        (tmp_path / 'src' / kind).mkdir(parents=True)
    for i in range(4):
        Image.new('RGB', (40, 40), (i, i, i)).save(tmp_path / 'src' / 'images' / f'{i}.png')
        bad = f'<Vertex {vertex}/>' if i == 0 else ''
        (tmp_path / 'src' / 'Annotations' / f'{i}.xml').write_text(
            f'<A><Region>{good}{bad}</Region></A>')
    report = Report('MoNuSeg')
    nuclei.prepare_monuseg(tmp_path / 'src', tmp_path, report, val=0.5)
    assert f'0.xml: region 1 has a vertex {told}' in report.problems[0]
    assert len(read_json(tmp_path / 'MoNuSeg/annotations/train.json')['images']) == 2


def test_images_of_one_name_in_two_folders_do_not_replace_each_other(official, tmp_path):
    src = tmp_path / 'src'
    for sub, number in (('a', 1), ('b', 2)):
        for kind, end in (('images', ''), ('instances', '_anno')):
            (src / sub / kind).mkdir(parents=True, exist_ok=True)
            Image.open(official / f'train_{number}{end}.bmp').save(src / sub / kind / '1.png')
    for i in (3, 4):
        Image.open(official / f'train_{i}.bmp').save(src / 'a' / 'images' / f'{i}.png')
        Image.open(official / f'train_{i}_anno.bmp').save(src / 'a' / 'instances' / f'{i}.png')
    report = Report('MoNuSeg')
    nuclei.prepare_monuseg(src, tmp_path, report, val=0.5)
    told = '\n'.join(report.problems)
    assert f"a/images/1.png: has the name of {src / 'b/images/1.png'}; all are left out" in told
    found = Report('check')
    check.check_coco(tmp_path / 'MoNuSeg', found)
    assert not found.problems
    assert not list((tmp_path / 'MoNuSeg').rglob('1.png'))


@pytest.fixture(scope='module')
def ten_nuclei(tmp_path_factory):
    src = tmp_path_factory.mktemp('nuclei')
    for kind, image in (('images', Image.new('RGB', (40, 40))),
                        ('instances', Image.fromarray(np.eye(40, dtype=np.uint8)))):
        (src / kind).mkdir()
        for i in range(10):
            image.save(src / kind / f'{i}.png')
    return src


@pytest.mark.parametrize('val, test', [
    (0.5, '13579'), (0.2, '49'), (1 / 3, '258'), (0.1, '9'), (0.4, '2479'), (0.8, '12346789'),
    (0.9, '123456789')])
def test_every_share_is_kept(ten_nuclei, tmp_path, val, test):
    nuclei.prepare_monuseg(ten_nuclei, tmp_path, Report('MoNuSeg'), val=val)
    found = {s: ''.join(image['file_name'][0] for image in read_json(
        tmp_path / f'MoNuSeg/annotations/{s}.json')['images']) for s in ('train', 'test')}
    assert found == dict(test=test, train=''.join(i for i in '0123456789' if i not in test))


def test_no_share_and_one_that_leaves_no_image(ten_nuclei, tmp_path):
    with pytest.raises(UserError, match='--val 0.05: of 10 images none is left for test'):
        nuclei.prepare_monuseg(ten_nuclei, tmp_path, Report('MoNuSeg'), val=0.05)
    with pytest.raises(UserError, match='--val 0.9999: of 10 images none is left for train'):
        nuclei.prepare_monuseg(ten_nuclei, tmp_path, Report('MoNuSeg'), val=0.9999)
    assert not list(tmp_path.iterdir())
    nuclei.prepare_monuseg(ten_nuclei, tmp_path, Report('MoNuSeg'), val=0)
    assert {path.name for path in (tmp_path / 'MoNuSeg/annotations').iterdir()} == {'train.json'}
    assert len(read_json(tmp_path / 'MoNuSeg/annotations/train.json')['images']) == 10
    nuclei.prepare_monuseg(ten_nuclei, tmp_path, Report('MoNuSeg'))
    with pytest.raises(UserError, match='an earlier run that held images out'):
        nuclei.prepare_monuseg(ten_nuclei, tmp_path, Report('MoNuSeg'), val=0)


@pytest.mark.skipif(not MONUSEG.is_dir(), reason='MoNuSeg may not ship with the project')
def test_real_nuclei(tmp_path):
    report = Report('MoNuSeg')
    nuclei.prepare_monuseg(MONUSEG, tmp_path, report)
    counts = [len(read_json(tmp_path / f'MoNuSeg/annotations/{s}.json')['annotations'])
              for s in ('train', 'test')]
    assert sum(counts) == 4949 and min(counts) > 0
    assert len(report.problems) == 17  # images without labels


def test_the_tool_end_to_end_from_an_archive(official, tmp_path, tool):
    import shutil
    archive = shutil.make_archive(str(tmp_path / 'warwick'), 'zip', official)
    script = 'tools/prepare_data.py', 'glas'
    done = tool(*script, archive, tmp_path / 'ds')
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / 'ds').iterdir()} == {'GlaS'}
    done = tool(*script, tmp_path / 'ds', '--check')
    assert done.returncode == 0 and 'train.json: 4 images' in done.stdout
    done = tool(*script, tmp_path / 'ds', tmp_path / 'x', '--demo')
    assert done.returncode == 2 and 'something else than synthetic' in done.stderr


def test_archives_with_a_wrong_checksum_or_a_path_outside_are_refused(tmp_path):
    import zipfile
    with zipfile.ZipFile(tmp_path / 'evil.zip', 'w') as file:
        file.writestr('../out.txt', 'x')
    with pytest.raises(UserError, match='outside of the folder'):
        unpack(tmp_path / 'evil.zip', tmp_path / 'in')
    assert not (tmp_path / 'out.txt').exists()
    with pytest.raises(UserError, match='MD5 checksum'):
        unpack(tmp_path / 'evil.zip', tmp_path / 'in', known_md5='0' * 32)
    (tmp_path / 'cut.zip').write_bytes((tmp_path / 'evil.zip').read_bytes()[:40])
    with pytest.raises(UserError, match='damaged'):
        unpack(tmp_path / 'cut.zip', tmp_path / 'in')
