# As ConCL/r18_bs256_ep200_reference.py.
_base_ = './r18_bs256_ep200.py'
model = dict(keys_in_order=False, label_maps='rounded', pad_queue=True)
