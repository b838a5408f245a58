_base_ = './r18_v2_bs256_ep200.py'
epochs = 100
