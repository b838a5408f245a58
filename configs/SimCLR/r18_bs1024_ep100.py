_base_ = './r18_bs1024_ep200.py'
epochs = 100
