"""docs/lineage.md says what tests show: each row of its tables has one, by name."""

import ast
import re
from functools import cache

import pytest
from published import REPO

from openselfsup.engine.config import load_config
from openselfsup.lineage.ca2cl_pretraining import FLAGS, KEYS

PAGE = (REPO / 'docs/lineage.md').read_text()
SCRIPTS, CHECKPOINTS = 'lineage/test_scripts.py::', 'checkpoints/test_zoo_checkpoints.py::'
PUBLISHING, PRETRAINING = 'checkpoints/test_publishing.py::', 'lineage/test_ca2cl_pretraining.py::'
# How a row begins, and the tests that show it. The rows of published configs are checked one by
# one in test_published_configs.py.
COMMANDS = {
    'PLM_SSL: `python -mtorch.distributed.launch': [
        'engine/test_training.py::test_the_published_command_runs_on_two_processes'],
    '`tools/train.py --resume_from CKPT`, `-c`': [
        f'{SCRIPTS}test_flags_of_old_of_the_trainer'],
    '`--resume_from` a checkpoint of the published code': [
        'engine/test_starting_from_published.py::'
        'test_all_weights_are_taken_and_the_run_begins_at_its_start'],
    '`tools/extract_backbone_weights{,_dino,_vic}.py': [
        f'{CHECKPOINTS}test_the_backbone_of_every_method_is_extracted_and_nothing_else',
        f'{CHECKPOINTS}test_dino_s_teacher_is_its_backbone'],
    '`tools/publish_model.py': [
        f'{PUBLISHING}test_without_a_name_it_lies_beside_the_checkpoint',
        f'{PUBLISHING}'
        'test_what_is_published_is_named_after_its_hash_and_holds_nothing_of_the_run'],
    '`tools/upgrade_models.py': [f'{PUBLISHING}test_a_published_checkpoint_gets_our_names'],
    '`tools/optimizers.py`': [f'{CHECKPOINTS}test_the_optimiser_s_module_is_not_imported'],
    '`tools/train.py --gpus N`': [f'{SCRIPTS}test_flags_of_old_of_the_trainer'],
    '`tools/train.py -d`': [f'{SCRIPTS}test_flags_of_old_of_the_trainer'],
    '`tools/train.py --port N`': [f'{SCRIPTS}test_flags_of_old_of_the_trainer'],
    '`tools/{single,dist,srun}_train.sh`': [f'{SCRIPTS}test_training_on_one_machine',
                                            f'{SCRIPTS}test_training_by_slurm'],
    '`tools/slurm_train_local_data.sh`': [
        f'{SCRIPTS}test_training_from_a_local_copy_that_is_removed'],
    '`tools/kill.sh`': [f'{SCRIPTS}test_a_run_is_stopped_by_its_work_directory',
                        f'{SCRIPTS}test_a_run_of_another_user_or_host_is_named_and_left_alone'],
    '`cd segmetation/detection`': [
        f'{SCRIPTS}test_plms_way_to_detectron2_from_the_folder_that_it_misspells',
        f'{CHECKPOINTS}test_it_is_converted_for_detectron2'],
    '`run.sh CONFIG.yaml': [f'{SCRIPTS}test_detection_from_all_published_folders'],
    'CA2CL, ConCL: `benchmarks/detection': [f'{SCRIPTS}test_detection_from_all_published_folders'],
    'CA2CL: `run_ft.sh`': [f'{SCRIPTS}test_run_ft_without_arguments'],
    'CA2CL: `CUDA_VISIBLE_DEVICES=0,1': [f'{PRETRAINING}test_every_gpu_gets_a_process',
                                         f'{PRETRAINING}test_the_published_command_pretrains'],
    'CA2CL: `python ft_le.py': [f'{SCRIPTS}test_ca2cls_evaluation_at_the_root',
                                f'{SCRIPTS}test_a_command_that_the_shell_cuts_is_found_out'],
    'PLM: `semantic_seg/main_segmentation.py': [
        'lineage/test_semantic_segmentation.py::test_the_published_command_trains_and_scores'],
    '`tools/extract.py CONFIG': [
        'lineage/test_extraction.py::test_two_processes_write_the_published_files'],
    '`tools/test.py CONFIG CKPT`': [
        'lineage/test_validation.py::test_two_processes_score_what_one_does',
        'lineage/test_validation.py::test_a_published_config_names_its_tiles_by_itself'],
    'OpenSelfSup: `benchmarks/{dist,srun}_test_svm': [
        f'{SCRIPTS}test_benchmarks_are_evaluations_on_labelled_tiles'],
    'OpenSelfSup: `benchmarks/{dist,srun}_train_linear.sh`': [
        f'{SCRIPTS}test_benchmarks_are_evaluations_on_labelled_tiles'],
    'OpenSelfSup: `benchmarks/{dist,srun}_train_semi.sh`': [
        f'{SCRIPTS}test_benchmarks_are_evaluations_on_labelled_tiles'],
    'VICRegL: linear heads': ['evaluation/test_dense.py::test_the_command']}


def rows_below(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    lines = PAGE.split(f'# {heading}\n')[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith('|'))
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith('|'))
    return [line.strip('| ').split(' | ') for line in lines[start + 2:end]]


@cache
def functions_of(path: str) -> set[str]:
    tree = ast.parse((REPO / 'tests' / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_row_of_a_command_has_its_test():
    rows = [cells[0] for cells in rows_below('Published commands')]
    assert len(rows) == len(COMMANDS)
    for row, (start, tests) in zip(rows, COMMANDS.items()):
        assert row.startswith(start)
        for name in tests:
            path, _, function = name.partition('::')
            assert function in functions_of(path), name


def test_every_key_of_ca2cl_has_a_row():
    named = [key.removeprefix('--') for cells in rows_below("CA2CL's pretrain.py")
             for key in re.findall('`(.*?)`', cells[0])]
    assert sorted(named) == sorted([*KEYS, *FLAGS, 'use_redis'])


@pytest.mark.parametrize('option, values', [
    ('model.projector.channels', '(64,64,64)'), ('model.maps_projector.channels', '(32,32)'),
    ('model.alpha', '0.9'), ('model.inv_coeff', '20.'), ('model.var_coeff', '20.'),
    ('model.cov_coeff', '2.'), ('model.l2_all_matches', 'False'),
    ('model.num_matches', '(20,4)'), ('model.num_classes', '9'),
    ('optimizer', "dict(type='LARS', lr=0.1, form='vicregl')"), ('base_batch_size', '256'),
    ('optimizer', "dict(type='AdamW', lr=0.1)")])
def test_flags_of_vicregl_are_fields(option, values):
    for name in ('r18_bs512_ep100', 'r50_bs512_ep100', 'r18_bs512_ep100_multicrop'):
        load_config(f'VICRegL/{name}', [f'{option}={values}'])
    said = ' '.join(cells[1] for cells in rows_below("VICRegL's main_vicregl.py"))
    assert option.rpartition('.')[2] in said or option.startswith('model.') and 'and so on' in said


def test_what_is_not_offered_is_not_there():
    for cells in rows_below('What is not here'):
        for path in re.findall(r'`([\w/{},*.]+\.(?:py|sh|yaml))`', cells[0]):
            assert not [*REPO.glob(path)], path
