"""A small cohort of synthetic slides."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed.slide_files import demo_tissue, write_slide


@pytest.fixture(scope='session')
def tissue_image() -> np.ndarray:
    """Real tissue with a margin of glass, 1400 x 1100 px."""
    return demo_tissue(1400, 1100, 200)


@pytest.fixture(scope='session')
def cohort(tissue_image, tmp_path_factory) -> Path:
    """Three slides of differing formats and magnifications, and the cache of their masks."""
    folder = tmp_path_factory.mktemp('cohort')
    write_slide(folder / 'a.svs', tissue_image, 0.5, kind='svs')
    write_slide(folder / 'b.tif', tissue_image[:, ::-1], 0.25, tile=128)
    write_slide(folder / 'c.ome.tif', tissue_image[::-1], 0.4, kind='ome', big=True)
    return folder
