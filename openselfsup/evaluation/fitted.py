"""What fitting on training features gives: a classifier, and how it came about."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .logistic import Classifier


@dataclass
class Fitted:
    """A classifier and how it came about.

    Attributes:
        probabilities: maps features (M, D) to class probabilities (M, C), or to scores in [0, 1]
            that rank the tiles of each class.
        settings: everything that defines the protocol, for the results.
        chosen: what was selected on validation tiles.
        classifier: the linear one, where it is linear.
        probable: whether ``probabilities`` are some; otherwise those of two classes do not
            compare, and there is no answer.
        validation_tiles: how many of the tiles that it is fitted to were held out to choose by: the
            mean of several splits, the sum of folds, 0 where nothing was chosen.
    """

    probabilities: Callable[[Tensor], Tensor]
    settings: dict[str, Any]
    chosen: dict[str, Any] = field(default_factory=dict)
    classifier: Classifier | None = None
    probable: bool = True
    validation_tiles: int = 0
