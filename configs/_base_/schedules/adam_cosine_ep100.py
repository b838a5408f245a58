# 100 epochs of Adam with a cosine that steps once an epoch, as CA2CL trains (1,792 tiles a
# step on 2 GPUs). The weight decay is Adam's L2 penalty, not AdamW's.
optimizer = dict(type='Adam', lr=6e-4, weight_decay=1e-4)
schedule = dict(type='Cosine', min_lr=0.0, by='epoch')
epochs = 100
global_batch_size = 1792
