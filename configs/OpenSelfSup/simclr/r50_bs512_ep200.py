_base_ = './r50_bs256_ep200.py'
optimizer = dict(lr=0.6)
global_batch_size = 512
