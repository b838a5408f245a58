# NCT-CRC-HE-100K as nct_crc.py reads it, one view of each tile: a crop, mirrored by chance.
dataset = dict(
    type='TileDataset',
    source=dict(
        type='ImageList',
        root='data/NCT-CRC-HE/NCT-CRC-HE-100K-NONORM',
        list_file='data/NCT-CRC-HE/meta/train.txt'),
    recipe=dict(
        type='ViewRecipe',
        size=224,
        steps=dict(
            crop=dict(type='RandomResizedCrop', scale=(0.08, 1.0)),
            flip=dict(type='HorizontalFlip', p=0.5))),
    n_views=1,
    on_corrupt='skip')
