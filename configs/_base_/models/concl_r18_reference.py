# ConCL exactly as published: shuffled keys are pooled by the concepts of the tiles whose places
# they take, so that positives show different tiles.
_base_ = './concl_r18.py'
model = dict(keys_in_order=False, label_maps='rounded', pad_queue=True)
