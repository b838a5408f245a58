_base_ = './r50_ensure_neg.py'
model = dict(ensure_neg=False)
