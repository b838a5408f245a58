# The tiles of NCT-CRC, one view of each: a crop, mirrored by chance.
_base_ = './nct_crc.py'
dataset = dict(
    recipe=dict(
        steps=dict(
            _delete_=True,
            crop=dict(type='RandomResizedCrop', scale=(0.08, 1.0)),
            flip=dict(type='HorizontalFlip', p=0.5))),
    n_views=1)
