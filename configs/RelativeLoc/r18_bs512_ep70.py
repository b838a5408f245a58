# Eight pairs of patches of every tile: 4,096 pairs a step.
_base_ = [
    '../_base_/models/relative_loc_r18.py',
    '../_base_/datasets/nct_crc_one_view.py',
    '../_base_/schedules/sgd_step_ep70.py',
    '../_base_/runtime.py',
]
# The tile at 292 px, a random 255 x 255 of it, grey more often than not.
dataset = dict(recipe=dict(
    size=255,
    steps=dict(
        _delete_=True,
        crop=dict(type='RandomCrop', share=255 / 292),
        gray=dict(type='Grayscale', p=0.66))))
optimizer = dict(paramwise_options={
    r'\Aneck.': dict(weight_decay=5e-4), r'\Ahead.': dict(weight_decay=5e-4)})
global_batch_size = 512
