"""Writing images and masks as PNG; reading them is :mod:`.decode`."""

from pathlib import Path

import cv2
import numpy as np

from ..files import NotWritten, reason, unforced_file


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write an RGB image (H, W, 3) or a grey mask (H, W), uint8, under its name in one step.

    Raises:
        NotWritten: it could not be written, of which cv2.imwrite would not say a word.
    """
    shown = image[..., ::-1] if image.ndim == 3 else image
    data = cv2.imencode('.png', np.ascontiguousarray(shown))[1]
    try:
        with unforced_file(path) as part:
            part.write_bytes(data.tobytes())
    except OSError as error:
        raise NotWritten(f'could not be written: {reason(error)}', where=str(path)) from error
