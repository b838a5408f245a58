# 100 epochs of LARS at 0.3 per 256 tiles: ten epochs of warm-up, then a cosine to a thousandth, as
# VICRegL trains (512 tiles a step).
optimizer = dict(type='LARS', lr=0.3, momentum=0.9, weight_decay=1e-6, form='vicregl')
schedule = dict(type='Cosine', warmup_epochs=10, warmup_start=0.0, min_lr=6e-4)
epochs = 100
global_batch_size = 512
base_batch_size = 256
