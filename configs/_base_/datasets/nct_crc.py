# The tiles of NCT-CRC, two views of each.
_base_ = './nct_crc_tiles.py'
dataset = dict(
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
