# A short run of AdamW, a warm-up and a cosine to zero; --cfg-options epochs=N fits it to the time.
optimizer = dict(type='AdamW', lr=3e-4, weight_decay=1e-4, decay_norm_and_bias=False)
schedule = dict(type='Cosine', warmup_epochs=2, min_lr=0.0)
epochs = 40
global_batch_size = 64
