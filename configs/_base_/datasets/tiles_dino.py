# Your tiles in a folder (--cfg-options dataset.source.root=FOLDER), two global and eight local
# crops of each by the augmentation of DINO.
from openselfsup.views import dino_views

dataset = dict(
    type='TileDataset',
    source=dict(type='ImageFolder', root='data/tiles', labels=False),
    recipe=dino_views(size=224, scale=(0.4, 1.0), local_views=8, local_size=96,
                      local_scale=(0.05, 0.4), blur='written'),
    on_corrupt='skip')
