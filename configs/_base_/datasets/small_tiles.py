# A few thousand tiles of any kind in a folder, seen at 96 px: what a laptop or one GPU trains on in
# an hour. --cfg-options dataset.source.root=FOLDER names yours. Colours are hardly changed: more of
# it costs what they say of the tissue (docs/tried.md).
dataset = dict(
    type='TileDataset',
    source=dict(type='ImageFolder', root='data/tiles', labels=False),
    recipe=dict(
        type='ViewRecipe',
        size=96,
        steps=dict(
            crop=dict(type='RandomResizedCrop', scale=(0.2, 1.0)),
            hflip=dict(type='HorizontalFlip', p=0.5),
            vflip=dict(type='VerticalFlip', p=0.5),
            turn=dict(type='QuarterTurn', p=1.0),
            jitter=dict(type='ColorJitter', brightness=0.2, contrast=0.2, saturation=0.2,
                        hue=0.02, p=0.8))),
    n_views=2,
    on_corrupt='skip')
