# A ViT-L/14 from random weights on many GPUs (torchrun --nproc_per_node=8): parameters, gradients
# and momenta are shared out over the ranks, activations computed again in the backward pass.
# Each rank writes its part of a checkpoint: `openselfsup merge` makes one file of them.
# The long recipe of DINOv2, its 500 epochs of 1,250 steps and their warm-up of 80 shrunk to 100.
from openselfsup.views import dino_views

_base_ = [
    '../_base_/models/dinov2_vitl14.py',
    '../_base_/datasets/tiles_dinov2.py',
    '../_base_/schedules/adamw_dinov2_ep100.py',
    '../_base_/runtime.py',
]
dataset = dict(recipe=dict(_delete_=True, **dino_views(
    size=224, scale=(0.32, 1.0), local_views=8, local_size=98, local_scale=(0.05, 0.32),
    blur='trained')))
optimizer = dict(lr=2e-4, weight_decay_end=0.2, layer_decay=None)
schedule = dict(warmup_epochs=16)
global_batch_size = 1024
parallel = 'fsdp'
