# PLM + VICRegL in a definition of ours (openselfsup/models/algorithms/plm_vicregl.py).
_base_ = './vicregl_r18.py'
model = dict(
    type='PLMVICRegL',
    matching_neck=dict(type='MatchingNeck', channels=512, linear=True))
