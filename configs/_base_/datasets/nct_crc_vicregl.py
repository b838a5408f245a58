# The tiles of NCT-CRC, VICRegL's two views of each, as openselfsup/views/published.py lists their
# steps.
from openselfsup.views import vicregl_views

_base_ = './nct_crc_tiles.py'
dataset = dict(
    recipe=vicregl_views(size=224),
    on_corrupt='skip')
