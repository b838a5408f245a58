"""Writing prepared images and masks."""

from pathlib import Path

import cv2
import numpy as np

from ...files import unforced_file


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an RGB image (H, W, 3) or a grey mask (H, W), uint8, under its name in one step."""
    shown = image[..., ::-1] if image.ndim == 3 else image
    data = cv2.imencode('.png', np.ascontiguousarray(shown))[1]
    with unforced_file(path) as part:
        part.write_bytes(data.tobytes())
