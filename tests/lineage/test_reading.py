"""Which configs are published ones, how their bases are found, and what is wrong in them."""

from pathlib import Path

import pytest
import torch

from openselfsup.errors import UserError
from openselfsup.lineage.configs import load, translate
from openselfsup.lineage.reading import is_published, merge, read
from openselfsup.registry import ALGORITHMS, HEADS
from openselfsup.shipped import config_names, find_config

PLM = 'PLM_SSL/configs/PLM_SSL/r18_bs256_ep200_lambda_1.0.py'
MOCO = 'ConCL/configs/NCT_pretraining/moco_v2/'


def child(folder: Path, text: str, of: str = f'{MOCO}r18_bs256_ep200.py') -> Path:
    path = folder / Path(of).parent / 'mine.py'
    path.write_text(f"_base_ = {Path(of).name!r}\n{text}\n")
    return path


def test_configs_of_ours_are_not_taken_for_published_ones():
    assert not any(is_published(find_config(name)) for name in config_names())


@pytest.mark.parametrize('content', [b'data = ' + b'-' * 100_000 + b'1', b'data = "\xff"'])
def test_what_python_cannot_parse_is_left_to_whoever_reads_it(content, tmp_path):
    (tmp_path / 'deep.py').write_bytes(content)
    assert not is_published(tmp_path / 'deep.py')


def test_a_missing_base_is_found_in_a_folder_above(there):
    found = read(there / PLM)
    file, written, base = found.repaired[0]
    assert (file.name, written) == (Path(PLM).name, '../../base.py')
    assert base == (there / 'PLM_SSL/configs/base.py').resolve()
    assert found.values['log_config']['interval'] == 50
    assert found.values['data']['imgs_per_gpu'] == 64  # batch_size//num_gpu


def test_a_base_that_lies_where_it_should_is_not_repaired(there):
    found = read(there / f'{MOCO}r18_bs256_ep400.py')
    assert not found.repaired and len(found.files) == 3 and found.values['total_epochs'] == 400


def test_a_file_called_base_does_not_become_its_own_base(there):
    folder = there / 'alone'
    folder.mkdir(exist_ok=True)
    (folder / 'base.py').write_text("_base_ = '../../nowhere/base.py'\ntotal_epochs = 3\n")
    with pytest.raises(UserError, match="base.py: the _base_ '../../nowhere/base.py' is not there, "
                                        'nor is a base.py in a folder above'):
        read(folder / 'base.py')


def test_dicts_are_merged_and_lists_replaced():
    below = dict(a=dict(x=1, y=[1, 2]), b=dict(x=1), c=3)
    assert merge(dict(a=dict(y=[3]), b=dict(_delete_=True, z=1), c=dict(x=1)), below) == dict(
        a=dict(x=1, y=[3]), b=dict(z=1), c=dict(x=1))


def test_deep_copies_and_their_changes_are_executed(there):
    train = read(there / 'ConCL/configs/NCT_pretraining/byol/r18_bs1024_ep200.py'
                 ).values['data']['train']
    assert [train[f'pipeline{i}'][4]['p'] for i in (1, 2)] == [1.0, 0.1]
    assert [train[f'pipeline{i}'][5]['p'] for i in (1, 2)] == [0.0, 0.2]


@pytest.mark.parametrize('text, words', [
    ("model = dict(neck=dict(hid_chanels=3))",
     "mine.py:2: model.neck.hid_chanels: NonLinearNeckV1 takes no 'hid_chanels'; did you mean "
     "'hid_channels'"),
    ("model = dict(tempreature=3)", "model.tempreature: MOCO takes no 'tempreature'"),
    ("model = dict(type='MOCOO')", "no published method is called 'MOCOO'.*did you mean 'MOCO'"),
    ("optimzer_config = dict()", "the published trainer reads no 'optimzer_config'; did you mean "
                                 "'optimizer_config'"),
    ("data = dict(img_per_gpu=3)", "data.img_per_gpu: data takes no 'img_per_gpu'; did you mean "
                                   "'imgs_per_gpu'"),
    ("lr_config = dict(policy='cosine')", "lr_config: no policy here is called 'cosine'"),
    ("lr_config = dict(warmup='linear', warmup_iters=500)", 'expected warmup_by_epoch=True'),
    ("custom_hooks = [dict(type='ValidateHok')]", "did you mean 'ValidateHook'"),
    ("model = dict(backbone=dict(depth=19))", 'model.backbone.depth: depth must be 18, 34, 50 or '
                                              '101, not 19'),
    ("model = dict(backbone=dict(in_channels=2))", 'gives its backbone 3 channels, not 2'),
    ("model = dict(neck=dict(with_avg_pool=False))", 'is False; here maps are pooled once'),
    ("load_from = 'x.pth'", "all of another run's weights"),
    ("data = dict(train=dict(data_source=dict(type='ImageLst')))", "did you mean 'ImageList'"),
    ("model = dict(neck=3)", "model.neck: 'neck' must be a dict, not 3"),
    ("data = dict(imgs_per_gpu=0)", 'imgs_per_gpu must be a whole number of at least 1, not 0'),
    ("lr_config = dict(policy='step', step=0)", 'step must be '),
    ("total_epochs = 'many'", "total_epochs must be a whole number of at least 1, not 'many'"),
    ("custom_hooks = None", 'custom_hooks must be a list, not None'),
    ("model = dict(backbone=dict(out_indices=4))", 'out_indices must be a list.*, not 4'),
    ("log_config = dict(hooks=['TextLoggerHook'])", 'hooks must be a list, each of it a dict'),
    ("1 / 0", 'mine.py:2: ZeroDivisionError'),
    ("total_epochs = (", 'mine.py:2: not valid Python'),
])
def test_mistakes_are_told_in_the_words_of_the_file(text, words, there):
    with pytest.raises(UserError, match=words):
        load(child(there, text), processes=8)


@pytest.mark.parametrize('step, milestones', [
    (30, [30, 60, 90]), (100, []), ([60, 80], [60, 80]), ((7,), [7])])
def test_a_number_of_a_step_policy_says_how_often_the_rate_falls(step, milestones, there):
    path = child(there, f"lr_config = dict(_delete_=True, policy='step', step={step})\n"
                        'total_epochs = 100')
    found = load(path, processes=8).cfg.schedule
    assert found == dict(type='Step', milestones=milestones, gamma=0.1)


def test_all_mistakes_are_told_at_once(there):
    path = child(there, "model = dict(queue=3)\noptimizer = dict(lrr=1)\nlr_config = dict(gama=2)")
    with pytest.raises(UserError) as caught:
        load(path)
    assert len(str(caught.value).splitlines()) == 4  # 3 mistakes in this config:


def test_names_of_the_file_are_its_own(there):
    notes = translate(child(there, 'HELPER = 3\nhelper = 3\ndata_root_of_mine = "x"')).notes
    assert {note.theirs for note in notes if 'name of the file' in note.text} == {
        'HELPER', 'helper', 'data_root_of_mine'}


@pytest.mark.parametrize('processes, batch, words', [
    (1, 32, 'meant for 256 in 8 processes: start so many, or set global_batch_size=256 and '
            'accumulate=8'),
    (8, 256, None), (None, 256, None)])
def test_the_batch_is_that_of_all_processes(processes, batch, words, there):
    found = load(f'{MOCO}r18_bs256_ep200.py', processes=processes)
    assert found.cfg.global_batch_size == batch and found.cfg.optimizer.lr == 0.03
    told = [str(note) for note in found.notes if note.kind == 'differs']
    assert [words in note for note in told] == ([True] if words else [])


def test_a_batch_in_the_name_may_count_the_passes_of_a_step(there):
    path = child(there, 'optimizer_config = dict(update_interval=2)\n'
                        'data = dict(imgs_per_gpu=32)')
    path = path.rename(path.with_name('mine_bs512.py'))
    found = load(path, processes=8)
    assert found.cfg.global_batch_size == 512
    assert not [note for note in found.notes if 'is meant for' in str(note)]


def test_resume_from_is_gone_on_from(there):
    assert load(child(there, "resume_from = 'epoch_3.pth'")).resume == 'epoch_3.pth'


def test_overrides_are_of_our_fields(there):
    assert load(there / PLM, ['epochs=3', 'model.loss_lambda=0.2']).cfg.epochs == 3
    with pytest.raises(UserError, match='--cfg-options total_epochs=3: total_epochs: unknown'):
        load(there / PLM, ['total_epochs=3'])


def test_joined_and_repeated_tiles_are_one_source(there):
    path = child(there, "import copy\nother = copy.deepcopy({'_': 0})\ndata = dict(train=dict("
                 "type='RepeatDataset', times=3, dataset=dict(type='ContrastiveDataset', "
                 "data_source=dict(type='ImageList', root='data/NCT/data', "
                 "list_file='data/NCT/meta/train.txt'), pipeline=[dict(type='RandomResizedCrop', "
                 "size=64)], prefetch=True), _delete_=True))")
    dataset = load(path).cfg.dataset
    assert dataset.source.type == 'Mixed' and dataset.source.repeat == [3] and dataset.n_views == 2
    text = path.read_text() + ("one = data['train']['dataset']\ntwo = copy.deepcopy(one)\n"
                               "data = dict(train=[one, two], imgs_per_gpu=4, workers_per_gpu=0)\n")
    path.write_text(text)
    source = load(path).cfg.dataset.source
    assert [one.type for one in source.sources] == ['ImageList', 'ImageList']
    path.write_text(text + "two['pipeline'][0]['size'] = 32\n")
    with pytest.raises(UserError, match='differ in more than their tiles'):
        load(path)


@pytest.mark.parametrize('pipeline, size, steps', [
    ("dict(type='Resize', size=256), dict(type='CenterCrop', size=224)", 224,
     dict(center=dict(type='CenterCrop', share=0.875))),
    ("dict(type='Resize', size=256), dict(type='CenterCrop', size=256), dict(type='RandomCrop', "
     "size=224)", 224, dict(center=dict(type='CenterCrop', share=1.0),
                            crop=dict(type='RandomCrop', share=0.875))),
    ("dict(type='Resize', size=(48, 64), interpolation=3)", (48, 64), {}),
    ("dict(type='RandomResizedCrop', size=64), dict(type='RandomCrop', size=32, padding=8)", 32,
     dict(crop=dict(type='RandomResizedCrop', scale=(0.08, 1.0)),
          crop2=dict(type='RandomCrop', share=0.5, padding=0.125)))])
def test_crops_of_pixels_become_shares(pipeline, size, steps, there):
    recipe = load(child(there, f"data = dict(train=dict(pipeline=[{pipeline}]))")
                  ).cfg.dataset.recipe.to_dict()
    assert recipe['size'] == size and recipe['steps'] == steps
    assert recipe.get('interpolation') == ('bicubic' if 'interpolation=3' in pipeline else None)


@pytest.mark.parametrize('pipeline, words', [
    ("dict(type='RandomCrop', size=32)", '32 pixels of an image of any size'),
    ("dict(type='Resize', size=16), dict(type='RandomCrop', size=32)", 'of an image of 16'),
    ("dict(type='RandomHorizontalFlip')", 'no transform says how large a view is'),
    ("dict(type='RandomResizedCrop', size=32, interpolation=0)", '0 is nearest; expected 2'),
    ("dict(type='RandomAppliedTrans', p=0.3, transforms=[dict(type='RandomResizedCrop', size=8)])",
     'RandomResizedCrop happens to every view here, not with p=0.3'),
    ("dict(type='RandomResizdCrop', size=8)", "did you mean 'RandomResizedCrop'")])
def test_pipelines_that_mean_nothing_here_are_refused(pipeline, words, there):
    with pytest.raises(UserError, match=words):
        load(child(there, f"data = dict(train=dict(pipeline=[{pipeline}]))"))


CONCL = 'ConCL/configs/NCT_pretraining/concl/r18_bs256_ep200.py'
BYOL = 'ConCL/configs/NCT_pretraining/byol/r18_bs1024_ep200.py'


@pytest.mark.parametrize('of, text, words', [
    (CONCL, 'custom_hooks = []', 'warmup=True without a ConCLHook'),
    (BYOL, "custom_hooks = [dict(type='BYOLHook', end_momentum=0.9)]", 'end_momentum is 0.9'),
    (BYOL, "model = dict(head=dict(predictor=dict(with_avg_pool=True)))", 'it takes vectors'),
    (CONCL, 'model = dict(neck=dict(with_avg_pool=True))', 'maps are pooled once')])
def test_hooks_and_parts_of_methods_mean_what_is_done_here(of, text, words, there):
    with pytest.raises(UserError, match=words):
        load(child(there, text, of))


@pytest.mark.parametrize('passes, hook, said', [
    (1, '', []), (2, ', update_interval=2', []), (1, ', update_interval=1', []),
    (2, '', ['custom_hooks.0.update_interval: differs: the target moves once a step of the '
             'optimiser, which is 2 passes; published: after every 1'])])
def test_the_target_of_byol_moves_once_a_step(passes, hook, said, there):
    text = (f"optimizer_config = dict(update_interval={passes})\n"
            f"custom_hooks = [dict(type='BYOLHook', end_momentum=1.{hook})]")
    notes = map(str, load(child(there, text, BYOL)).notes)
    assert [note for note in notes if 'update_interval' in note] == said


def test_a_mistake_does_not_make_others(there):
    """What comes after it in a file is not called unknown."""
    with pytest.raises(UserError) as caught:
        load(child(there, 'log_config = dict(interval=3, hooks=5)'))
    assert str(caught.value).count('\n') == 0 and 'hooks must be a list' in str(caught.value)


def test_clustered_tiles_are_those_that_are_trained_on(there):
    name = 'OpenSelfSup/configs/selfsup/deepcluster/r50_withoutsobel.py'
    text = "import copy\ncustom_hooks = copy.deepcopy(custom_hooks)\n"
    source = Path(name).read_text() + text
    for change, words in (
            ("['pipeline'][3]['mean'] = [0., 0., 0.]", 'normalised otherwise'),
            ("['data_source']['root'] = 'elsewhere'", 'those tiles are clustered that are trained'),
            ("['pipeline'][0]['size'] = 'large'", 'size must be a whole number')):
        path = Path(name).with_name('changed.py')
        path.write_text(f"{source}custom_hooks[0]['extractor']['dataset']{change}\n")
        with pytest.raises(UserError, match=words):
            load(path)
    path.unlink()


def test_the_warm_up_of_concl_is_an_argument_of_the_method(there):
    hooks = "custom_hooks = [dict(type='ConCLHook', warm_up_epoch=7)]"
    assert load(child(there, hooks, CONCL)).cfg.model.warmup_epochs == 7
    text = hooks + '\nmodel = dict(warmup=False, cluster_indice=2)'
    model = load(child(there, text, CONCL)).cfg.model
    assert (model.warmup_epochs, model.cluster_indice) == (0, 2)


def test_plm_and_concl_together_have_a_name_too(there):
    """No config of it was published, its class was."""
    text = ("model = dict(type='ConCLLoc', neck=dict(type='NonLinearNeckV1Dense'), "
            "dense_weight=0.3, neck_matching=dict(type='MatchingNeck', in_channels=128, "
            "out_channels=128), "
            "concept_weight=0.6, head=dict(type='WeightedContrastiveHead'))\n"
            "data = dict(train=dict(type='ContrastiveDatasetTransBoxes', grid_size=7))")
    cfg = load(child(there, text, CONCL)).cfg
    assert (cfg.model.type, cfg.model.dense_weight, cfg.model.concept_weight) == (
        'PLMConCL', 0.3, 0.6)
    assert list(cfg.dataset.recipe) == ['query', 'key', 'reference']
    with torch.device('meta'):
        assert ALGORITHMS.build(cfg.model).needs_geometry


def test_lars_is_the_published_one(there):
    """It adapts every tensor that no option leaves out, and has no momentum unless told."""
    def optimizer(text):
        return load(child(there, f'optimizer = dict(_delete_=True, {text})')).cfg.optimizer
    assert optimizer("type='LARS', lr=1., nesterov=True, momentum=0.9, dampening=0.") == dict(
        type='LARS', lr=1., nesterov=True, momentum=0.9, dampening=0., lars_exclude=False)
    plain = optimizer(r"type='LARS', lr=1., paramwise_options={r'\Ahead.': dict(lr_mult=3)}")
    assert plain == dict(type='LARS', lr=1., momentum=0., lars_exclude=False,
                         paramwise_options={r'\Ahead.': dict(lr_mult=3)})
    left_out = load(BYOL).cfg.optimizer  # whose options name norm layers and biases
    assert 'lars_exclude' not in left_out and 'paramwise_options' not in left_out


def test_the_heads_of_all_stages_have_norms_without_weights(there):
    name = 'OpenSelfSup/configs/benchmarks/linear_classification/imagenet/r50_multihead.py'
    head = HEADS.build(load(name).cfg.model.head)
    assert len(head.norms) == 5 and not any(norm.affine for norm in head.norms)
