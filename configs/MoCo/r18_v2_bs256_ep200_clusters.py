# CA2CL's cluster head, in its robust form, on MoCo v2.
_base_ = './r18_v2_bs256_ep200.py'
model = dict(
    group_neck=dict(type='GroupNeck', out_channels=128),
    cluster=dict(type='ClusterHead', clusters=10, iters=10, temperature=0.2, weight=0.1,
                 detach_centroids=True, empty='mask'))
hooks = [dict(type='ClusterPictures')]
