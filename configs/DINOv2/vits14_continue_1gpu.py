# From released weights (--pretrained FILE) to better ones on your tiles, on one GPU; see
# docs/continue.md.
_base_ = [
    '../_base_/models/dinov2_vits14_continue.py',
    '../_base_/datasets/tiles_tissue_patch14.py',
    '../_base_/schedules/adamw_continue.py',
    '../_base_/runtime.py',
]
# Scored before the first step and after each epoch; the best is kept as best_dense.pth. With
# labelled tiles: hooks=[dict(type='KNNProbeHook', source=dict(type='ImageFolder', root=FOLDER),
# interval=1)], and best_knn.pth.
hooks = [dict(type='CorrespondenceHook', interval=1, best_by='correspondence')]
log_interval = 20
checkpoint_interval = 1
