_base_ = './r18_bs256_ep200.py'
model = dict(loss_lambda=0.25)
