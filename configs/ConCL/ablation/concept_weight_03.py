_base_ = '../r18_bs256_ep200.py'
model = dict(concept_weight=0.3)
