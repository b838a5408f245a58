# 200 epochs of SGD with a cosine to zero, as MoCo v2 and PLM train (256 tiles a step).
optimizer = dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=1e-4)
schedule = dict(type='Cosine', min_lr=0.0)
epochs = 200
global_batch_size = 256
