_base_ = './r50_v2.py'
model = dict(neck=dict(type='NonLinearNeckSimCLR', num_layers=2))
