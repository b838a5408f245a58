_base_ = './r50_bs256_ep200.py'
model = dict(
    neck=dict(_delete_=True, type='NonLinearNeck', hid_channels=2048,
              out_channels=128))
