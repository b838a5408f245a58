# A few thousand tiles of any kind in a folder, seen at 96 px: what a laptop or one GPU trains on in
# an hour. --cfg-options dataset.source.root=FOLDER names yours.
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
            jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4,
                        hue=0.1, p=0.8),
            gray=dict(type='Grayscale', p=0.2),
            blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), p=0.2))),
    n_views=2,
    on_corrupt='skip')
