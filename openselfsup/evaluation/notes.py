"""What a reader must know beside the numbers: said on the console, kept in the results."""

from collections.abc import Callable

import numpy as np

from .cached_features import Features
from .data import EvaluationData
from .linear_probe import TOLERANCE
from .sampling import too_small_for
from .settings import LOW_SHOT
from .svm import SHOTS

UNSOLVED = 10 * TOLERANCE  # what a gradient may be before it moves an accuracy


class Notes:
    """Sentences that belong beside every number; each is kept and said once.

    Args:
        data: the tiles, whose notes come first.
        say: receives every line that a user should read.

    Attributes:
        texts: the sentences so far.
    """

    def __init__(self, data: EvaluationData, say: Callable[[str], None]):
        self.texts, self.say, self._data = list(data.notes), say, data

    def add(self, text: str) -> None:
        """Keep a sentence and say it, unless it is known."""
        if text not in self.texts:
            self.texts.append(text)
            self.say(text)

    def say_data(self) -> None:
        """Say how many tiles there are, of which classes, and what was noted of them."""
        data = self._data
        self.say(f'{len(data.train)} training tiles, {len(data.test)} test tiles, '
                 f'{len(data.classes)} classes: {", ".join(data.classes)}')
        for note in data.notes:
            self.say(note)

    def small_fractions(self, fractions: tuple[float, ...]) -> None:
        """Tell the classes of which a labelled share is less than one tile."""
        for fraction in fractions:
            few = too_small_for(self._data.train.require_labels(), fraction)
            if few:
                names = ', '.join(self._data.classes[i] for i in few)
                self.add(f'{fraction:g} of the training tiles is less than one tile of {names}: '
                         'one is taken of each.')

    def few_shots(self, labels: np.ndarray, fraction: float, seed: int) -> None:
        """Tell which numbers of tiles of each class are not there to be drawn."""
        least = int(np.bincount(labels)[np.unique(labels)].min())
        if missing := [shots for shots in SHOTS if shots > least]:
            self.add(f'{LOW_SHOT}, {100 * fraction:g} % labelled, seed {seed}: a class has '
                     f'{least} labelled tiles, so that {", ".join(map(str, missing))} of each '
                     'class are left out.')

    def shared_pixels(self, features: Features) -> None:
        """Tell the test tiles that are training tiles in another file format or container."""
        test, train = features.shared()
        data = self._data
        if len(test) <= (data.shared['tiles'] or 0):  # told already, file by file
            return
        data.shared['tiles'] = len(test)
        pair = data.test.path(int(test[0])), data.train.path(int(train[0]))
        self.add(data.tell_overlap(
            f'{len(test)} of {len(data.test)} test tiles have the same pixels as labelled '
            f'training tiles, such as {pair[0]} and {pair[1]}'))

    def choice(self, protocol: str, fraction: float, seed: int, chosen: dict,
               by_patient: bool) -> None:
        """Tell where a setting was not chosen as it should be, or a fit did not end.

        Args:
            protocol, fraction, seed: of the row.
            chosen: what was selected on validation tiles, and how.
            by_patient: whether patients are known, so that whole ones should be held out.
        """
        what = f'{protocol}, {100 * fraction:g} % labelled, seed {seed}'
        if by_patient and chosen.get('validated_by', 'patients') != 'patients':
            self.add(f'{what}: no whole patients could be held out of the labelled tiles, so '
                     f"{chosen['validated_by']} chose its settings.")
        if chosen.get('gradient_left', 0) > UNSOLVED:
            self.add(f"{what}: the solver stopped at a gradient of {chosen['gradient_left']:g}; "
                     f'up to {UNSOLVED:g} moves no accuracy.')
