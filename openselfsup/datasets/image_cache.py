"""Decoded images that are kept while parts of them are asked for."""

import os
import threading
from concurrent.futures import Future

import numpy as np

from .decode import read_tile
from .tile_error import TileError


class ImageCache:
    """The images of this process that were used last, up to a number of bytes.

    Threads that ask for one image at once decode it once. A forked process begins with an empty
    cache of its own. A damaged image is remembered as such: it is decoded once, too.

    Args:
        limit: bytes of pixels that are kept. The image used last is kept in any case.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._begin()

    def _begin(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._images: dict[str, tuple[Future[np.ndarray | TileError], int]] = {}
        self._bytes = 0

    def get(self, path: str, size: int) -> np.ndarray | TileError:
        """Return an image, or what is wrong with it.

        Args:
            path: the file.
            size: bytes of its pixels; room is made for them before it is decoded.

        Returns:
            uint8 array of shape (H, W, 3), not to be written: others see it, too.
        """
        if os.getpid() != self._owner:  # of the lock here, a thread that is not here may hold it
            self._begin()
        with self._lock:
            known = self._images.pop(path, None)
            image, size = known or (Future(), size)
            self._images[path] = image, size  # the last of them is the one used last
            if known is None:
                self._bytes += size
                self._make_room()
        if known is None:
            self._decode(path, image)
        return image.result()

    def _make_room(self) -> None:
        while self._bytes > self._limit and len(self._images) > 1:
            _, size = self._images.pop(next(iter(self._images)))
            self._bytes -= size

    def _decode(self, path: str, image: Future) -> None:
        try:
            image.set_result(read_tile(path))
        except TileError as error:
            image.set_result(error)  # as a value: raised again and again, it would grow
        except BaseException as error:  # others wait for it
            with self._lock:
                if self._images.get(path, (None, 0))[0] is image:
                    self._bytes -= self._images.pop(path)[1]
            image.set_exception(error)
