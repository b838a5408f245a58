# Two large views and six small ones of each tile, as VICRegL trains ConvNeXt.
from openselfsup.views import vicregl_views

_base_ = './r18_bs512_ep100.py'
dataset = dict(recipe=vicregl_views(size=224, scale=(0.4, 1.0), small_views=6))
