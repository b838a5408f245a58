_base_ = '../r18_bs256_ep200.py'
model = dict(num_concepts=6)
