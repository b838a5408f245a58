_base_ = './r18_bs256_ep200.py'
epochs = 400
