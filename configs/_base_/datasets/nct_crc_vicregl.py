# NCT-CRC-HE-100K (Zenodo 1214456) with VICRegL's two views, as openselfsup/views/published.py lists
# their steps; nct_crc.py says where the tiles lie.
from openselfsup.views import vicregl_views

dataset = dict(
    type='TileDataset',
    source=dict(
        type='ImageList',
        root='data/NCT-CRC-HE/NCT-CRC-HE-100K-NONORM',
        list_file='data/NCT-CRC-HE/meta/train.txt'),
    recipe=vicregl_views(size=224),
    on_corrupt='skip')
