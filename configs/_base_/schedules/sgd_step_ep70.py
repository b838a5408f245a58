# 70 epochs of SGD with two drops to a tenth, after five epochs of warm-up, as OpenSelfSup trains
# its pretext tasks.
optimizer = dict(type='SGD', lr=0.2, momentum=0.9, weight_decay=1e-4)
schedule = dict(type='Step', milestones=(30, 50), gamma=0.1, warmup_epochs=5, warmup_start=0.1)
epochs = 70
global_batch_size = 128
