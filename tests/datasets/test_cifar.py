"""CIFAR as torchvision reads it: its own check sums, here those of a few made images."""

import hashlib
import pickle

import numpy as np
import pytest
from torchvision import datasets

from openselfsup.errors import UserError
from openselfsup.registry import SOURCES

COUNT = 6


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """An unpacked archive with one batch to train on and one to test on."""
    for reader, labels, batches, names in (
            (datasets.CIFAR10, 'labels', ('data_batch_1', 'test_batch'), 'label_names'),
            (datasets.CIFAR100, 'fine_labels', ('train', 'test'), 'fine_label_names')):
        folder = tmp_path / reader.base_folder
        folder.mkdir()
        sums = {}
        for seed, name in enumerate((*batches, 'meta')):
            pixels = np.random.default_rng(seed).integers(0, 256, (COUNT, 3072), np.uint8)
            content = ({names: ['a', 'b', 'c']} if name == 'meta' else
                       {'data': pixels, labels: [i % 3 for i in range(COUNT)]})
            (folder / name).write_bytes(pickle.dumps(content))
            sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
        monkeypatch.setattr(reader, 'train_list', [[batches[0], sums[batches[0]]]])
        monkeypatch.setattr(reader, 'test_list', [[batches[1], sums[batches[1]]]])
        monkeypatch.setattr(reader, 'meta', dict(filename='meta', key=names, md5=sums['meta']))
    return tmp_path


@pytest.mark.parametrize('name', ['Cifar10', 'Cifar100'])
@pytest.mark.parametrize('split, seed', [('train', 0), ('test', 1)])
def test_images_and_labels_are_read(name, split, seed, archive):
    source = SOURCES.build(dict(type=name, root=str(archive), split=split))
    pixels = np.random.default_rng(seed).integers(0, 256, (COUNT, 3, 32, 32), np.uint8)
    assert len(source) == COUNT and source.tile_size == (32, 32)
    assert all(np.array_equal(source.read(i), pixels[i].transpose(1, 2, 0)) for i in range(COUNT))
    assert source.require_labels().tolist() == [0, 1, 2, 0, 1, 2]
    assert source.require_classes() == ['a', 'b', 'c'] and source.stamp(0) is None
    assert f'{split} image 3' in source.path(3)


def test_what_is_not_official_is_refused(archive):
    (archive / 'cifar-10-batches-py/test_batch').write_bytes(pickle.dumps('other'))
    with pytest.raises(UserError, match="not found or corrupted.*'cifar-10-batches-py'"):
        SOURCES.build(dict(type='Cifar10', root=str(archive), split='train'))
