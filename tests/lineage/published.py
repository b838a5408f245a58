"""The published configs as a table, of which :func:`write` makes files in their dialect."""

from pathlib import Path

from dialect import (
    BASE,
    BYOL,
    CIFAR,
    CLUSTER,
    COSINE,
    FLIP,
    FP16,
    HEAD,
    LIGHTING,
    MOCO_V1,
    MOCO_V2,
    PLACES,
    PLAIN,
    PLM_ROOT,
    RELATIVE,
    SIMCLR,
    byol,
    classes,
    clusters,
    deepcluster,
    lars,
    momentum,
    multi_head,
    neck,
    npid,
    plm,
    resnet,
    sgd,
    step,
    text,
    warm,
)

REPO = Path(__file__).resolve().parents[2]


def plm_ssl():
    weights = {f'_lambda_{weight}': weight for weight in (0.0, 0.25, 0.5, 0.75, 1.0)}
    for name, weight in {'': 0.5, **weights}.items():
        yield f'PLM_SSL/r18_bs256_ep200{name}', text(
            '../../base.py', plm(weight), 'ContrastiveDatasetBoxes', MOCO_V2, sgd(0.03), COSINE,
            None, interval=20, prefetch=True, drop_last=True, batch_size=256, gpus=4,
            split=PLM_ROOT, train=', grid_size=7')


def longer(name, epochs, model=None):
    """Yield a config at 200 epochs, and its children at others."""
    stem = name.rpartition('/')[2]
    for number in epochs:
        yield name.replace('ep200', f'ep{number}'), (
            f"_base_ = '{stem}.py'\ntotal_epochs = {number}\n")


def concl():
    base, nct = '../../base.py', 'NCT_pretraining/'
    yield f'{nct}byol/r18_bs1024_ep200', text(
        base, byol(resnet(norm='SyncBN'), 0.996, 'NonLinearNeckV2', 512, 512), 'BYOLDataset', BYOL,
        lars(0.2, 1.5e-6), warm(2), 128, 8, prefetch=False,
        hooks=["dict(type='BYOLHook', end_momentum=1.)"])
    no_channels = {k: v for k, v in resnet(norm='SyncBN').items() if k != 'in_channels'}
    yield f'{nct}classification/r18', text(
        base, classes(no_channels, 9, 512), 'ClassificationDataset', PLAIN, sgd(0.1), step(80), 32,
        2, 100, 100, labels='_labeled', val=True)
    yield f'{nct}concl/r18_bs256_ep200', text(
        base, momentum('ConCL', resnet(out_indices=(2, 3, 4)),
                       neck('NonLinearNeckV1', 128, 512, 512, False), 0.2, 16384, num_concepts=8,
                       cluster_indice=3, concept_weight=1.0, warmup=True),
        'ContrastiveDatasetTrans', MOCO_V2, sgd(0.03), COSINE, None, interval=25, prefetch=True,
        drop_last=True, batch_size=256, hooks=["dict(type='ConCLHook', warm_up_epoch=20)"])
    for kind, head, model, pipeline, lr, prefetch in (
            ('densecl', 'DenseCL', neck('DenseCLNeck', 128, 512, 512, None, num_grid=None), MOCO_V2,
             COSINE, None),
            ('moco_v1', 'MOCO', neck('LinearNeck', 128, 512), MOCO_V1, step(120, 160), True),
            ('moco_v2', 'MOCO', neck('NonLinearNeckV1', 128, 512, 512), MOCO_V2, COSINE, True)):
        more = dict(loss_lambda=0.5) if kind == 'densecl' else {}
        yield f'{nct}{kind}/r18_bs256_ep200', text(
            base, momentum(head, resnet(), model, 0.07 if kind == 'moco_v1' else 0.2, 16384,
                           **more), 'ContrastiveDataset', pipeline, sgd(0.03), lr, 32,
            prefetch=prefetch, drop_last=True, batch_size=256 if kind == 'moco_v2' else None)
    yield f'{nct}simclr/r18_bs1024_ep200', text(
        base, dict(type='SimCLR', pretrained=None, backbone=resnet(norm='SyncBN'),
                   neck=neck('NonLinearNeckSimCLR', 128, 512, 512, num_layers=2),
                   head=dict(type='ContrastiveHead', temperature=0.1)),
        'ContrastiveDataset', SIMCLR, lars(0.6, 1e-6), warm(10), 128, 8, prefetch=True)
    for name in ('byol/r18_bs1024', 'concl/r18_bs256', 'densecl/r18_bs256', 'moco_v1/r18_bs256',
                 'moco_v2/r18_bs256', 'simclr/r18_bs1024'):
        yield from longer(f'{nct}{name}_ep200', (100, 400, 800))
    ablations = {f'concept_num_k{k}': dict(num_concepts=k) for k in (2, 4, 6, 10, 12, 16)}
    ablations |= {f'concept_weight_0{w}': dict(concept_weight=weight) for w, weight in (
        (1, 0.1), (3, 0.3), (5, 0.3), (7, 0.7), (9, 0.9))}  # 05 is 0.3 as published
    ablations |= {f'groupping_indice_f_{i + 1}': dict(cluster_indice=i) for i in (0, 1, 2, 4)}
    ablations['r50_bs256_ep200'] = dict(
        queue_len=16384, backbone=resnet(50, out_indices=(2, 3, 4)),
        neck=neck('NonLinearNeckV1', 128, 2048, 2048, False))
    for name, model in ablations.items():
        yield f'{nct}concl/ablation/{name}', (
            f"_base_ = '../r18_bs256_ep200.py'\nmodel = {model!r}\n")


def selfsup():
    base, out = '../../base.py', 'selfsup/'
    sync = resnet(50, 'SyncBN')
    for name, imgs, passes, epochs in (('bs2048_accumulate2_ep200_fp16', 256, 2, 200),
                                       ('bs256_accumulate16_ep300', 32, 16, 300)):
        yield f'{out}byol/r50_{name}', text(
            base, byol(sync, 0.99, 'NonLinearNeckSimCLR', 2048, 4096, pre_conv=True),
            'BYOLDataset', BYOL, lars(4.8, 1e-6), warm(10), imgs, epochs=epochs, source='ImageNet',
            prefetch=False,
            hooks=[f"dict(type='BYOLHook', end_momentum=1., update_interval={passes})"],
            extra=f'update_interval = {passes}\nuse_fp16 = {"fp16" in name}\noptimizer_config = '
                  'dict(update_interval=update_interval, use_fp16=use_fp16)')
    yield f'{out}byol/r50_bs256_ep200', text(
        base, byol(resnet(50), 0.996, 'NonLinearNeckV2', 2048, 4096), 'BYOLDataset', BYOL,
        lars(0.2, 1.5e-6), warm(2), 32, source='ImageNet', prefetch=False,
        hooks=["dict(type='BYOLHook', end_momentum=1.)"])
    for name, sobel, lr in ('r50', True, 0.1), ('r50_withoutsobel', False, 0.3):
        yield f'{out}deepcluster/{name}', text(
            base, clusters('DeepCluster', dict(type='AvgPoolNeck'), 2048, sobel),
            'DeepClusterDataset', CLUSTER,
            sgd(lr, 1e-5, nesterov=False, paramwise_options=HEAD), step(400), 64,
            source='ImageNet', hooks=[deepcluster(256, True, False, 1)])
    for name, temperature, part, pipeline, lr in (
            ('r50_v1', 0.07, neck('LinearNeck', 128, 2048), MOCO_V1, step(120, 160)),
            ('r50_v1_fp16', 0.07, neck('LinearNeck', 128, 2048), MOCO_V1, step(120, 160)),
            ('r50_v2', 0.2, neck('NonLinearNeckV1', 128, 2048, 2048), MOCO_V2, COSINE),
            ('r50_v2_simclr_neck', 0.2,
             neck('NonLinearNeckSimCLR', 128, 2048, 2048, num_layers=2), MOCO_V2, COSINE)):
        yield f'{out}moco/{name}', text(
            base, momentum('MOCO', resnet(50), part, temperature, 65536), 'ContrastiveDataset',
            pipeline, sgd(0.03), lr, 32, source='ImageNet', prefetch=False, drop_last=True,
            extra=FP16 if 'fp16' in name else '')
    for name, more in ('r50', {}), ('r50_ensure_neg', dict(ensure_neg=True)):
        yield f'{out}npid/{name}', text(
            base, npid(**more), 'NPIDDataset', MOCO_V1, sgd(0.03, nesterov=False), step(120, 160),
            32, source='ImageNet')
    yield f'{out}odc/r50_v1', text(
        base, clusters('ODC', neck('NonLinearNeckV0', 256, 2048, 512), 256, norm='SyncBN',
                       memory_bank=dict(type='ODCMemory', length=1281167, feat_dim=256,
                                        momentum=0.5, num_classes=10000, min_cluster=20,
                                        debug=False)),
        'DeepClusterDataset', CLUSTER, sgd(0.06, 1e-5, nesterov=False, paramwise_options=HEAD),
        step(400, gamma=0.4), 64, 2, 440, source='ImageNet',
        hooks=[deepcluster(-1, False, True, 9999999999, 'init_memory=True, '),
               "dict(type='ODCHook', centroids_update_interval=10, reweight=True, reweight_pow=0.5,"
               ' deal_with_small_clusters_interval=1, evaluate_interval=50)'],
        extra="data['sampling_replace'] = True")
    decay = {rf'\A{part}.': dict(weight_decay=0.0005) for part in ('neck', 'head')}
    yield f'{out}relative_loc/r50', text(
        base, dict(type='RelativeLoc', pretrained=None, backbone=resnet(50),
                   neck=neck('RelativeLocNeck', 4096, 2048),
                   head=dict(type='ClsHead', with_avg_pool=False, in_channels=4096,
                             num_classes=8)),
        'RelativeLocDataset', RELATIVE, sgd(0.2, nesterov=False, paramwise_options=decay),
        warm(5, 0.1, **step(30, 50)), 64, 2, 70, source='ImageNet')
    for name in 'r50', 'r50_fp16':
        yield f'{out}rotation_pred/{name}', text(
            base, dict(type='RotationPred', pretrained=None, backbone=sync,
                       head=dict(type='ClsHead', with_avg_pool=True, in_channels=2048,
                                 num_classes=4)),
            'RotationPredDataset', PLAIN, sgd(0.2, nesterov=False), warm(5, 0.1, **step(30, 50)),
            16, 2, 70, source='ImageNet', extra=FP16 if 'fp16' in name else '')
    mlp = neck('NonLinearNeckV1', 128, 2048, 2048)
    head = neck('NonLinearNeckSimCLR', 128, 2048, 2048, num_layers=2)
    for name, part, lr, imgs in (('bs256_ep200', head, 0.3, 32),
                                 ('bs256_ep200_mocov2_neck', mlp, 0.3, 32),
                                 ('bs512_ep200', head, 0.6, 64)):
        yield f'{out}simclr/r50_{name}', text(
            base, dict(type='SimCLR', pretrained=None, backbone=sync, neck=part,
                       head=dict(type='ContrastiveHead', temperature=0.1)),
            'ContrastiveDataset', SIMCLR, lars(lr, 1e-6), warm(10), imgs, source='ImageNet',
            prefetch=False)


def labelled():
    """Yield OpenSelfSup's linear, semi-supervised and supervised configs."""
    base, linear = '../../../base.py', 'benchmarks/linear_classification/'
    norm_option = dict(paramwise_options=dict(norm_decay_mult=0.), nesterov=True)
    for sobel in (False, True):
        tail, channels = '_sobel' * sobel, 2 if sobel else 3
        yield f'{linear}imagenet/r50_last{tail}', text(
            base, classes(resnet(50, in_channels=channels, frozen_stages=4), 1000,
                          with_sobel=sobel),
            'ClassificationDataset', PLAIN, sgd(30., 0.), step(60, 80), 32, 5, 100,
            source='ImageNet', prefetch=False, labels='_labeled', val=True)
        for name, source, number, pipeline, prefetch, epochs, workers, marks in (
                ('imagenet', 'ImageNet', 1000, LIGHTING, None, 90, 5, (30, 60, 90)),
                ('places205', 'Places205', 205, PLACES, False, 28, 4, (7, 14, 21))):
            yield f'{linear}{name}/r50_multihead{tail}', text(
                base, multi_head(number, sobel), 'ClassificationDataset', pipeline,
                sgd(0.01, **norm_option), step(*marks), 32, workers, epochs, source=source,
                prefetch=prefetch, labels='_labeled', val=True)
    for percent, decay in (1, 0.0005), (10, 0.0001):
        folder = f'benchmarks/semi_classification/imagenet_{percent}percent/'
        whole = dict(dataset='ClassificationDataset', pipeline=PLAIN, lr=step(12, 16, gamma=0.2),
                     imgs=64, workers=2, epochs=20, interval=20, source='ImageNet',
                     labels=f'_labeled_{percent}percent', val=True)
        plain = {k: v for k, v in resnet(50, 'SyncBN').items() if k != 'in_channels'}
        yield f'{folder}base', text(base, classes(plain, 1000), optimizer=None, **whole)
        for lr, word in (0.1, '0_1'), (0.01, '0_01'), (0.001, '0_001'):
            for times in (1, 10, 100):
                own = sgd(lr, decay, paramwise_options={r'\Ahead.': dict(lr_mult=times)})
                yield f'{folder}r50_lr{word}_head{times}', (
                    "_base_ = 'base.py'\n" + f'optimizer = {own!r}\n'.replace('\\\\', '\\'))
        yield f'{folder}r50_lr0_01_head1_sobel', text(
            base, classes(resnet(50, 'SyncBN', in_channels=2), 1000, with_sobel=True),
            optimizer=sgd(0.01, decay, paramwise_options={r'\Ahead.': dict(lr_mult=1)}), **whole)
    for name, number, norm, pipeline, optimizer, marks, imgs, epochs, interval, more in (
            ('cifar10', 10, 'BN', [dict(type='RandomCrop', size=32, padding=4), FLIP],
             sgd(0.1, 0.0005), (150, 250), 128, 350, 50, dict(source='cifar', norm=CIFAR)),
            ('imagenet', 1000, 'SyncBN', PLAIN, sgd(0.1), (30, 60, 90), 32, 90, 10,
             dict(source='ImageNet', labels='_labeled', val=True))):
        plain = {k: v for k, v in resnet(50, norm).items() if k != 'in_channels'}
        yield f'classification/{name}/r50', text(
            '../../base.py', classes(plain, number), 'ClassificationDataset', pipeline, optimizer,
            step(*marks), imgs, 2, epochs, interval, **more)


PUBLISHED = {'PLM_SSL': dict(plm_ssl()), 'ConCL': dict(concl()),
             'OpenSelfSup': {**dict(selfsup()), **dict(labelled())}}
NAMES = [f'{repository}/configs/{name}.py' for repository, configs in PUBLISHED.items()
         for name in configs]


def write(folder: Path) -> None:
    """Write all of them below a folder, as the repositories lay them out."""
    for repository, configs in PUBLISHED.items():
        files = {'base': BASE, **configs}
        for name, content in files.items():
            path = folder / repository / 'configs' / f'{name}.py'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
