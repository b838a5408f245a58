_base_ = './r18_v1_bs256_ep200.py'
epochs = 100
