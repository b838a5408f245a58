# DINOv2 of a ViT-L/14, and patches matched by their exact place.
_base_ = './vitl14_fsdp.py'
model = dict(matched=dict(type='MatchedPatches', weight=0.5, rows=32, local_rows=8))
