# As ConCL/r18_bs256_ep200_robust.py.
_base_ = './r18_bs256_ep200.py'
model = dict(keys_in_order=True, label_maps='exact', pad_queue=False)
