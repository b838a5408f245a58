# A few thousand tiles, one GPU or a laptop: narrower expanders, and no pairs of cells that lie far
# apart, of which views of 3 x 3 cells have many.
_base_ = [
    '../_base_/models/vicregl_r18.py',
    '../_base_/datasets/small_tiles.py',
    '../_base_/schedules/adamw_small.py',
    '../_base_/runtime.py',
]
model = dict(
    projector=dict(channels=(1024, 1024, 1024)),
    maps_projector=dict(channels=(256, 256, 256)),
    match_radius=1.0)
log_interval = 10
