# NCT-CRC-HE-100K, colour-normalised (Zenodo 1214456): data/NCT-CRC-HE/NCT-CRC-HE-100K/{CLASS}/*.tif
# with CA2CL's two views: the first strong, the second weak. Every step has a name, so that one
# setting can be changed: --cfg-options dataset.recipe.0.steps.clahe.p=0.5
dataset = dict(
    type='TileDataset',
    source=dict(type='ImageFolder', root='data/NCT-CRC-HE/NCT-CRC-HE-100K'),
    recipe=[
        dict(
            type='ViewRecipe',
            size=224,
            steps=dict(
                transpose=dict(type='Transpose', p=0.5),
                vflip=dict(type='VerticalFlip', p=0.5),
                hflip=dict(type='HorizontalFlip', p=0.5),
                brightness=dict(type='Brightness', limit=0.2, p=0.75),
                contrast=dict(type='Contrast', limit=0.2, p=0.75),
                blur=dict(
                    type='OneOf', p=0.7,
                    steps=dict(
                        motion=dict(type='MotionBlur', limit=5),
                        median=dict(type='MedianBlur', limit=5),
                        gaussian=dict(type='GaussianBlur', sigma=(0.8, 1.1)),  # kernels 3 and 5
                        noise=dict(type='GaussianNoise', variance=(5.0, 30.0)))),
                distortion=dict(
                    type='OneOf', p=0.4,
                    steps=dict(
                        optical=dict(type='OpticalDistortion', limit=1.0),
                        grid=dict(type='GridDistortion', steps=5, limit=1.0),
                        # Its sigma is our choice.
                        elastic=dict(type='ElasticDistortion', alpha=3.0, sigma=4.0))),
                clahe=dict(type='CLAHE', clip=4.0, p=0.7),
                hsv=dict(type='HueSaturationValue', hue=10, saturation=20, value=10, p=0.5),
                affine=dict(type='ShiftScaleRotate', shift=0.1, scale=0.1, degrees=15, p=0.85),
                cutout=dict(type='Cutout', size=0.375, p=0.7))),  # 84 of 224 pixels
        dict(
            type='ViewRecipe',
            size=224,
            steps=dict(
                transpose=dict(type='Transpose', p=0.5),
                vflip=dict(type='VerticalFlip', p=0.5),
                hflip=dict(type='HorizontalFlip', p=0.5),
                brightness=dict(type='Brightness', limit=0.2, p=0.75),
                contrast=dict(type='Contrast', limit=0.2, p=0.75),
                hsv=dict(type='HueSaturationValue', hue=10, saturation=20, value=10, p=0.5),
                affine=dict(type='ShiftScaleRotate', shift=0.1, scale=0.1, degrees=15, p=0.5)))],
    n_views=2,
    on_corrupt='skip')
