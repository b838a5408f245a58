from pathlib import Path

import cv2
import numpy as np
import pytest

DEMO = Path(__file__).parents[2] / 'data' / 'demo'


@pytest.fixture(scope='session')
def tiles() -> list[np.ndarray]:
    """Real tiles of both sources, 224 x 224 RGB."""
    paths = sorted(DEMO.glob('kather2016/*/*.png'))[::2] + sorted(DEMO.glob('cmu1/*.jpg'))[::2]
    assert len(paths) > 40
    return [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
