# DINO, and cells matched by their exact place, where a ViT would have masked patches.
_base_ = './r50_bs256_ep100.py'
model = dict(matched=dict(type='MatchedPatches', weight=0.5, rows=32, local_rows=8))
