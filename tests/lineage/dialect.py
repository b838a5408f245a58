"""What published configs are made of, and how they are written: values of PLM_SSL 2a4c0bd, ConCL
6c76a7b and OpenSelfSup 1db69ec, restated here."""

IMAGENET = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
CIFAR = dict(mean=[0.4914, 0.4822, 0.4465], std=[0.2023, 0.1994, 0.201])
PLM_ROOT = ('/gpfs/scratch/jingwezhang/data/NCT-CRC-HE/original_data/'
            'NCT-CRC-HE-100K-NONORM')

BASE = """\
train_cfg = {}
test_cfg = {}
optimizer_config = dict()  # grad_clip, coalesce, bucket_size_mb
log_config = dict(
    interval=50, hooks=[dict(type='TextLoggerHook'), dict(type='TensorboardLoggerHook')])
dist_params = dict(backend='nccl')
cudnn_benchmark = True
log_level = 'INFO'
load_from = None
resume_from = None
workflow = [('train', 1)]
prefetch = False
"""


# Pipelines

def applied(p, **transform):
    return dict(type='RandomAppliedTrans', transforms=[transform], p=p)


def jitter(brightness, contrast, saturation, hue):
    return dict(type='ColorJitter', brightness=brightness, contrast=contrast,
                saturation=saturation, hue=hue)


def blur(p):
    return applied(p, type='GaussianBlur', sigma_min=0.1, sigma_max=2.0)


GREY, FLIP = dict(type='RandomGrayscale', p=0.2), dict(type='RandomHorizontalFlip')
CROP, CROP_20 = (dict(type='RandomResizedCrop', size=224, **scale)
                 for scale in ({}, dict(scale=(0.2, 1.0))))
MOCO_V1 = [CROP_20, GREY, jitter(0.4, 0.4, 0.4, 0.4), FLIP]
MOCO_V2 = [CROP_20, applied(0.8, **jitter(0.4, 0.4, 0.4, 0.1)), GREY, blur(0.5), FLIP]
SIMCLR = [CROP, FLIP, applied(0.8, **jitter(0.8, 0.8, 0.8, 0.2)), GREY, blur(0.5)]
BYOL = [dict(CROP, interpolation=3), FLIP, applied(0.8, **jitter(0.4, 0.4, 0.2, 0.1)), GREY,
        blur(1.0), applied(0.0, type='Solarization')]
CLUSTER = [CROP, FLIP, dict(type='RandomRotation', degrees=2), jitter(0.4, 0.4, 1.0, 0.5), GREY]
PLAIN = [CROP, FLIP]
RELATIVE = [dict(type='Resize', size=292), dict(type='RandomCrop', size=255),
            dict(type='RandomGrayscale', p=0.66)]
PLACES = [dict(type='Resize', size=256), dict(type='CenterCrop', size=256),
          dict(type='RandomCrop', size=224), FLIP]
TEST = [dict(type='Resize', size=256), dict(type='CenterCrop', size=224)]
LIGHTING = [*PLAIN, jitter(0.4, 0.4, 0.4, 0.0), dict(type='ToTensor'), dict(type='Lighting')]
FORMAT = [dict(type='ToTensor'), dict(type='Normalize', **IMAGENET)]


# Models

def resnet(depth=18, norm='BN', out_indices=(4,), in_channels=3, **more):
    return dict(type='ResNet', depth=depth, in_channels=in_channels,
                out_indices=list(out_indices), norm_cfg=dict(type=norm), **more)


def neck(kind, out_channels, in_channels, hid_channels=None, pool=True, **more):
    hidden = {} if hid_channels is None else dict(hid_channels=hid_channels)
    return dict(type=kind, in_channels=in_channels, **hidden, out_channels=out_channels, **more,
                **({} if pool is None else dict(with_avg_pool=pool)))


def momentum(kind, backbone, the_neck, temperature, queue_len, head='ContrastiveHead', **more):
    return dict(type=kind, pretrained=None, queue_len=queue_len, feat_dim=128, momentum=0.999,
                backbone=backbone, neck=the_neck, head=dict(type=head, temperature=temperature),
                **more)


def plm(loss_lambda):
    return momentum('LocMatCL', resnet(), neck('DenseCLNeck', 128, 512, 512, None, num_grid=None),
                    0.2, 16384, 'WeightedContrastiveHead', loss_lambda=loss_lambda,
                    neck_matching=dict(type='MatchingNeck', in_channels=128, out_channels=128,
                                       linear=True))


def byol(backbone, base_momentum, kind, width, hidden, **more):
    parts = {} if kind == 'NonLinearNeckV2' else dict(
        num_layers=2, sync_bn=True, with_bias=True, with_last_bn=False)
    return dict(
        type='BYOL', pretrained=None, base_momentum=base_momentum, **more, backbone=backbone,
        neck=neck(kind, 256, width, hidden, **parts),
        head=dict(type='LatentPredictHead', size_average=True,
                  predictor=neck(kind, 256, 256, hidden, False, **parts)))


def classes(backbone, num_classes, in_channels=2048, **more):
    return dict(type='Classification', pretrained=None, **more, backbone=backbone,
                head=dict(type='ClsHead', with_avg_pool=True, in_channels=in_channels,
                          num_classes=num_classes))


def clusters(kind, the_neck, width, sobel=False, norm='BN', **more):
    return dict(type=kind, pretrained=None, with_sobel=sobel,
                backbone=resnet(50, norm, in_channels=2 if sobel else 3), neck=the_neck,
                head=dict(type='ClsHead', with_avg_pool=False, in_channels=width,
                          num_classes=10000), **more)


def npid(**more):
    return dict(type='NPID', neg_num=65536, **more, pretrained=None,
                backbone=resnet(50, 'SyncBN'), neck=neck('LinearNeck', 128, 2048),
                head=dict(type='ContrastiveHead', temperature=0.07),
                memory_bank=dict(type='SimpleMemory', length=1281167, feat_dim=128, momentum=0.5))


def multi_head(num_classes, sobel):
    return dict(type='Classification', pretrained=None, with_sobel=sobel,
                backbone=resnet(50, out_indices=range(5), in_channels=2 if sobel else 3,
                                frozen_stages=4),
                head=dict(type='MultiClsHead', pool_type='specified', in_indices=list(range(5)),
                          with_last_layer_unpool=False, backbone='resnet50',
                          norm_cfg=dict(type='SyncBN', momentum=0.1, affine=False),
                          num_classes=num_classes))


# Optimisers and rates

def sgd(lr, weight_decay=0.0001, **more):
    return dict(type='SGD', lr=lr, weight_decay=weight_decay, momentum=0.9, **more)


def lars(lr, weight_decay):
    out = dict(weight_decay=0., lars_exclude=True)
    return dict(type='LARS', lr=lr, weight_decay=weight_decay, momentum=0.9,
                paramwise_options={r'(bn|gn)(\d+)?.(weight|bias)': out, 'bias': out})


COSINE = dict(policy='CosineAnnealing', min_lr=0.)
HEAD = {r'\Ahead.': dict(momentum=0.)}


def warm(epochs, ratio=0.0001, **policy):
    return dict(policy or COSINE, warmup='linear', warmup_iters=epochs, warmup_ratio=ratio,
                warmup_by_epoch=True)


def step(*milestones, **more):
    return dict(policy='step', step=list(milestones), **more)


# Files

def text(base, model, dataset, pipeline, optimizer, lr, imgs, workers=4, epochs=200, interval=10,
         source='NCT', prefetch=None, drop_last=False, labels='', val=False, extra='', hooks=(),
         batch_size=None, gpus=8, norm=IMAGENET, train='', split=None):
    """Return a config as they are written: with expressions, not as data alone."""
    cluster = dataset == 'DeepClusterDataset'
    of_source = dict(NCT="type='ImageList'", cifar="type='Cifar10', root='data/cifar/'").get(
        source, f"type='{source}', memcached=True, mclient_path='/mnt/lustre/share/client'")
    folder = dict(NCT='data/NCT', ImageNet='data/imagenet', Places205='data/places205').get(source)
    root = dict(NCT='data/NCT/data').get(source, f'{folder}/train')
    if split is not None:
        root = split
    where = ("split='train', " if source == 'cifar'
             else 'list_file=data_train_list, root=data_train_root, ')
    formats = "[dict(type='ToTensor'), dict(type='Normalize', **img_norm_cfg)]"
    lines = ['import copy', f'_base_ = {base!r}', f'model = {model!r}',
             f'data_source_cfg = dict({of_source})',
             f'data_train_list = {f"{folder}/meta/train{labels}.txt"!r}',
             f'data_train_root = {root!r}', f'dataset_type = {dataset!r}',
             f'img_norm_cfg = {norm!r}', f'train_pipeline = {pipeline!r}']
    if prefetch is not None:
        lines += [f'prefetch = {prefetch}', 'if not prefetch:',
                  f'    train_pipeline.extend({formats})']
    elif pipeline is LIGHTING:
        lines += ["train_pipeline.append(dict(type='Normalize', **img_norm_cfg))"]
    elif dataset != 'RelativeLocDataset':
        lines += [f'train_pipeline.extend({formats})']
    views = 'pipeline=train_pipeline'
    if dataset == 'BYOLDataset':
        lines += ['train_pipeline1 = copy.deepcopy(train_pipeline)',
                  'train_pipeline2 = copy.deepcopy(train_pipeline)',
                  "train_pipeline2[4]['p'] = 0.1", "train_pipeline2[5]['p'] = 0.2"]
        views = 'pipeline1=train_pipeline1, pipeline2=train_pipeline2'
    if dataset == 'RelativeLocDataset':
        lines += [f'format_pipeline = {formats}']
        views += ', format_pipeline=format_pipeline'
    if cluster:
        lines += [f'extract_pipeline = {TEST + FORMAT!r}', 'num_classes = 10000']
    if batch_size:
        lines += [f'batch_size = {batch_size}', *[f'num_gpu = {gpus}'] * (gpus != 8)]
        imgs = f'batch_size//{"num_gpu" if gpus != 8 else 8}'
    lines += [f'data = dict(imgs_per_gpu={imgs}, workers_per_gpu={workers}, '
              + f'drop_last={drop_last}, ' * drop_last
              + f'train=dict(type=dataset_type, data_source=dict({where}**data_source_cfg), {views}'
              + ', prefetch=prefetch' * (prefetch is not None) + train + '))']
    if val:
        lines += [f"data['val'] = dict(type=dataset_type, data_source=dict(list_file='nowhere.txt',"
                  f" root='nowhere', **data_source_cfg), pipeline={TEST + FORMAT!r})"]
        hooks = [*hooks, "dict(type='ValidateHook', dataset=data['val'], initial=True, interval=10,"
                         ' imgs_per_gpu=32, workers_per_gpu=2, eval_param=dict(topk=(1, 5)))']
    if hooks:
        lines += [f'custom_hooks = [{", ".join(hooks)}]']
    if optimizer is not None:
        lines += [f'optimizer = {optimizer!r}'.replace('\\\\', '\\')]
    lines += [f'lr_config = {lr!r}', f'checkpoint_config = dict(interval={interval})',
              f'total_epochs = {epochs}', extra]
    return '\n'.join(lines) + '\n'


FP16 = ('use_fp16 = True\noptimizer_config = dict(use_fp16=use_fp16)')
EXTRACTOR = ("extractor=dict(imgs_per_gpu=128, workers_per_gpu=8, dataset=dict(type=dataset_type, "
             'data_source=dict(list_file=data_train_list, root=data_train_root, **data_source_cfg),'
             ' pipeline=extract_pipeline))')


def deepcluster(pca_dim, unif, reweight, interval, more=''):
    return (f"dict(type='DeepClusterHook', {EXTRACTOR}, clustering=dict(type='Kmeans', "
            f'k=num_classes, pca_dim={pca_dim}), unif_sampling={unif}, reweight={reweight}, '
            f'reweight_pow=0.5, {more}initial=True, interval={interval})')
