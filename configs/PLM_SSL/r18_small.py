# A few thousand tiles, one GPU or a laptop. A queue of eight batches, since its keys must not be
# told from new ones by their age, and batch statistics over parts of the batch, since one process
# would tell by them which views belong together (docs/evaluation.md, "Does it learn?"). A matching
# neck without its linear layer, which starts from random weights and cost 3 to 9 points in 230
# steps (docs/tried.md). PLM_SimCLR/r18_small learns more in as short a run.
_base_ = [
    '../_base_/models/plm_r18.py',
    '../_base_/datasets/small_tiles.py',
    '../_base_/schedules/adamw_small.py',
    '../_base_/runtime.py',
]
model = dict(
    backbone=dict(norm_cfg=dict(type='SplitBN', num_splits=4)),
    matching_neck=dict(linear=False),
    queue_len=512,
    momentum=0.99)
log_interval = 10
