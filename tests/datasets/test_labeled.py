"""Un-augmented tiles of one size with labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openselfsup.datasets.headers import TileError
from openselfsup.datasets.labeled import LabeledTileDataset, resize_and_crop
from openselfsup.errors import UserError

DEMO = Path(__file__).parents[2] / 'data/demo'
KATHER = dict(type='ImageFolder', root=str(DEMO / 'kather2016'))
TILE = np.asarray(Image.open(DEMO / 'kather2016/TUMOR/image_007.png').convert('RGB'))


def test_tiles_of_the_right_size_are_untouched():
    dataset = LabeledTileDataset(KATHER, size=224)
    assert len(dataset) == 51 and dataset.labels.shape == (51,) and dataset.classes[7] == 'TUMOR'
    place = next(i for i in range(51) if dataset.source.path(i).endswith('TUMOR/image_007.png'))
    tile, label = dataset[place]
    assert label == 7 and type(label) is int
    assert tile.dtype == torch.uint8 and tile.shape == (3, 224, 224)
    assert np.array_equal(tile.permute(1, 2, 0).numpy(), TILE)


@pytest.mark.parametrize('shape, resize, size', [((224, 224), 64, 64), ((224, 160), 112, 96),
                                                 ((100, 224), 128, 112), ((101, 224), 64, 63)])
def test_short_side_is_resized_and_the_centre_cropped(shape, resize, size):
    tile = TILE[:shape[0], :shape[1]]
    result = resize_and_crop(tile, resize, size)
    assert result.shape == (size, size, 3) and result.dtype == np.uint8
    scale = resize / min(shape)
    box = Image.fromarray(tile).resize((round(shape[1] * scale), round(shape[0] * scale)),
                                       Image.Resampling.BOX if scale < 1 else
                                       Image.Resampling.BICUBIC)
    left, top = (box.width - size) // 2, (box.height - size) // 2
    expected = np.asarray(box)[top:top + size, left:left + size]
    assert np.abs(result.astype(int) - expected).mean() < 3


def test_sources_without_labels_are_refused():
    with pytest.raises(UserError, match='have no labels'):
        LabeledTileDataset(dict(type='ImageFolder', root=str(DEMO / 'cmu1')))
    with pytest.raises(UserError, match='resize=32 is less than size=64'):
        LabeledTileDataset(KATHER, size=64, resize=32)


def test_an_unreadable_tile_is_an_error(tmp_path):
    (tmp_path / 'TUM').mkdir()
    path = tmp_path / 'TUM/a.jpg'
    Image.fromarray(TILE).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-2000] + content[-2:])  # the header check sees nothing of it
    dataset = LabeledTileDataset(dict(type='ImageFolder', root=str(tmp_path)))
    with pytest.raises(TileError, match='TUM/a.jpg'):
        dataset[0]
    path.write_bytes(b'x')
    with pytest.raises(UserError, match='1 of 1 tiles'):
        LabeledTileDataset(dict(type='ImageFolder', root=str(tmp_path)))
