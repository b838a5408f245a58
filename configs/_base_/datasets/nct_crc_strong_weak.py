# NCT-CRC-HE-100K, colour-normalised (Zenodo 1214456): data/NCT-CRC-HE/NCT-CRC-HE-100K/{CLASS}/*.tif
# with CA2CL's two views, as openselfsup/views/published.py lists their steps. Views and steps have
# names, so that one setting can be changed, in a child config or with
# --cfg-options dataset.recipe.strong.steps.clahe.p=0.5
from openselfsup.views import strong_view, weak_view

dataset = dict(
    type='TileDataset',
    source=dict(type='ImageFolder', root='data/NCT-CRC-HE/NCT-CRC-HE-100K'),
    recipe=dict(strong=strong_view(size=224), weak=weak_view(size=224)),
    on_corrupt='skip')
