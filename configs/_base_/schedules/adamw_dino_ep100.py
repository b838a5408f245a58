# 100 epochs of AdamW at 5e-4 per 256 tiles as DINO and iBOT train ViTs: ten epochs of warm-up, a
# cosine to 1e-6, a weight decay that rises from 0.04 to 0.4 and spares biases and norm layers.
optimizer = dict(type='AdamW', lr=5e-4, weight_decay=0.04, weight_decay_end=0.4,
                 decay_norm_and_bias=False)
schedule = dict(type='Cosine', warmup_epochs=10, warmup_start=0.0, warmup='inclusive', min_lr=1e-6)
epochs = 100
global_batch_size = 256
base_batch_size = 256
clip_grad = 3.0
clip_grad_by = 'tensor'
