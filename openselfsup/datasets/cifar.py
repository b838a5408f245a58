"""CIFAR: small images on which OpenSelfSup has a supervised config."""

from typing import ClassVar, Literal

import numpy as np
from torchvision import datasets

from ..errors import UserError, located
from ..registry import SOURCES
from .sources import Source


@SOURCES.register_module()
class Cifar10(Source):
    """CIFAR-10 (Krizhevsky 2009): 32 x 32 px, 10 classes, in memory.

    torchvision reads them after a look at their check sums.

    Args:
        root: folder in which the archive of the Python version was unpacked.
        split: which images.

    Raises:
        UserError: they are not there, or not the official ones.
    """

    reader: ClassVar[type[datasets.CIFAR10]] = datasets.CIFAR10
    tile_size = 32, 32

    def __init__(self, root: str, split: Literal['train', 'test'] = 'train'):
        try:
            found = self.reader(root, train=split == 'train', download=False)
        except RuntimeError as error:
            raise UserError(f'{error}', where=located(root), expected='the folder '
                            f"'{self.reader.base_folder}' of the official archive") from None
        self.root, self.split = root, split
        self.images, self.classes = found.data, list(found.classes)
        self.labels = np.array(found.targets, np.int64)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> np.ndarray:
        return self.images[index]

    def path(self, index: int) -> str:
        return f'{self.root}/{self.split} image {index}'


@SOURCES.register_module()
class Cifar100(Cifar10):
    """CIFAR-100 with its 100 fine classes; arguments and errors are those of :class:`Cifar10`."""

    reader = datasets.CIFAR100
