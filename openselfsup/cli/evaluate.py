"""Evaluate a pretrained backbone by linear probing, nearest neighbours or fine-tuning.

Example:
    openselfsup evaluate --train FOLDER --holdout 0.3 --model_path CKPT --labeled_train 1.0 \\
        --seeds 1 2 3
    openselfsup evaluate --dataset_path DATA --model_name resnet18 --model_path CKPT \\
        --ft_epoch 100 --lr 0.01 --seed 1 --only_linear_eval --labeled_train 0.01
    openselfsup evaluate --dataset_path DATA --model_path CKPT --ft_epoch 40 --lr 0.0003 \\
        --seed 1 --only_fine_tuning --labeled_train 0.01
    openselfsup evaluate --dense --train IMAGES --train_masks MASKS --test IMAGES \\
        --test_masks MASKS --model_path CKPT

DATA holds NCT-CRC-HE-100K and CRC-VAL-HE-7K, train and test class folders, or PCam's HDF5 files.
Writes results.json, arrays.npz and report.html into --out and prints the table.
"""

import argparse
import os
from pathlib import Path

from ..files import check_folder
from ..values import BelowOne, Count, NotNegative, Part, Positive, Seed, Share, Whole
from . import evaluate_dense
from .arguments import add_amp, checked

RANKED_BY = 'mean_average_precision'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup evaluate``."""
    published = parser.add_argument_group('published flags')
    add = published.add_argument
    add('--seed', type=checked(Seed), default=42)
    add('--dataset_path', help='folder of a known layout')
    add('--dataset', default='NCT', help='NCT or PCam: the layout to look for first')
    add('--only_fine_turning', '--only_fine_tuning', dest='only_fine_tuning', action='store_true',
        help='finetune-v1')
    add('--only_linear_eval', action='store_true', help='linear-augmented-v1')
    add('--debug', action='store_true', help='one epoch')
    add('--fp16', action='store_true', help='fp16 on a GPU, bf16 on a CPU that has it')
    add('--ft_epoch', type=checked(Count), default=100, help='epochs (default %(default)s)')
    add('--batch_size', type=checked(Count), default=128)
    add('--lr', type=checked(Positive), default=0.01)
    add('--momentum', type=checked(BelowOne), default=0.9)
    add('--weight_decay', type=checked(NotNegative), default=0.0)
    add('--workers', type=checked(Whole), default=4,
        help='unused: --dataloader_num_workers is what counts')
    add('--early_stop', type=checked(Whole), default=5, help='patience of fine-tuning in epochs')
    add('--model_name', default='resnet18')
    add('--image_size', type=checked(Count), default=224)
    add('--labeled_train', type=checked(Part), nargs='+', default=[0.01], metavar='SHARE',
        help='labelled share of the training tiles, or several (default 0.01)')
    add('--dataloader_num_workers', type=checked(Whole), default=16,
        help='threads; no more than cores')
    add('--model_path', default='', help='checkpoint: ours, PLM, CA2CL, torchvision, timm ...')
    add('--eval_metrics', default='accuracy,f1,precision,recall',
        help='columns of the printed table: also balanced_accuracy, auroc, calibration_error')
    add('--validation_split', type=checked(BelowOne), default=0.2)
    add('--default_device', help='cuda or cpu; default: a GPU if there is one')
    add('--gpu_index', type=checked(Whole))

    own = parser.add_argument_group('beyond the published ones')
    add = own.add_argument
    add('--train', help='class folders (or a PCam _x.h5) to learn from')
    add('--test', help='class folders (or a PCam _x.h5) to test on')
    add('--holdout', type=checked(Share), metavar='SHARE',
        help='hold this share of --train out as test')
    add('--patient_pattern', metavar='REGEX',
        help='finds the patient in a path (default: TCGA barcodes)')
    add('--protocols', nargs='+', help='linear-v1, knn-v1, linear-augmented-v1, finetune-v1, '
        'linear-stages-v1, svm-v1, svm-low-shot-v1, semi-v1')
    add('--seeds', type=checked(Seed), nargs='+', help='several seeds in place of --seed')
    add('--paper-compat', '--paper_compat', action='store_true',
        help='add the published variants of SGD protocols, labelled as such')
    add('--imagenet', metavar='CKPT', help='ImageNet weights (default: those in torch\'s cache)')
    add_amp(own, 'precision; without it float32, or what --fp16 says')
    add('--knn_k', type=checked(Count), default=20)
    add('--knn_temperature', type=checked(Positive), default=0.07)
    add('--head_lr', type=checked(Positive), nargs='+', default=[1.0, 10.0, 100.0], metavar='TIMES',
        help='semi-v1: learning rates of the head to choose from, as multiples of --lr')
    add('--resizing', choices=('timm', 'dino'),
        help='how a published ViT fits its positions to images of other sizes (default: told from '
        'its weights)')
    add('--mean', type=checked(NotNegative), nargs=3, metavar=('R', 'G', 'B'),
        help='normalisation of the images, of values in [0, 1] (default: what the weights say, or '
        "config.json beside them, else ImageNet's)")
    add('--std', type=checked(Positive), nargs=3, metavar=('R', 'G', 'B'), help='beside --mean')
    add('--custom_imports', nargs='+', default=[], metavar='MODULE',
        help='modules to import first, where --model_path has a backbone of your own')
    add('--work_dir', help='work directory of the pretraining: its curves go into the report')
    add('--allow_overlap', '--allow-overlap', action='store_true',
        help='warn where --train and --test share patients or tiles, in place of refusing them')
    add('--out', type=Path, help='default work_dirs/evaluation/FOLDER_CHECKPOINT, for '
                                 'FOLDER/CHECKPOINT.pth; _2, _3 ... where that holds other results')
    evaluate_dense.add_arguments(parser)


def device_of(name: str | None, index: int | None) -> str:
    """Return the device asked for, or the nearest there is, and say so."""
    import torch
    if name not in (None, 'cuda'):
        return name
    if not torch.cuda.is_available():
        if name or index is not None:
            print('WARNING: there is no GPU: using the CPU')
        return 'cpu'
    index = index or 0
    if index >= torch.cuda.device_count():
        print(f'WARNING: there is no GPU {index}: using GPU 0')
        index = 0
    return f'cuda:{index}'


def default_folder(checkpoint: str, ending: str = '') -> Path:
    """Return where the results of a checkpoint go by default.

    Every run has an epoch_200.pth: the name of its folder tells them apart.
    """
    path = Path(checkpoint).resolve()
    name = f'{path.parent.name}_{path.stem}' if checkpoint else 'baselines'
    return Path('work_dirs/evaluation') / f'{name}{ending}'


def main(args: argparse.Namespace) -> None:
    """Evaluate, print the table and write the report."""
    import torch

    from ..engine.own_modules import import_modules
    from ..evaluation import settings as evaluation
    from ..evaluation.classifier import TrainSettings
    from ..evaluation.data import find_data
    from ..evaluation.evaluate import Evaluation
    from ..evaluation.table import columns_of, results_table
    from ..training.logs import build_logger
    from ..training.precision import resolve
    from ..visualization.report import write_report

    import_modules(args.custom_imports, '--custom_imports')
    if args.dense:
        evaluate_dense.evaluate(args, device_of(args.default_device, args.gpu_index),
                                args.out or default_folder(args.model_path, '_dense'))
        return
    evaluate_dense.refuse(args)
    columns = columns_of(args.eval_metrics)
    build_logger()
    device = device_of(args.default_device, args.gpu_index)
    amp = resolve(args.amp or ('fp16' if args.fp16 and device.startswith('cuda') else 'off'),
                  torch.device(device), '--amp')
    if args.fp16 and not args.amp and not device.startswith('cuda'):
        amp = resolve('auto', torch.device(device))
        print(f"WARNING: fp16 needs a GPU: using {'float32' if amp == 'off' else amp}")
    protocols = args.protocols or [
        evaluation.LINEAR, evaluation.KNN,
        *([evaluation.AUGMENTED] if args.only_linear_eval else []),
        *([evaluation.FINETUNE] if args.only_fine_tuning else [])]
    out = args.out or default_folder(args.model_path)
    train = TrainSettings(
        args.ft_epoch, args.lr, args.momentum, args.weight_decay, args.batch_size,
        args.early_stop, args.validation_split, args.image_size,
        min(args.dataloader_num_workers, os.cpu_count() or 1), amp, args.debug)
    settings = evaluation.EvaluationSettings(
        out, args.model_name, args.model_path, tuple(protocols), tuple(args.labeled_train),
        tuple(args.seeds or [args.seed]), train, args.paper_compat, torch.device(device),
        args.knn_k, args.knn_temperature, tuple(args.head_lr), args.imagenet,
        resizing=args.resizing, normalize=evaluate_dense.normalization(args),
        rename_out=args.out is None)
    settings.check()  # before the tiles are looked at, which can take minutes
    check_folder(out)
    data = find_data(args.dataset_path, args.train, args.test, args.holdout,
                     patient_pattern=args.patient_pattern, layout=args.dataset,
                     allow_overlap=args.allow_overlap)
    results = Evaluation(settings, data).run()
    ranked = {evaluation.SVM, evaluation.LOW_SHOT} & {*protocols}  # they have no accuracy
    if ranked and RANKED_BY not in columns:
        columns.append(RANKED_BY)
    print(results_table(results, columns))
    print(f'report: {write_report(settings.out, args.work_dir)}')
