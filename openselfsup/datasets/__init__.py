"""Tiles: sources, datasets of views, and the loader that prepares batches ahead."""

from .headers import TileError
from .labeled import LabeledTileDataset
from .loader import ViewLoader
from .mixed import Mixed
from .packed import PackedTiles, pack
from .pcam import PCam
from .recipes import build_recipe
from .shard_writer import write_shards
from .shards import Shards
from .slides import Slides
from .sources import FileSource, ImageFolder, ImageList, Source, build_source
from .tiles import TileDataset
from .windows import Windows

__all__ = ['FileSource', 'ImageFolder', 'ImageList', 'LabeledTileDataset', 'Mixed', 'PCam',
           'PackedTiles', 'Shards', 'Slides', 'Source', 'TileDataset', 'TileError', 'ViewLoader',
           'Windows', 'build_recipe', 'build_source', 'pack', 'write_shards']
