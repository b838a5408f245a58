# Published so that it fails after the warm-up: its backbone returns no stage 1.
_base_ = '../r18_bs256_ep200.py'
model = dict(backbone=dict(out_indices=(1, 4)), cluster_indice=1)
