"""Scores of semantic maps from one confusion matrix, pixels pooled over the whole set."""

import numpy as np


class Confusion:
    """Counts pixels of each true and predicted class.

    Args:
        classes: names of the classes 0, 1, ...
        ignore_index: true value of pixels that do not count; any other value that is no class
            is an error.

    Attributes:
        counts: int64 [C, C], true class x predicted class.
    """

    def __init__(self, classes: list[str], ignore_index: int = 255):
        self.classes, self.ignore_index = list(classes), ignore_index
        self.counts = np.zeros((len(classes), len(classes)), np.int64)

    def add(self, truth: np.ndarray, found: np.ndarray) -> None:
        """Count the pixels of one image or batch; both are int arrays of the same shape.

        Raises:
            ValueError: other shapes, or values that are no class.
        """
        if truth.shape != found.shape:
            raise ValueError(f'maps of {truth.shape} and {found.shape} cannot be compared')
        n = len(self.classes)
        counted = truth != self.ignore_index
        t, f = truth[counted].astype(np.int64), found[counted].astype(np.int64)
        if len(t) and not (0 <= min(t.min(), f.min()) and max(t.max(), f.max()) < n):
            raise ValueError(f'values outside of the {n} classes')
        self.counts += np.bincount(t * n + f, minlength=n * n).reshape(n, n)

    def scores(self) -> dict:
        """Return Dice, IoU, precision and recall per class, their means, and pixel accuracy.

        Over pooled pixels F1 and Dice are the same number; it is given under both names. A
        class that is neither there nor predicted has no score (None) and is left out of the
        means.
        """
        counts = self.counts.astype(np.float64)
        hit, true, found = counts.diagonal(), counts.sum(1), counts.sum(0)
        per_class = {}
        for i, name in enumerate(self.classes):
            union = true[i] + found[i] - hit[i]
            dice = 2 * hit[i] / (true[i] + found[i]) if union else None
            per_class[name] = dict(
                dice=dice, f1=dice, iou=hit[i] / union if union else None,
                precision=hit[i] / found[i] if found[i] else None,
                recall=hit[i] / true[i] if true[i] else None, pixels=int(true[i]))
        total = counts.sum()
        scores = {f'mean_{key}': _mean([c[key] for c in per_class.values()])
                  for key in ('dice', 'iou', 'f1')}
        return dict(**scores, pixel_accuracy=float(hit.sum() / total) if total else None,
                    classes=per_class)


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
