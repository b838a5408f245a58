# 200 epochs of SGD with drops to a tenth at 60 % and 80 % of them, as NPID and MoCo v1 train.
_base_ = './sgd_cosine_ep200.py'
schedule = dict(_delete_=True, type='Step', milestones=(0.6, 0.8), gamma=0.1)
