# The same, and patches matched by their exact place.
_base_ = './vits14_continue_1gpu.py'
model = dict(matched=dict(type='MatchedPatches', weight=0.5, rows=32, local_rows=8))
