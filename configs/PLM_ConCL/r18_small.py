# As ConCL/r18_small.py, with places beside concepts and some weight left for the instances.
_base_ = '../ConCL/r18_small.py'
model = dict(
    type='PLMConCL',
    neck=dict(type='DenseCLNeck'),
    matching_neck=dict(type='MatchingNeck', channels=128, linear=True),
    concept_weight=0.3,
    dense_weight=0.3)
