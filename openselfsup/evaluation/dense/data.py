"""What a dense evaluation learns from and what it is tested on."""

from dataclasses import dataclass

import numpy as np

from ...errors import UserError
from ..copies import same_files
from ..data import EvaluationData, check_copies, check_disjoint, check_patients
from ..patients import all_or_none, check_pattern, compile_pattern, patients_of
from ..sampling import hold_out
from .masks import IGNORED, Codes, MaskedImages, check_pairs, find_codes, pair_up


@dataclass
class DenseData(EvaluationData):
    """Images with masks, to learn from and to test on; see :class:`EvaluationData`."""

    train: MaskedImages
    test: MaskedImages

    def cases(self, part: str) -> np.ndarray:
        """Return the case of each image of 'train' or 'test': its patient, else the image itself.

        Of a single patient there is nothing to redraw or to hold out: then images are cases too.
        """
        patients = getattr(self, f'{part}_patients')
        if patients is None or len(np.unique(patients)) == 1:
            return np.arange(len(getattr(self, part)))
        return np.unique(patients, return_inverse=True)[1]


def find_dense_data(train: str | None, train_masks: str | None, test: str | None = None,
                    test_masks: str | None = None, share: float | None = None,
                    instances: bool = False, patient_pattern: str | None = None,
                    allow_overlap: bool = False, seed: int = 0) -> DenseData:
    """Find images and masks, and refuse what would make the result meaningless.

    Args:
        train, train_masks: folders of the training images and their masks, see
            :func:`.masks.pair_up`.
        test, test_masks: folders of the test.
        share: hold out this share of the training images, or of whole patients where paths tell
            them, where there is no test.
        instances: masks hold instance ids, see :func:`.masks.find_codes`.
        patient_pattern: regular expression that finds the patient in an image's path.
        allow_overlap: warn where both parts have patients or images in common.
        seed: draws the split.

    Raises:
        UserError: folders that are missing or do not pair up, masks that cannot be used,
            patients or images in both parts, nothing that could be held out.
    """
    compile_pattern(patient_pattern)  # before the masks are read, which can take minutes
    if train is None or train_masks is None:
        raise UserError('no images with masks are given',
                        where='--train' if train is None else '--train_masks',
                        expected='--train IMAGES and --train_masks MASKS')
    if (test is None) != (test_masks is None):
        raise UserError('is missing', where='--test' if test is None else '--test_masks',
                        expected='--test IMAGES and --test_masks MASKS, or --holdout SHARE')
    if (test is None) == (share is None):
        raise UserError('there is nothing to test on' if test is None else
                        '--test and --holdout exclude each other', where='--dense',
                        expected='--test IMAGES and --test_masks MASKS, or --holdout SHARE')
    pairs = pair_up(train, train_masks, '--train and --train_masks')
    others = (pair_up(test, test_masks, '--test and --test_masks')
              if test is not None and test_masks is not None else None)
    codes, said, values = find_codes(pairs, instances)
    images = MaskedImages(pairs, codes, train)
    if others is None:
        return _held_out(images, share or 0.0, seed, patient_pattern, said,
                         _present(pairs, codes, values))
    tested_classes = _present(others, codes, check_pairs(others))
    tested = MaskedImages(others, codes, str(test))
    told = [patients_of(part.paths, patient_pattern) for part in (images, tested)]
    check_pattern(patient_pattern, np.concatenate(told), [*images.paths, *tested.paths])
    data = DenseData(images, tested, list(codes.classes), published=allow_overlap, notes=[said])
    check_patients(data, *told)
    check_disjoint(images, tested)
    check_copies(data)
    data.train_patients, data.test_patients = map(all_or_none, told)
    _tell_patients(data)
    _tell_classes(data, tested_classes)
    return data


def _present(pairs: list[tuple[str, str]], codes: Codes, values: list[set[int]]) -> np.ndarray:
    """Return which class is in which mask, bool (images, classes).

    Raises:
        UserError: values that are no class.
    """
    found = np.zeros((len(pairs), len(codes.classes)), bool)
    for row, (_, mask), own in zip(found, pairs, values):
        labels = codes.labels(np.array([sorted(own)]), mask)
        row[labels[labels != IGNORED]] = True
    return found


def _held_out(images: MaskedImages, share: float, seed: int, pattern: str | None,
              said: str, present: np.ndarray) -> DenseData:
    """Hold out whole patients, or single images where paths do not tell them.

    Of each class (``present`` in which image, bool (images, classes)) an image stays.
    """
    if not 0 < share < 1:
        raise UserError(f'{share} is no share', where='--holdout', expected='between 0 and 1')
    told = patients_of(images.paths, pattern)
    check_pattern(pattern, told, images.paths)
    groups = all_or_none(told)
    copies = same_files(images)[0]
    # Without patients an image and its copies are a group of their own.
    kept, held = hold_out(np.zeros(len(images), np.int64), share, seed,
                          copies if groups is None else groups)
    owners = copies if groups is None else groups
    for label in range(present.shape[1]):
        if not present[kept, label].any() and len(having := held[present[held, label]]):
            back = np.isin(owners, owners[having[0]])
            kept, held = np.union1d(kept, np.flatnonzero(back)), held[~back[held]]
    held = held[~np.isin(copies[held], copies[kept])]
    if not len(held):
        raise UserError('no image can be held out that is not of a training patient, a copy of a '
                        'training image, or all that there is of some class', where='--holdout',
                        expected='two patients or more of each class, or --test')
    data = DenseData(images.part(kept), images.part(held), images.require_classes(), notes=[said])
    how = 'single images'
    if groups is not None:
        data.train_patients, data.test_patients = groups[kept], groups[held]
        data.shared['patients'] = 0
        how = (f'whole patients, {len(np.unique(groups[held]))} of {len(np.unique(groups))}, with '
               f'{100 * len(held) / len(images):.0f} % of the images')
    data.notes.append(f'The test images were held out of one folder by seed {seed}: {how}.')
    _tell_patients(data)
    _tell_classes(data, present[held])
    return data


def _tell_classes(data: DenseData, present: np.ndarray) -> None:
    """Note classes that are in no test image, by ``present``, bool (images, classes)."""
    if missing := [name for i, name in enumerate(data.classes) if not present[:, i].any()]:
        data.notes.append(f"No test image has {', '.join(missing)}: whether they are found is not "
                          'tested.')


def _tell_patients(data: DenseData) -> None:
    if data.train_patients is None or data.test_patients is None:
        data.notes.append('WARNING: the paths tell no patients, so training and test images may '
                          'come from one patient, and intervals treat images as independent '
                          '(--patient_pattern finds ids in paths).')
    elif len(np.unique(data.test_patients)) == 1:
        data.notes.append('WARNING: all test images are of one patient: intervals redraw images '
                          'and say nothing of other patients.')
