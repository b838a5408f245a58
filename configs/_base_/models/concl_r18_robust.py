# ConCL without what is fragile in the published form: cells take the concept that covers most of
# them, whatever the size and place of a view, and a concept enters the queue once.
_base_ = './concl_r18.py'
model = dict(keys_in_order=True, label_maps='exact', pad_queue=False)
