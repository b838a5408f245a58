# PLM on the tiles that come with the project, from the backbone that SimCLR has trained there:
#     openselfsup train demo/simclr_r18 --work-dir A
#     openselfsup train demo/plm_r18_continue --pretrained A/latest.pth
# Larger views than SimCLR's have more cells to match.
_base_ = ['./plm_r18.py']

model = dict(matching_neck=dict(linear=True))
dataset = dict(recipe=dict(size=128, steps=dict(
    jitter=dict(hue=0.02),
    blur=None)))
schedule = dict(warmup_epochs=1)
epochs = 12
checkpoint_interval = 12
