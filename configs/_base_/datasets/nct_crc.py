# NCT-CRC-HE-100K (Zenodo 1214456), the set that PLM, DenseCL and ConCL pretrain on:
# data/NCT-CRC-HE/NCT-CRC-HE-100K-NONORM/{CLASS}/*.tif and a list of the tiles to use,
# one 'path' or 'path label' a line. Without a list: source=dict(type='ImageFolder', root=...).
dataset = dict(
    type='TileDataset',
    source=dict(
        type='ImageList',
        root='data/NCT-CRC-HE/NCT-CRC-HE-100K-NONORM',
        list_file='data/NCT-CRC-HE/meta/train.txt'),
    # MoCo v2's augmentation (arXiv 2003.04297). Every step has a name, so that a child
    # config or --cfg-options dataset.recipe.steps.jitter.p=0.5 can change one field.
    recipe=dict(
        type='ViewRecipe',
        size=224,
        steps=dict(
            crop=dict(type='RandomResizedCrop', scale=(0.2, 1.0)),
            jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4,
                        hue=0.1, p=0.8),
            gray=dict(type='Grayscale', p=0.2),
            blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), p=0.5),
            flip=dict(type='HorizontalFlip', p=0.5))),
    n_views=2,
    on_corrupt='skip')
