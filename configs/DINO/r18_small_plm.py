# DINO, and cells matched by their exact place.
_base_ = './r18_small.py'
model = dict(matched=dict(type='MatchedPatches', weight=0.5, rows=32, local_rows=8))
