"""The protocols on cached features: what each of them fits, under which name."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .baselines import COLOUR_HISTOGRAM, COLOUR_STATISTICS
from .cached_features import Features
from .fitted import Fitted
from .knn import fit_knn
from .linear_probe import fit_linear
from .sampling import draw_shots
from .settings import KNN, LINEAR, LOW_SHOT, STAGES, SVM, EvaluationSettings
from .stages import STAGES_OF
from .svm import SHOTS, fit_svm

FROZEN = (LINEAR, KNN, STAGES, SVM, LOW_SHOT)


@dataclass
class Labelled:
    """The labelled tiles of one share and seed.

    Attributes:
        indices: int64 (N,), which training tiles.
        labels: int64 (N,), their classes.
        classes: C.
        seed: draws whatever a protocol draws.
        patients: of each tile, (N,), or None.
    """

    indices: np.ndarray
    labels: np.ndarray
    classes: int
    seed: int
    patients: np.ndarray | None


@dataclass
class Fit:
    """A classifier that a protocol came to.

    Attributes:
        label: of its row: the protocol, and which of several it is.
        fitted: the classifier.
        tiles: how many it was fitted to.
        test: features of the test tiles that it takes.
    """

    label: str
    fitted: Fitted
    tiles: int
    test: Tensor


def fits(protocol: str, name: str, features: Features, labelled: Labelled,
         settings: EvaluationSettings) -> Iterator[Fit]:
    """Yield everything that a protocol fits to the features of one network.

    Args:
        protocol: one of :data:`FROZEN`.
        name: of the network, or of a colour baseline.
        features: of all tiles.
        labelled: what may be learnt from.
        settings: of knn-v1.
    """
    truth = torch.from_numpy(labelled.labels)
    copies = features.copies(labelled.indices)
    common = labelled.classes, labelled.seed
    if protocol == STAGES:
        if name + STAGES_OF not in features.test:
            return  # colours have no stages
        train = features.train(name + STAGES_OF, labelled.indices)
        for stage, (own, test) in enumerate(zip(
                features.by_stage(name, train),
                features.by_stage(name, features.test[name + STAGES_OF]))):
            yield Fit(f'{protocol} (stage {stage})', fit_linear(
                own, truth, *common, labelled.patients, copies), len(truth), test)
        return
    own, test = features.train(name, labelled.indices), features.test[name]
    if protocol == LINEAR:
        yield Fit(protocol, fit_linear(own, truth, *common, labelled.patients, copies),
                  len(truth), test)
    elif protocol == KNN:
        yield Fit(protocol, fit_knn(own, truth, labelled.classes, settings.knn_k,
                                    settings.knn_temperature,
                                    standardise=name in (COLOUR_STATISTICS, COLOUR_HISTOGRAM)),
                  len(truth), test)
    elif protocol == SVM:
        yield Fit(protocol, fit_svm(own, truth, *common, labelled.patients, copies),
                  len(truth), test)
    else:
        for shots in SHOTS:
            chosen = draw_shots(labelled.labels, shots, labelled.seed)
            if chosen is None:  # so have all that need more
                return
            yield Fit(f'{protocol} ({shots} of each class)', fit_svm(
                own[torch.from_numpy(chosen)], truth[torch.from_numpy(chosen)], *common,
                None if labelled.patients is None else labelled.patients[chosen],
                copies[chosen]), len(chosen), test)
