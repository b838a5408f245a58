# Published with 0.3, the same as concept_weight_03.
_base_ = '../r18_bs256_ep200.py'
model = dict(concept_weight=0.5)
