# The tiles of NCT-CRC, ConCL's three views of each: two by MoCo v2's augmentation and a reference,
# the box around both. --cfg-options dataset.recipe.query.steps.jitter.p=0.5 changes one field of
# one view.
_base_ = './nct_crc_tiles.py'
dataset = dict(
    recipe=dict(
        **{name: dict(
            type='ViewRecipe',
            size=224,
            steps=dict(
                crop=dict(type='RandomResizedCrop', scale=(0.2, 1.0)),
                jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4,
                            hue=0.1, p=0.8),
                gray=dict(type='Grayscale', p=0.2),
                blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), p=0.5),
                flip=dict(type='HorizontalFlip', p=0.5))) for name in ('query', 'key')},
        reference=dict(type='UnionView', of=['query', 'key'], size=224,
                       interpolation='bicubic')),
    on_corrupt='skip')
