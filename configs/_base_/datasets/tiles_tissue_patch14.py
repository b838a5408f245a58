# Your tiles in a folder (--cfg-options dataset.source.root=FOLDER), two global and eight local
# crops of each for tissue and patches of 14 px: both flips, quarter turns, stains varied.
from openselfsup.views import tissue_views

dataset = dict(
    type='TileDataset',
    source=dict(type='ImageFolder', root='data/tiles', labels=False),
    recipe=tissue_views(size=224, scale=(0.32, 1.0), local_views=8, local_size=98,
                        local_scale=(0.05, 0.32)),
    on_corrupt='skip')
