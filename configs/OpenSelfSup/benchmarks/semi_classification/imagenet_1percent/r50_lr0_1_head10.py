_base_ = './base.py'
optimizer = dict(lr=0.1, paramwise_options={r'\Ahead.': dict(lr_mult=10)})
