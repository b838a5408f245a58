_base_ = '../r18_bs256_ep200.py'
model = dict(backbone=dict(out_indices=(2, 4)), cluster_indice=2)
