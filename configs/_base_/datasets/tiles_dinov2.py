# Your tiles in a folder (--cfg-options dataset.source.root=FOLDER), two global and eight local
# crops of each as DINOv2 was trained: with blur 0 / 0.9 / 0.5, not its settings' 1 / 0.1 / 0.5.
from openselfsup.views import dino_views

dataset = dict(
    type='TileDataset',
    source=dict(type='ImageFolder', root='data/tiles', labels=False),
    recipe=dino_views(size=224, scale=(0.32, 1.0), local_views=8, local_size=96,
                      local_scale=(0.05, 0.32), blur='trained'),
    on_corrupt='skip')
