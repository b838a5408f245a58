# 200 epochs of LARS as OpenSelfSup trains BYOL (1,024 tiles a step): biases and norm layers are
# neither adapted nor do they decay. Rates are held for an epoch; the warm-up multiplies the cosine.
optimizer = dict(type='LARS', lr=0.2, momentum=0.9, weight_decay=1.5e-6)
schedule = dict(type='Cosine', min_lr=0.0, by='epoch', warmup_epochs=2, warmup_start=1e-4,
                warmup='within')
epochs = 200
global_batch_size = 1024
