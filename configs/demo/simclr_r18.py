# SimCLR on the tiles that come with the project, a few minutes on a CPU: the settings of
# SimCLR/r18_small (docs/learning.md) with a batch that suits so few tiles.
from openselfsup import shipped

_base_ = ['../SimCLR/r18_small.py']

dataset = dict(source=dict(root=str(shipped.ROOT / 'data/demo')))
schedule = dict(warmup_epochs=5)
epochs = 60
global_batch_size = 32
checkpoint_interval = 60
