_base_ = './base.py'
optimizer = dict(lr=0.01, paramwise_options={r'\Ahead.': dict(lr_mult=1)})
