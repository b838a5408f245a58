# A few thousand tiles, one GPU or a laptop: narrower expanders.
_base_ = [
    '../_base_/models/plm_vicregl_r18.py',
    '../_base_/datasets/small_tiles.py',
    '../_base_/schedules/adamw_small.py',
    '../_base_/runtime.py',
]
model = dict(
    projector=dict(channels=(1024, 1024, 1024)),
    maps_projector=dict(channels=(256, 256, 256)),
    matching_neck=dict(channels=256))
log_interval = 10
