# Ten epochs that change released weights gently: a rate of at most 1e-4, less for lower layers.
optimizer = dict(
    type='AdamW', lr=1e-4, betas=(0.9, 0.99), weight_decay=0.04, weight_decay_end=0.2,
    layer_decay=0.7, paramwise_options={
        r'\.bias$|norm|gamma': dict(weight_decay=0.0),
        'patch_embed': dict(lr_mult=0.2)})
schedule = dict(type='Cosine', warmup_epochs=0.3, warmup_start=0.0, warmup='inclusive', min_lr=1e-6)
epochs = 10
global_batch_size = 128
clip_grad = 3.0
clip_grad_by = 'part'
