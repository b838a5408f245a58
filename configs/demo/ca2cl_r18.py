# CA2CL in its robust form on the tiles that come with the project: a few minutes on a CPU.
_base_ = ['../_base_/models/ca2cl_r18_robust.py', '../_base_/runtime.py']

model = dict(cluster=dict(clusters=8))

# CA2CL's strong and weak views at 96 px, as in _base_/datasets/nct_crc_strong_weak.py.
ROOT = '{{ fileDirname }}'.removesuffix('/configs/demo')  # what lies there comes with the library
dataset = dict(
    type='TileDataset',
    source=dict(type='ImageFolder', root=ROOT + '/data/demo', labels=False),
    recipe=[
        dict(
            type='ViewRecipe',
            size=96,
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
                cutout=dict(type='Cutout', size=0.375, p=0.7))),  # 36 of 96 pixels
        dict(
            type='ViewRecipe',
            size=96,
            steps=dict(
                transpose=dict(type='Transpose', p=0.5),
                vflip=dict(type='VerticalFlip', p=0.5),
                hflip=dict(type='HorizontalFlip', p=0.5),
                brightness=dict(type='Brightness', limit=0.2, p=0.75),
                contrast=dict(type='Contrast', limit=0.2, p=0.75),
                hsv=dict(type='HueSaturationValue', hue=10, saturation=20, value=10, p=0.5),
                affine=dict(type='ShiftScaleRotate', shift=0.1, scale=0.1, degrees=15, p=0.5)))],
    n_views=2)

optimizer = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
schedule = dict(type='Cosine', warmup_epochs=5)
epochs = 40
global_batch_size = 60
log_interval = 10
checkpoint_interval = 40
