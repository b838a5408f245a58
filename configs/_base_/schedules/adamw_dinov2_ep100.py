# 100 epochs of AdamW as DINOv2's short recipe: 4e-3 for 1,024 tiles, by the root of the batch size;
# embeddings of patches learn slower, biases, norm layers and layer scales do not decay.
optimizer = dict(
    type='AdamW', lr=4e-3 * (256 / 1024) ** 0.5, weight_decay=0.04, weight_decay_end=0.4,
    layer_decay=0.9, paramwise_options={
        r'\.bias$|norm|gamma': dict(weight_decay=0.0),
        'patch_embed': dict(lr_mult=0.2)})
schedule = dict(type='Cosine', warmup_epochs=10, warmup_start=0.0, warmup='inclusive', min_lr=1e-6)
epochs = 100
global_batch_size = 256
clip_grad = 3.0
clip_grad_by = 'part'
