# DeepCluster on ImageNet, 8 GPUs.
_base_ = '../../DeepCluster/r18_bs512_ep200.py'
model = dict(
    backbone=dict(backbone=dict(depth=50)),
    head=dict(num_classes=10000))
dataset = dict(
    source=dict(root='data/imagenet/train', list_file='data/imagenet/meta/train.txt'),
    recipe=dict(steps=dict(
        rotation=dict(type='ShiftScaleRotate', shift=0.0, scale=0.0, degrees=2, p=1.0))))
schedule = dict(_delete_=True, type='Step', milestones=(400,), gamma=0.1)
hooks = [dict(type='DeepClusterHook', interval=1, pca_dim=256, uniform_sampling=True, resize=256,
              size=224, batch_size=128)]
