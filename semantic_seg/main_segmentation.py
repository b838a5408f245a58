"""PLM's path of `openselfsup segment semantic`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from openselfsup.cli.published import published
from openselfsup.lineage.semantic_segmentation import translate

if __name__ == '__main__':
    published(translate)
