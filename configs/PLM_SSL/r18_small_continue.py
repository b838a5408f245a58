# PLM from a backbone that SimCLR has trained on the same few thousand tiles (docs/choosing.md):
#     openselfsup train PLM_SSL/r18_small_continue --pretrained RUN/latest.pth
# A queue of PLM's learns little from random weights in so few steps. On whole tiles of new cases it
# changed nothing that three seeds could show; for its cells see docs/learning.md.
_base_ = './r18_small.py'
model = dict(matching_neck=dict(linear=True))  # as it was measured
schedule = dict(warmup_epochs=1)
epochs = 8
