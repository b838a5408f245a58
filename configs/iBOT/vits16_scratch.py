# iBOT's published crops: ten local ones, as small as a quarter of the tile.
from openselfsup.views import dino_views

_base_ = [
    '../_base_/models/ibot_vits16.py',
    '../_base_/datasets/tiles_dino.py',
    '../_base_/schedules/adamw_dino_ep100.py',
    '../_base_/runtime.py',
]
dataset = dict(recipe=dict(_delete_=True, **dino_views(
    size=224, scale=(0.25, 1.0), local_views=10, local_size=96,
    local_scale=(0.05, 0.25), blur='written')))
