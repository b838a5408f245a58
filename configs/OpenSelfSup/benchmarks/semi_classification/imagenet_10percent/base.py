# Fine-tuning on 10 % of the labels; --pretrained names the backbone's weights.
_base_ = '../../../classification/imagenet/r50.py'
dataset = dict(source=dict(list_file='data/imagenet/meta/train_labeled_10percent.txt'))
optimizer = dict(weight_decay=1e-4)
schedule = dict(milestones=(12, 16), gamma=0.2)
epochs = 20
