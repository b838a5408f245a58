import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.learning import classification, dense, glands, results, supervised, table
from benchmarks.learning.__main__ import (
    check_names,
    contents,
    image_sets,
    main,
    note,
    parse,
    settle,
)
from benchmarks.learning.classification import answers, answers_file, questions
from benchmarks.learning.networks import (
    RESNET18,
    Network,
    check_starts,
    find_networks,
    network_of,
)
from benchmarks.learning.pretraining import (
    CONFIGS,
    Budget,
    Start,
    check_tiles,
    command,
    find_configs,
    find_starts,
    pretrain,
)
from benchmarks.learning.study import Study
from benchmarks.learning.tissue import few, parts
from openselfsup.datasets.prepare.instances import encode
from openselfsup.datasets.prepare.synthetic import write_glas_layout
from openselfsup.errors import UserError
from openselfsup.evaluation.baselines import COLOUR_STATISTICS
from openselfsup.training.normalization import IMAGENET_MEAN, IMAGENET_STD
from openselfsup.transfer.instance.metrics import evaluate_instances

REPO = Path(__file__).resolve().parents[2]
TINY_VIT = dict(type='TimmBackbone', model='vit_tiny_patch16_224', embed_dim=32, depth=2,
                num_heads=1, img_size=48)
CLASSES = ('Polyp', 'Serrated_adenoma', 'Normal', 'High-grade_IN', 'Adenocarcinoma')


@pytest.fixture(scope='module')
def tissue(tmp_path_factory):
    """Tiles of 40 cases whose classes differ in colour and in the stripes of a part of them."""
    root, rng = tmp_path_factory.mktemp('tissue'), np.random.default_rng(0)
    for part, cases in (('train', range(24)), ('test', range(24, 40))):
        for case in cases:
            name = CLASSES[case % len(CLASSES)]
            for tile in range(3):
                pixels = rng.normal(100 + 25 * (case % len(CLASSES)), 20, (48, 48, 3))
                mask = np.zeros((48, 48), np.uint8)
                mask[:, 12:36] = 255
                pixels[mask > 0] -= 60
                for folder, image in (('', pixels.clip(0, 255).astype(np.uint8)),
                                      ('masks', mask)):
                    path = root / folder / part / name / f'GTx{case}-1-400-{tile:03d}.png'
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(image).save(path)
    return root


def test_merged_classes_come_first_and_cases_stay_whole(tissue):
    learn, test = parts(tissue, final=True)
    assert list(learn.labels) == ['3 classes', '5 classes']
    assert len(learn.indices) == 72 and len(set(test.cases)) == 16
    kept, held = parts(tissue, final=False)
    assert not set(kept.cases) & set(held.cases)
    assert len(kept.indices) + len(held.indices) == 72  # nothing of the test
    assert set(kept.labels['3 classes']) == set(held.labels['3 classes']) == {0, 1, 2}


def test_a_case_in_both_parts_is_refused(tissue, tmp_path):
    for part in ('train', 'test'):
        folder = tmp_path / part / 'Normal'
        folder.mkdir(parents=True)
        for case in (1, 2):
            Image.new('RGB', (48, 48)).save(folder / f'GT{case}-1-400-001.png')
    with pytest.raises(UserError, match='2 cases are in both parts, such as 1'):
        parts(tmp_path, final=True)
    with pytest.raises(UserError, match='no training tiles.*train/CLASS'):
        parts(tmp_path / 'nowhere', final=False)


def stripes(root, folders):
    """Write a tile of each case, all of them different: cases by folder, such as 'train/Normal'."""
    for folder, cases in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for case in cases:
            pixels = np.random.default_rng(case).integers(256, size=(32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f'GT{case}-1-400-001.png')


def test_classes_of_both_parts_are_the_same_by_name(tmp_path):
    stripes(tmp_path / 'a', {'train/Adenoma': (1, 2), 'train/Normal': (3, 4), 'train/Polyp': (5, 6),
                             'test/Normal': (7, 8), 'test/Polyp': (9,)})
    learn, test = parts(tmp_path / 'a', final=True)
    assert learn.labels['3 classes'].tolist() == [0, 0, 1, 1, 2, 2]
    assert list(test.labels) == ['3 classes'] and test.labels['3 classes'].tolist() == [1, 1, 2]
    stripes(tmp_path / 'a', {'test/Adenome': (10,)})
    with pytest.raises(UserError, match="'Adenome' is none of the classes.*did you mean 'Adenoma'"):
        parts(tmp_path / 'a', final=True)


def test_a_rare_part_of_a_merged_class_is_learnt(tmp_path):
    stripes(tmp_path, {'train/Normal': range(6), 'train/Polyp': range(6, 12),
                       'train/Serrated_adenoma': (12,)})
    for seed in range(12):
        learn, test = parts(tmp_path, final=False, seed=seed)
        for name, labels in learn.labels.items():
            assert len(set(labels)) == int(name.split()[0])
        assert len(test.indices)


def test_tiles_that_test_nothing_are_refused(tmp_path):
    stripes(tmp_path / 'a', {'train/Normal': (1,), 'train/Polyp': (2,)})
    with pytest.raises(UserError, match='a/train: no case can be held out.*two cases or more'):
        parts(tmp_path / 'a', final=False)
    stripes(tmp_path / 'b', {'train/Normal': (1, 2), 'train/Polyp': (3, 4), 'test/Polyp': (5,)})
    (tmp_path / 'b/test/Normal').mkdir()
    shutil.copy(tmp_path / 'b/train/Normal/GT1-1-400-001.png',
                tmp_path / 'b/test/Normal/GT6-1-400-001.png')
    with pytest.raises(UserError, match='1 of 2 test tiles are byte for byte training tiles, such '
                                        'as .*test/Normal/GT6'):
        parts(tmp_path / 'b', final=True)
    shutil.copytree(tmp_path / 'b/train', tmp_path / 'c/train')
    for case in range(1, 5):  # each tile again, under another case
        folder = tmp_path / 'c/train' / ('Normal' if case < 3 else 'Polyp')
        shutil.copy(folder / f'GT{case}-1-400-001.png', folder / f'GT{case + 10}-1-400-001.png')
    for seed in range(12):
        try:
            learn, test = parts(tmp_path / 'c', final=False, seed=seed)
        except UserError as error:
            assert 'copies of the tiles of others' in str(error)
            continue
        assert not ({Path(learn.source.path(i)).read_bytes() for i in learn.indices}
                    & {Path(test.source.path(i)).read_bytes() for i in test.indices})


def test_cases_are_found_as_the_pattern_says(tissue, tmp_path):
    for path in tissue.rglob('*.png'):
        other = tmp_path / str(path.relative_to(tissue)).replace('GTx', 'S-')
        other.parent.mkdir(parents=True, exist_ok=True)
        other.symlink_to(path)
    pattern = r'/S-(\d+)-'
    for final in (False, True):
        for found, expected in zip(parts(tmp_path, final, pattern), parts(tissue, final)):
            assert [f'x{case}' for case in found.cases] == list(expected.cases)
        masks = dense.find_masks(tmp_path, final, pattern)
        assert [f'x{case}' for case in masks.test_patients] == list(
            dense.find_masks(tissue, final).test_patients)
    for read in (parts, dense.find_masks):
        with pytest.raises(UserError, match='--patient_pattern: .*GT.* finds no patient in 72 of '
                                            '72 paths, such as .*/S-.*png; expected'):
            read(tmp_path, final=False)


def test_few_labels_are_at_least_five_of_each_class():
    labels = np.repeat([0, 1, 2], [200, 40, 3])
    chosen = few(labels, 0.05, 0)
    assert np.bincount(labels[chosen]).tolist() == [10, 5, 3]
    assert set(chosen) <= set(few(labels, 0.2, 0))  # a larger share contains a smaller one


def test_a_budget_is_minutes_or_tiles():
    assert Budget.of('40min') == Budget(40, 'min') and str(Budget.of('500tiles')) == '500 tiles'
    for wrong in ('40', '0min', 'min', '3epochs'):
        with pytest.raises(UserError, match='is no budget.*40min'):
            Budget.of(wrong)


def test_methods_are_named_once():
    assert find_configs([], ['mine=a.py']) == {'mine': 'a.py'}
    assert find_configs([], ['plm_long=mine.py'])  # the example of the message below
    assert answers_file(REPO, 'a_b', 0) != answers_file(REPO, 'a-b', 0)
    with pytest.raises(UserError, match='such as plm_long=mine.py'):
        find_configs([], ['a/b=mine.py'])
    with pytest.raises(UserError, match="called 'simclear'.*did you mean 'simclr'"):
        find_configs(['simclear'], [])
    with pytest.raises(UserError, match="'simclr=b.py' is no new name"):
        find_configs(['simclr'], ['simclr=b.py'])


def test_every_small_config_can_be_named():
    shipped = {f'{path.parent.name}/r18_small' for path in REPO.glob('configs/*/r18_small.py')}
    assert shipped and set(CONFIGS.values()) == shipped
    named = find_configs(list(CONFIGS), [])
    found = find_networks(named, {name: ['dataset.source.root=x'] for name in named}, 80)
    assert all(found[name] is RESNET18 for name in named)


def test_a_budget_that_ends_before_the_backbone_learns_is_refused(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr('benchmarks.learning.pretraining.command', lambda *of: ran.append(of))
    (tmp_path / 'plan.json').write_text('{"epochs": 1}')
    with pytest.raises(UserError, match='5 tiles, is 1 epoch.*heads learn alone for 1: the'):
        pretrain('DINOv2/vits14_continue_1gpu', tmp_path, 0, Budget.of('5tiles'), [], 'cpu')
    assert not ran
    pretrain('DINOv2/vits14_continue_1gpu', tmp_path, 0, Budget.of('5tiles'),
             ['model.heads_only_epochs=0.5'], 'cpu')
    assert len(ran) == 1


def test_tiles_of_the_study_are_given_to_its_own_methods_alone(tissue, tmp_path, monkeypatch):
    given = {}

    def pretrained(config, folder, seed, budget, options, device, start):
        given[folder.name] = options
        RESNET18.write_untrained(path := folder.with_suffix('.pth'), 0)
        return path

    monkeypatch.setattr('benchmarks.learning.__main__.pretrain', pretrained)
    monkeypatch.setattr('benchmarks.learning.__main__.answer', lambda *_: None)
    (tmp_path / 'own.py').write_text(
        f"_base_ = '{REPO}/configs/SimCLR/r18_small.py'\n"
        f"dataset = dict(source=dict(root='{tissue / 'train'}'))\n")
    monkeypatch.setattr('sys.argv', [
        'study', '--data', str(tissue), '--methods', 'moco', '--config',
        f'simclr={tmp_path / "own.py"}', '--seeds', '1', '--out',
        str(tmp_path / 'out'), '--cfg-options', 'epochs=3'])
    main()
    assert given == dict(moco_0=[f'dataset.source.root={tissue / "train"}', 'epochs=3'],
                         simclr_0=['epochs=3'])


def test_a_method_goes_on_from_one_that_ran_before():
    configs = {'simclr': 'a.py', 'plm': 'b.py', 'more': 'c.py'}
    assert find_starts(['plm=simclr', 'more=plm:3min'], configs) == {
        'plm': Start('simclr', None), 'more': Start('plm', Budget(3, 'min'))}
    for wrong in ('simclr=plm', 'plm=plm', 'plm', 'plm=simclear', 'other=simclr'):
        with pytest.raises(UserError, match='does not name two methods.*NAME=METHOD'):
            find_starts([wrong], configs)
    with pytest.raises(UserError, match="'soon' is no budget"):
        find_starts(['plm=simclr:soon'], configs)


def test_a_start_from_another_kind_of_backbone_is_refused_before_anything_runs(tmp_path):
    (tmp_path / 'vit.py').write_text(f"_base_ = '{REPO}/configs/MoCo/r18_small.py'\n"
                                     f'model = dict(backbone=dict(_delete_=True, **{TINY_VIT}))\n')
    configs = dict(moco='MoCo/r18_small', vit=str(tmp_path / 'vit.py'), plm='PLM_SSL/r18_small')
    networks = find_networks(configs, dict.fromkeys(configs, []), 48)
    check_starts(dict(plm=Start('moco', None)), networks)
    with pytest.raises(UserError, match='--after plm=vit: plm cannot start from the backbone of '
                                        'vit: nothing in.*same kind.*such as moco'):
        check_starts(dict(plm=Start('vit', None)), networks)
    with pytest.raises(UserError, match='vit cannot start.*of moco.*this study has none'):
        check_starts(dict(vit=Start('moco', None)), networks)


def test_configs_without_their_tiles_are_refused_before_anything_runs(tissue):
    config = str(REPO / 'configs/demo/plm_r18.py')
    check_tiles(dict(mine=config), dict(mine=[f'dataset.source.root={tissue / "train"}']))
    with pytest.raises(UserError, match='plm_r18.py: the tiles of mine: /no: no such folder; '
                                        'expected tiles, which --cfg-options dataset.source.root'):
        check_tiles(dict(mine=config), dict(mine=['dataset.source.root=/no']))


def test_a_command_that_fails_says_its_own_sentence(tissue, tmp_path):
    log = tmp_path / 'rate.log'
    log.write_text('error: of an earlier start\n')
    with pytest.raises(UserError) as told:
        command([sys.executable, '-m', 'benchmarks.learning.rate',
                 str(REPO / 'configs/demo/plm_r18.py'), str(tmp_path / 'rate.json'),
                 'dataset.source.root=/no'], log, 'cpu')
    assert str(told.value).startswith(f'{log}: /no: no such folder')
    assert 'Traceback' not in log.read_text()
    with pytest.raises(UserError, match='failed with status 3: a / b; expected a command that'):
        command([sys.executable, '-c', "print('a'), print('b'), exit(3)"], log, 'cpu')


def test_random_weights_see_images_as_the_methods_do(tissue, tmp_path, monkeypatch):
    options = dict(moco=[], other=['normalize={"mean": [0.7, 0.5, 0.6], "std": [0.2, 0.3, 0.1]}'])
    configs = dict.fromkeys(options, 'MoCo/r18_small')
    networks = find_networks(configs, options, 48)
    assert {name: one.name for name, one in networks.items()} == {
        'moco': 'random init', 'other': 'random init of other', 'random init': 'random init',
        'random init of other': 'random init of other'}
    seen = []

    def told(backbone, data, batch_size, mean, std):
        seen.append((tuple(mean), tuple(std)))
        return torch.rand(len(data), 4)

    monkeypatch.setattr(classification, 'extract_features', told)
    networks['other'].write_untrained(path := tmp_path / 'other.pth', 0)
    tiles = parts(tissue, final=True)
    for name, checkpoint in (('random init', None), ('random init of other', None),
                             ('other', path)):
        classification.evaluate(name, networks[name], checkpoint, 0, tiles, 48, tmp_path)
    own = (0.7, 0.5, 0.6), (0.2, 0.3, 0.1)
    assert seen == [(IMAGENET_MEAN, IMAGENET_STD)] * 2 + [own] * 4
    assert glands.pixels(networks['moco'].wanted) == []
    assert glands.pixels(networks['other'].wanted) == [
        'MODEL.PIXEL_MEAN', '[178.5, 127.5, 153.0]', 'MODEL.PIXEL_STD', '[51.0, 76.5, 25.5]']


def test_what_tells_classes_apart_is_above_what_does_not(tissue, tmp_path):
    learn, test = parts(tissue, final=True)
    noise = np.random.default_rng(1)
    for name, strength in (('good', 4.), ('none', 0.)):
        for seed in range(2):
            train, held = (torch.tensor(strength * np.eye(5)[part.labels['5 classes']]
                                        + noise.normal(size=(len(part.indices), 5))).float()
                           for part in (learn, test))
            np.savez(tmp_path / f'{name}_{seed}.npz', **answers(train, held, learn, seed, False))
    read = results.by_name(tmp_path, ['good', 'none', 'absent'], 2)
    assert list(read) == ['good', 'none'] and len(read['good']) == 2
    found = results.classification(test, read)
    assert list(found) == [str(question) for question in questions(learn)]
    for values in found.values():
        told = results.estimates(values, ['none'])
        assert told['good']['none'].above and set(told['none']) == {''}
    table.write(tmp_path, {question: results.estimates(values, ['none'])
                           for question, values in found.items()}, ['none'], dict(budget='1 min'))
    text = (tmp_path / 'tables.md').read_text()
    assert '## 3 classes, linear-v1, 5 % of the labels' in text
    assert '| good | ' in text and '**+' in text
    page = (tmp_path / 'index.html').read_text()
    assert '<b>+' in page and '**' not in page
    written = json.loads((tmp_path / 'results.json').read_text())['estimates']
    assert set(written['3 classes, linear-v1, 5 % of the labels']['good']) == {'', 'none'}


def test_tables_hold_the_seeds_that_are_asked_for(tmp_path):
    for seed in range(3):
        classification.save(tmp_path / f'some_{seed}.npz', dict(answer=np.array(seed)))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        f'some_{seed}.npz' for seed in range(3)]  # nothing half written is left
    (tmp_path / 'some_2.part.npz').write_bytes(b'PK')  # of a process that was killed
    for seeds in (1, 3):
        read = results.by_name(tmp_path, ['some'], seeds)['some']
        assert [int(run['answer']) for run in read] == list(range(seeds))


def test_a_process_that_is_killed_while_it_saves_leaves_nothing_that_is_read(tmp_path):
    words = ('import os, numpy as np\n'
             'from pathlib import Path\n'
             'from benchmarks.learning import classification\n'
             'np.savez_compressed = lambda file, **_: file.write(b"PK") and os._exit(9)\n'
             f'classification.save(Path({str(tmp_path)!r}) / "some_0.npz", {{}})\n')
    assert subprocess.run([sys.executable, '-c', words], cwd=REPO).returncode == 9
    assert len(list(tmp_path.iterdir())) == 1  # the half
    assert results.by_name(tmp_path, ['some'], 3) == {}
    classification.save(tmp_path / 'some_0.npz', dict(answer=np.array(1)))
    assert [path.name for path in tmp_path.iterdir()] == ['some_0.npz']


def test_methods_are_compared_with_each_other(tmp_path):
    rng = np.random.default_rng(0)
    values = {name: 0.5 + better + rng.normal(0, 0.01, (2, 50))
              for name, better in (('colour', 0), ('a', 0.1), ('b', 0.2))}
    table.write(tmp_path, {'which': results.estimates(values, list(values))}, ['colour'], {})
    text = (tmp_path / 'tables.md').read_text()
    assert text.startswith('# Does it learn?\n')
    above, below = text.split('Row less column:')
    assert '| colour | ' in above and 'less a' not in above
    assert below.splitlines()[2] == '|  | a | b |'
    assert below.splitlines()[4].startswith('| a |  | **-') and '| **+' in below.splitlines()[5]
    page = (tmp_path / 'index.html').read_text()
    assert page.count('<table>') == 2
    written = json.loads((tmp_path / 'results.json').read_text())['estimates']['which']
    assert written['a']['b']['value'] == -written['b']['a']['value']


def test_what_labels_alone_teach_stands_beside_the_linear_probes(tissue, tmp_path):
    study = Study(tmp_path, tiles := parts(tissue, final=True), 32, epochs=1)
    alone = supervised.name_of(1)
    for name in (alone, COLOUR_STATISTICS):
        study.evaluate(name, None, 0)
    path = tmp_path / 'tiles/supervised-1-epochs-finetune-v1-_0.npz'
    answered = dict(np.load(path))
    assert list(answered) == [f'3 classes, finetune-v1, {share} % of the labels'
                              for share in (5, 20, 100)]
    for probabilities in answered.values():
        assert probabilities.shape == (len(tiles[1].indices), 3)
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    found = study.estimates([COLOUR_STATISTICS, alone])
    told = found['tiles: 3 classes, linear-v1, 5 % of the labels']
    assert list(told) == [COLOUR_STATISTICS, alone] and COLOUR_STATISTICS in told[alone]
    assert alone not in found['tiles: 3 classes, knn-v1, 5 % of the labels']
    assert alone not in found['tiles: 5 classes, linear-v1, 5 % of the labels']
    before = path.stat().st_mtime_ns
    study.evaluate(alone, None, 0)
    assert path.stat().st_mtime_ns == before


def a_vit(**more):
    return Network('random init of vit', dict(TINY_VIT, **more))


@pytest.mark.parametrize('network, expected', [
    (RESNET18, {'2, stride 8': (2,), 'last2, stride 16': (3, 4)}),
    (a_vit(), {'last2, stride 16': (1,)}),
    (a_vit(patch_size=14, img_size=28), {'last2, stride 14': (1,)}),
    (a_vit(out_indices=(0, 1)), {'2, stride 16': (2,), 'last2, stride 16': (1, 2)}),
    (Network('', dict(type='ResNet', depth=18, out_indices=(1,))), {'last2, stride 4': (1,)})])
def test_cells_are_of_the_maps_that_a_backbone_has(network, expected):
    found = network.cells(('2', 'last2'))
    assert {name: layers.numbers for name, layers in found.items()} == expected


def test_a_map_that_a_backbone_lacks_is_the_nearest_that_it_has():
    assert {name: layers.numbers for name, layers in a_vit().cells(('2+3', '4')).items()} == {
        '2+3, stride 16': (1,)}
    assert {name: layers.numbers for name, layers in RESNET18.cells(('5', '4')).items()} == {
        '4, stride 32': (4,)}


def test_each_kind_of_backbone_has_a_baseline(tmp_path):
    vit = f'backbone=dict(_delete_=True, **{TINY_VIT}'
    for name, model in (('vit', f'{vit})'), ('same', f'{vit}, drop_path=.1)'),
                        ('other', f'{vit}, patch_size=8)'), ('none', 'backbone=None'),
                        ('zero', 'backbone=dict(zero_init_residual=True)')):
        (tmp_path / f'{name}.py').write_text(
            f"_base_ = '{REPO}/configs/MoCo/r18_small.py'\nmodel = dict({model})\n")
    configs = dict(moco='MoCo/r18_small', **{name: str(tmp_path / f'{name}.py')
                                             for name in ('vit', 'same', 'other', 'zero')})
    found = find_networks(configs, dict.fromkeys(configs, []), 48)
    assert {method: network.name for method, network in found.items()} == {
        'moco': 'random init', 'vit': 'random init of vit', 'same': 'random init of vit',
        'other': 'random init of other', 'zero': 'random init of zero',
        **{name: name for name in ('random init', 'random init of vit', 'random init of other',
                                   'random init of zero')}}
    assert found['vit'].untrained(0).feature == 'mean'  # as after MoCo, not the class token
    assert [glands.detector_of(found[name]) for name in ('moco', 'vit')] == list(glands.DETECTORS)
    assert glands.detector_of(Network('', dict(type='ResNet', depth=50))) is None
    assert list(find_networks({}, {}, 50)) == ['random init']
    with pytest.raises(UserError, match='backbone'):
        find_networks(dict(none=str(tmp_path / 'none.py')), dict(none=[]), 48)
    with pytest.raises(UserError, match='tiles of 50 px.*patches of 16 px, those of vit'):
        find_networks(configs, dict.fromkeys(configs, []), 50)


def test_backbones_of_one_map_are_compared_with_what_has_their_stride(tissue, tmp_path):
    fine = Network('random init of fine', dict(TINY_VIT, patch_size=14, img_size=28))
    paths = {}
    for name, network in (('vit', a_vit()), ('fine', fine), ('resnet', RESNET18)):
        network.write_untrained(paths.setdefault(name, tmp_path / f'{name}.pth'), 7)
        assert network_of(paths[name]).kind == network.kind
    tiles, images = parts(tissue, final=True), dict(glands=dense.find_masks(tissue, final=True))

    def evaluate(networks):
        networks = networks | {one.name: one for one in networks.values()}
        study = Study(tmp_path / 'study', tiles, 112, networks, images)
        names = [COLOUR_STATISTICS, *networks]
        for name in names:
            study.evaluate(name, paths.get(name), 0)
        return {question: list(rows) for question, rows in study.estimates(names).items()
                if 'dense-knn-v1' in question}

    assert evaluate(dict(vit=a_vit())) == {
        'glands: dense-knn-v1, last2, stride 16': [COLOUR_STATISTICS, 'vit', 'random init of vit']}
    answered = (tmp_path / 'study/glands/vit_0.npz').stat().st_mtime_ns
    before = dict(np.load(tmp_path / 'study/glands/colour-mean-sd_0.npz'))
    assert evaluate(dict(vit=a_vit(), fine=fine, resnet=RESNET18)) == {
        'glands: dense-knn-v1, last2, stride 16': [
            COLOUR_STATISTICS, 'vit', 'resnet', 'random init of vit', 'random init'],
        'glands: dense-knn-v1, last2, stride 14': [
            COLOUR_STATISTICS, 'fine', 'random init of fine'],
        'glands: dense-knn-v1, 2, stride 8': [COLOUR_STATISTICS, 'resnet', 'random init']}
    assert (tmp_path / 'study/glands/vit_0.npz').stat().st_mtime_ns == answered
    after = dict(np.load(tmp_path / 'study/glands/colour-mean-sd_0.npz'))
    assert len(after) == 3 * len(before)
    assert all((after[key] == before[key]).all() for key in before)


def test_features_and_cells_are_computed_on_the_device(tissue, tmp_path, monkeypatch):
    there = []

    def told(backbone, *_, **__):
        there.append(next(backbone.parameters()).device.type)
        raise StopIteration

    monkeypatch.setattr('benchmarks.learning.networks.device_of',
                        lambda device: torch.device({'cuda': 'meta', 'cpu': 'cpu'}[device]))
    tiles, images = parts(tissue, final=True), dense.find_masks(tissue, final=True)
    study = Study(tmp_path, tiles, 48, dict(vit=a_vit()), dict(glands=images), device='cuda')
    for computes in ('classification.extract_features', 'dense.measure'):
        with monkeypatch.context() as patched, pytest.raises(StopIteration):
            patched.setattr(f'benchmarks.learning.{computes}', told)
            study.evaluate('vit', None, 0)
        classification.evaluate('vit', a_vit(), None, 0, tiles, 48, tmp_path / 'tiles')
    assert there == ['meta', 'meta']


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_a_gpu_answers_as_the_cpu_does(tissue, tmp_path):
    tiles, images = parts(tissue, final=True), dense.find_masks(tissue, final=True)
    for device in ('cpu', 'cuda'):
        study = Study(tmp_path / device, tiles, 48, dict(vit=a_vit()), dict(glands=images),
                      device=device)
        study.evaluate('vit', None, 0)
    for path in (tmp_path / 'cpu').rglob('*.npz'):
        found = np.load(tmp_path / 'cuda' / path.relative_to(tmp_path / 'cpu'))
        for question, answer in np.load(path).items():
            if 'dense' in question:  # pixels may change sides
                total = np.abs(answer.astype(int) - found[question]).sum()
                assert total < 0.02 * answer.sum(), question
            else:
                np.testing.assert_allclose(found[question], answer, atol=0.02)


@pytest.mark.slow
def test_labels_alone_teach_what_they_can(tmp_path):
    colours = dict(zip(CLASSES, ((200, 40, 40), (200, 40, 40), (40, 200, 40), (40, 40, 200),
                                 (40, 40, 200))))  # one colour for classes that count as one
    for part, cases in (('train', range(20)), ('test', range(20, 30))):
        for case in cases:
            name = CLASSES[case % len(CLASSES)]
            for tile in range(4):
                path = tmp_path / part / name / f'GTx{case}-1-400-{tile:03d}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                image = Image.new('RGB', (32, 32), colours[name])
                image.putpixel((tile, case), (0, 0, 0))  # none is a copy of another
                image.save(path)
    tiles = parts(tmp_path, final=True)
    supervised.evaluate(0, tiles, 32, 5, tmp_path)
    found = dict(np.load(tmp_path / 'supervised-5-epochs-finetune-v1-_0.npz'))
    right = found['3 classes, finetune-v1, 100 % of the labels'].argmax(1) == tiles[1].labels[
        '3 classes']
    assert right.mean() > 0.8


def test_found_glands_are_scored_image_by_image(tmp_path):
    rng, annotations, found = np.random.default_rng(0), [], []
    for image in range(4):
        for corner in (0, 20):
            masks = np.zeros((2, 40, 40), bool)
            masks[0, corner:corner + 16, 2:18] = True
            y, x = rng.integers(0, 5, 2)
            masks[1, corner + y:corner + y + 14, x:x + 16] = True
            true, drawn = map(encode, masks)
            annotations.append(dict(image_id=image, category_id=1, segmentation=true, area=256))
            found.append(dict(image_id=image, category_id=1, segmentation=drawn,
                              bbox=[int(x), corner + int(y), 16, 14],
                              score=0.6 + 0.05 * image + corner / 1000))
    for annotation in annotations:
        annotation['bbox'] = [2, 0, 16, 16]
    truth = dict(images=[dict(id=i, file_name=f'{i}.png', height=40, width=40) for i in range(4)],
                 categories=[dict(id=1, name='gland')], annotations=annotations)
    outcome = evaluate_instances(truth, found)
    for seed in range(2):
        classification.save(tmp_path / f'some_{seed}.npz', glands.answers(truth, outcome, found))
    scores = outcome['scores']['all']
    assert 0.1 < scores['segm']['AP'] < 0.9
    values = results.glands(results.by_name(tmp_path, ['some', 'absent'], 2))
    for name, expected in (('mask AP', scores['segm']['AP']),
                           ('object Dice', scores['objects']['dice']),
                           ('object PQ', np.mean([one['pq'] for one in
                                                  outcome['images'].values()]))):
        assert values[name]['some'].shape == (2, 1 + results.RESAMPLES)
        assert values[name]['some'][0, 0] == pytest.approx(expected, abs=1e-12)
        assert len(set(values[name]['some'][0])) > 10


@pytest.mark.slow
def test_the_study_from_tiles_to_tables_goes_on_where_it_stopped(tissue, tmp_path):
    (tmp_path / 'small.py').write_text(
        f"_base_ = '{REPO}/configs/demo/plm_r18.py'\n"
        "dataset = dict(recipe=dict(size=32))\nglobal_batch_size = 8\ncheckpoint_interval = 1\n"
        "hooks = [dict(type='CorrespondenceHook', interval=1, tiles=16)]\n")
    words = [sys.executable, '-m', 'benchmarks.learning', '--data', str(tissue), '--methods', '',
             '--config', f'small={tmp_path / "small.py"}', '--config',
             f'longer={tmp_path / "small.py"}', '--after', 'longer=small:72tiles', '--dense-layers',
             'last2', '4', '--seeds', '1', '--budget', '210tiles',
             '--size', '48', '--out', str(tmp_path / 'out'), '--cfg-options',
             f'dataset.source.root={tissue / "train"}']
    assert subprocess.run(words, cwd=REPO).returncode == 0
    text = (tmp_path / 'out/choosing/tables.md').read_text()
    assert '| small | ' in text and '## glands of the tiles: dense-linear-v2, 4, stride 32' in text
    run = tmp_path / 'out/runs/small_0'
    assert json.loads((run / 'plan.json').read_text())['epochs'] == 3  # of 72 tiles
    longer = tmp_path / 'out/runs/longer_0'
    assert json.loads((longer / 'plan.json').read_text())['epochs'] == 1
    assert str(run / 'run/latest.pth') in (longer / 'train.log').read_text()
    (tmp_path / 'vit.py').write_text(
        f"_base_ = './small.py'\nmodel = dict(backbone=dict(_delete_=True, **{TINY_VIT}))\n")
    before = (run / 'run/latest.pth').stat().st_mtime_ns
    (tmp_path / 'out/choosing/tiles/small_0.npz').unlink()
    words += ['--final', '--glas', str(write_glas_layout(tmp_path / 'glas', (4, 2, 2), size=64)),
              '--gland-iterations', '2', '--supervised', '1',
              '--config', f'vit={tmp_path / "vit.py"}', '--images', f'same={tissue}']
    assert subprocess.run(words, cwd=REPO).returncode == 0
    assert (run / 'run/latest.pth').stat().st_mtime_ns == before
    folder = tmp_path / 'out/final/glands of GlaS, 2 iterations'
    assert sorted(path.name for path in folder.iterdir()) == [  # the detectors are gone
        f'{name}_0.{kind}' for name in ('longer', 'random-init', 'small')
        for kind in ('json', 'log', 'npz')]
    scores = json.loads((folder / 'small_0.json').read_text())
    assert scores['run']['initialised'].endswith('latest.pth')
    written = json.loads((tmp_path / 'out/final/results.json').read_text())['estimates']
    found = written['glands of GlaS, 2 iterations: object Dice']['small']
    assert found['']['value'] == round(scores['scores']['all']['objects']['dice'], 5)
    assert set(found) == {'', 'random init', 'longer'}
    assert set(written['glands of GlaS, ViTs, 2 iterations: mask AP']) == {
        'vit', 'random init of vit'}
    assert set(written['GlaS: dense-linear-v2, last2, stride 16']) >= {
        'vit', 'random init of vit', 'small', 'random init', COLOUR_STATISTICS}
    assert (written['same: dense-knn-v1, 4, stride 32']['small']['']
            == written['glands of the tiles: dense-knn-v1, 4, stride 32']['small'][''])
    assert supervised.name_of(1) in written['tiles: 3 classes, linear-v1, 5 % of the labels'][
        'small']

    words = [sys.executable, '-m', 'benchmarks.learning.ranking', f'small={run / "run"}', '--data',
             str(tissue), '--out', str(tmp_path / 'ranking')]
    assert subprocess.run(words, cwd=REPO).returncode == 0
    ranked = json.loads((tmp_path / 'ranking/ranking.json').read_text())
    assert [one['epoch'] for one in ranked['checkpoints']] == [1, 2, 3]
    assert all(0 < value <= 1 for one in ranked['checkpoints'] for value in one['mdice'].values())
    for row in ranked['correlations'].values():
        assert [one['checkpoints'] for one in row.values()] == [3] * 4  # two probes of two layers


def test_a_folder_of_another_study_is_refused(tissue, tmp_path, monkeypatch):
    out, tiles = tmp_path / 'out', parts(tissue, final=True)

    def study(*words):
        monkeypatch.setattr('sys.argv', ['study', '--data', str(tmp_path), '--out', str(out),
                                         *words])
        return parse()

    def settled(configs, *words):
        note(out, settle(study('--budget', '1min', *words), configs, {}), {})

    settled({'a': 'a.py'}, '--budget', '9min')
    settled({'a': 'a.py'})  # nothing was planned: another budget
    (out / 'runs/a_0').mkdir(parents=True)
    (out / 'runs/a_0/plan.json').touch()
    settled({'b': 'b.py'}, '--seeds', '5', '--glas', 'g')  # more
    settled({'a': 'a.py'})
    with pytest.raises(UserError, match='glas was .*g, is now .*h'):
        settled({}, '--glas', 'h')
    with pytest.raises(UserError, match='budget was 1min, is now 2min; the config of a was a.py'):
        settled({'a': 'c.py'}, '--budget', '2min')
    with pytest.raises(UserError, match='patient_pattern was .*, is now P'):
        settled({}, '--patient_pattern', r'P(\d+)')
    settled({}, '--images', 'nuclei=n')
    settled({}, '--images', 'more=n')
    with pytest.raises(UserError, match='nuclei was .*n, is now .*m'):
        settled({}, '--images', 'nuclei=m')
    for words in (('--seeds', '0'), ('--dense-layers', 'last3'), ('--dense-layers', '0+2')):
        with pytest.raises(SystemExit):
            study(*words)

    # What lies behind the names counts, not the names alone.
    mine = tmp_path / 'mine.py'
    mine.write_text("_base_ = 'configs/PLM_SSL/r18_small.py'\nepochs = 5\n".replace(
        'configs', f'{REPO}/configs'))
    images = {'glands': dense.find_masks(tissue, final=True)}

    def noted():
        note(out, settle(study('--budget', '1min'), {'a': 'a.py'}, {}),
             contents({'mine': str(mine)}, tiles, images, 'final'))

    noted()
    noted()
    mine.write_text(mine.read_text().replace('5', '6'))
    with pytest.raises(UserError, match='the config of mine changed since; expected an --out'):
        noted()
    mine.write_text(mine.read_text().replace('6', '5'))
    path = tissue / 'masks/test/Normal'
    mask = sorted(path.iterdir())[0]
    before = mask.stat()
    os.utime(mask, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(UserError, match=r'the images of glands \(final\) changed since'):
        noted()
    os.utime(mask, ns=(before.st_atime_ns, before.st_mtime_ns))
    noted()
    images['glands'].test = images['glands'].test.part(np.arange(47))  # one is gone
    with pytest.raises(UserError, match='the images of glands'):
        noted()


def test_a_mistyped_folder_locks_nothing(tissue, tmp_path, monkeypatch):
    def study(*words):
        monkeypatch.setattr('sys.argv', ['study', '--data', str(tissue), '--methods', '', '--size',
                                         '32', '--seeds', '1', '--out', str(tmp_path / 'out'),
                                         *words])
        main()

    with pytest.raises(UserError, match='typo/train: no such folder'):
        study('--images', f'same={tmp_path / "typo"}')
    with pytest.raises(UserError, match='there are no GlaS images'):
        study('--glas', str(tmp_path / 'typo'))
    assert not (tmp_path / 'out/study.json').exists()


def test_methods_are_not_called_as_baselines_are():
    check_names(['plm', 'random-weights'], ['random init', COLOUR_STATISTICS])
    with pytest.raises(UserError, match="'random-init' would have the answers of 'random init'"):
        check_names(['random-init'], ['random init'])


def test_more_images_are_probed(tmp_path, monkeypatch):
    def sets(*words):
        monkeypatch.setattr('sys.argv', ['study', '--data', str(tmp_path / 'none'), *words])
        args = parse()
        return image_sets(args, tmp_path)

    noise = np.random.default_rng(0)
    for i in range(6):
        for folder, pixels in (('train', noise.integers(256, size=(32, 32, 3))),
                               ('masks/train', noise.integers(900, size=(32, 32)))):
            (tmp_path / 'nuclei' / folder).mkdir(parents=True, exist_ok=True)
            kind = np.uint8 if pixels.ndim == 3 else np.uint16
            Image.fromarray(pixels.astype(kind)).save(
                tmp_path / f'nuclei/{folder}/TCGA-AA-000{i // 2}-0{i}.png')
    for words in ((), ('--final',)):  # there is no test: cases are held out
        data = sets(f'--images=nuclei={tmp_path / "nuclei"}', *words)['nuclei']
        assert (len(data.train), len(data.test)) == (4, 2)
        assert len(set(data.cases('test'))) == 2  # of one patient: images are cases
    with pytest.raises(UserError, match="'GlaS' is the name of other images"):
        sets(f'--images=GlaS={tmp_path / "nuclei"}')
    with pytest.raises(SystemExit):
        sets('--images=nuclei')
