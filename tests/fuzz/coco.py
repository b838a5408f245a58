"""COCO files: what is accepted scores perfectly, and is what pycocotools reads by itself."""

import atexit
import contextlib
import io
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools.coco import COCO

from openselfsup.datasets.prepare.annotations import read_coco
from openselfsup.datasets.prepare.instances import annotations_of, decode
from openselfsup.datasets.prepare.report import Report
from openselfsup.errors import UserError
from openselfsup.transfer.instance.metrics import evaluate_instances

SUFFIX = '.json'
_SIZE = (40, 48)


def seeds() -> list[bytes]:
    """Run lengths as text, as lists and polygons; ids from 0, of text, and none."""
    ids = np.zeros(_SIZE, int)
    ids[3:10, 4:15], ids[20:30, 20:40] = 1, 2
    files = []
    for form in ('text', 'list', 'polygon'):
        annotations = [a for i in (0, 1) for a in annotations_of(
            ids, i, 'polygon' if form == 'polygon' else 'rle')]
        for number, annotation in enumerate(annotations):
            annotation['id'] = number
            if form == 'list':
                annotation['segmentation'] = dict(size=list(_SIZE), counts=_runs(ids == 1 + (
                    number % 2)))
            if form == 'polygon':
                del annotation['id'], annotation['area']
        images = [dict(id=i, file_name=f'{i}.png', height=_SIZE[0], width=_SIZE[1])
                  for i in (0, 1)]
        files.append(json.dumps(dict(images=images, categories=[dict(id=1, name='gland')],
                                     annotations=annotations)).encode())
    return files


def check(path: Path, original: bytes) -> None:
    """Read a file beside its images as training does, and score what is accepted."""
    target, report = _folder() / 'annotations' / 'train.json', Report('')
    shutil.copy(path, target)
    coco = read_coco(target, report)
    str(report).encode()
    if report.problems:
        raise UserError(str(report))
    truth = coco.truth
    own = [a for a in truth['annotations'] if not a['iscrowd']]
    scores = evaluate_instances(truth, [dict(a, score=0.9) for a in own], None,
                                max_detections=1000)['scores']['all']
    for kind in ('bbox', 'segm'):
        assert scores[kind]['AP'] is None and not own or abs(scores[kind]['AP'] - 1) < 1e-9
    assert [scores['objects'][key] for key in ('f1', 'dice', 'aji', 'pq')] == [1] * 4
    content = json.loads(target.read_text(encoding='utf-8-sig'))
    masks = [decode(a['segmentation'], *_SIZE) for a in truth['annotations']]
    for entry in content['annotations']:
        theirs = _theirs(entry)
        assert theirs is None or any((mask == theirs).all() for mask in masks)


def _theirs(entry: dict) -> np.ndarray | None:
    """The mask that pycocotools reads, None where it reads none."""
    reader = COCO()
    reader.imgs = {entry['image_id']: dict(height=_SIZE[0], width=_SIZE[1])}
    if isinstance(entry['segmentation'], list) and not isinstance(entry['segmentation'][0], list):
        return None
    if isinstance(entry['segmentation'], list) and min(map(len, entry['segmentation'])) < 6:
        return None  # four numbers are a box to pycocotools
    with contextlib.redirect_stdout(io.StringIO()):
        return reader.annToMask(entry).astype(bool)


def _runs(mask: np.ndarray) -> list[int]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [0]])))
    return np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()


_MADE: list[Path] = []


def _folder() -> Path:
    """The folder of the images, made once."""
    if not _MADE:
        folder = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        for name in ('train', 'annotations'):
            (folder / name).mkdir()
        for i in (0, 1):
            Image.new('RGB', _SIZE[::-1], (9 * i,) * 3).save(folder / 'train' / f'{i}.png')
        _MADE.append(folder)
    return _MADE[0]
