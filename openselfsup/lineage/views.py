"""Published pipelines → recipes of ours."""

import dataclasses
from collections.abc import Callable
from typing import Any

from ..errors import nearest
from ..values import Fraction, Side, Whole
from .fields import Fields, Log, Path

INTERPOLATIONS = {0: 'nearest', 1: 'lanczos', 2: 'bilinear', 3: 'bicubic'}  # PIL's numbers


@dataclasses.dataclass
class Pipeline:
    """A pipeline as it is translated, step by step.

    Attributes:
        size: side of the view in pixels.
        steps: the recipe's steps by name.
        interpolation: of the resize to ``size``.
        normalize: mean and std, None without ``Normalize``.
        shorter: the shorter side of the image so far, in pixels; None where it is the tile's.
        ours: key path of the recipe in our config.
    """

    ours: str
    size: Any = None
    steps: dict[str, dict] = dataclasses.field(default_factory=dict)
    interpolation: str = 'bilinear'
    normalize: dict | None = None
    shorter: int | None = None

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe as a config has it."""
        how = {} if self.interpolation == 'bilinear' else dict(interpolation=self.interpolation)
        return dict(type='ViewRecipe', size=self.size, steps=self.steps, **how)

    def add(self, name: str, step: dict) -> str:
        """Add a step under its name, with a number where that is taken; return its key path."""
        free = name if name not in self.steps else next(
            f'{name}{i}' for i in range(2, 100) if f'{name}{i}' not in self.steps)
        self.steps[free] = step
        return f'{self.ours}.steps.{free}'


def translate_pipeline(items: Any, path: Path, log: Log, ours: str, side: int | None = None
                       ) -> Pipeline:
    """Translate a list of transforms.

    Args:
        items: the list.
        path: where it stands.
        log: takes notes and mistakes.
        ours: key path of the recipe in our config.
        side: side of the tiles in pixels, where the source knows it.
    """
    pipeline = Pipeline(ours, shorter=side)
    for number, item in enumerate(items):
        _add(pipeline, Fields(item, (*path, str(number)), log))
    pipeline.size = pipeline.size or side
    if pipeline.size is None:
        raise Fields({}, path, log).wrong('no transform says how large a view is; expected '
                                          'RandomResizedCrop, RandomCrop, CenterCrop or Resize')
    return pipeline


def _add(pipeline: Pipeline, item: Fields, p: float | None = None) -> None:
    """Translate one transform; ``p`` is the probability of the RandomAppliedTrans around it."""
    kind = item.take('type', kind=str)
    if kind not in TRANSFORMS:
        raise item.wrong(f"no transform is called '{kind}' that is known here",
                         nearest(str(kind), TRANSFORMS))
    TRANSFORMS[kind](pipeline, item, p)
    item.close()


def _always(p: float | None, item: Fields) -> None:
    """Refuse a probability around a transform that happens to every view."""
    if p not in (None, 1):
        item.mistake('p', f'{item.name} happens to every view here, not with p={p}')


def _random_resized_crop(pipeline: Pipeline, item: Fields, p: float | None) -> None:
    _always(p, item)
    _resized(pipeline, item)
    step = dict(type='RandomResizedCrop', scale=item.take('scale', (0.08, 1.0)),
                **item.given('ratio'))
    _interpolate(pipeline, item)
    pipeline.add('crop', step)


def _interpolate(pipeline: Pipeline, item: Fields) -> None:
    how = item.take('interpolation', 2, int | str)
    pipeline.interpolation = INTERPOLATIONS.get(how, how)
    if pipeline.interpolation not in ('bilinear', 'bicubic'):
        item.mistake('interpolation', f'{how!r} is {pipeline.interpolation}; expected 2, bilinear,'
                     ' or 3, bicubic')


def _resize(pipeline: Pipeline, item: Fields, p: float | None) -> None:
    """Remember how large the image now is: views are resized once, at the end."""
    _always(p, item)
    _resized(pipeline, item)
    _interpolate(pipeline, item)


def _resized(pipeline: Pipeline, item: Fields) -> None:
    size = item.take('size', kind=Side)
    pipeline.size, pipeline.shorter = size, size if isinstance(size, int) else min(size)


def _center_crop(pipeline: Pipeline, item: Fields, p: float | None) -> None:
    _always(p, item)
    pipeline.add('center', dict(type='CenterCrop', share=_share(pipeline, item)))


def _random_crop(pipeline: Pipeline, item: Fields, p: float | None) -> None:
    _always(p, item)
    before, step = pipeline.shorter, dict(type='RandomCrop', share=_share(pipeline, item))
    if (padding := item.take('padding', None, Whole)) and before:
        step['padding'] = padding / before
    place = pipeline.add('crop', step)
    if padding:
        item.note('differs', 'what a crop shows beyond the edges is mirrored instead of black',
                  place)


def _share(pipeline: Pipeline, item: Fields) -> float:
    """Return the side of a square crop as a share of the image's shorter side."""
    side, shorter = item.take('size', kind=Side), pipeline.shorter
    if shorter is None or not isinstance(side, int) or side > shorter:
        raise item.wrong(f"{side} pixels of an image of {shorter or 'any size'}; expected a "
                         'square, and Resize with one number before it')
    pipeline.size = pipeline.shorter = side
    return side / shorter


def _applied(pipeline: Pipeline, item: Fields, p: float | None) -> None:
    transforms = item.take('transforms', kind=list)
    if p is not None or len(transforms) != 1:
        raise item.wrong(f'{len(transforms)} transforms happen together or not at all; here each '
                         'step has its own p, so that one may stand there')
    inner = Fields(transforms[0], (*item.path, 'transforms', '0'), item.log)
    _add(pipeline, inner, item.take('p', 0.5, Fraction))


def _simple(kind: str, name: str, p_of_its_own: float | None = None, *keys: str
            ) -> Callable[[Pipeline, Fields, float | None], None]:
    """Return what translates a transform with arguments of the same names.

    Args:
        kind: our step.
        name: under which it stands in a recipe.
        p_of_its_own: the published default of its argument p, None for one without.
        keys: its other arguments.
    """
    def translate(pipeline: Pipeline, item: Fields, p: float | None) -> None:
        chance = 1.0 if p is None else p
        if p_of_its_own is not None:
            chance *= item.take('p', p_of_its_own, Fraction)
        pipeline.add(name, dict(type=kind, **item.given(*keys), p=chance))
    return translate


def _blur(pipeline: Pipeline, item: Fields, p: float | None) -> None:
    sigma = item.take('sigma_min'), item.take('sigma_max')
    pipeline.add('blur', dict(type='GaussianBlur', sigma=sigma, p=1.0 if p is None else p))


def _rotation(pipeline: Pipeline, item: Fields, p: float | None) -> None:
    degrees = item.take('degrees')
    if not isinstance(degrees, (int, float)):
        raise item.wrong(f'degrees is {degrees!r}; expected one number, turned by either way')
    place = pipeline.add('rotation', dict(type='ShiftScaleRotate', shift=0.0, scale=0.0,
                                          degrees=degrees, p=1.0 if p is None else p))
    item.note('differs', 'what a turn brings in from beyond the edges is mirrored tissue instead '
              'of black, and interpolated instead of taken from the nearest pixel', place)


def _normalize(pipeline: Pipeline, item: Fields, p: float | None) -> None:
    pipeline.normalize = mean_and_std(item)


def mean_and_std(fields: Fields) -> dict[str, list[float]]:
    """Return what a dict says of normalisation."""
    return {key: list(fields.take(key, kind=list[float])) for key in ('mean', 'std')}


def _lighting(pipeline: Pipeline, item: Fields, p: float | None) -> None:
    place = pipeline.add('lighting', dict(type='Lighting', p=1.0 if p is None else p))
    item.note('differs', 'values stay whole numbers from 0 to 255', place)


def _to_tensor(pipeline: Pipeline, item: Fields, p: float | None) -> None:
    """Views are tensors here."""


TRANSFORMS: dict[str, Callable[[Pipeline, Fields, float | None], None]] = {
    'Resize': _resize, 'CenterCrop': _center_crop, 'RandomCrop': _random_crop,
    'RandomResizedCrop': _random_resized_crop, 'Lighting': _lighting,
    'RandomAppliedTrans': _applied,
    'ColorJitter': _simple('ColorJitter', 'jitter', None,
                           'brightness', 'contrast', 'saturation', 'hue'),
    'RandomGrayscale': _simple('Grayscale', 'gray', 0.1),
    'GaussianBlur': _blur,
    'Solarization': _simple('Solarize', 'solarize', None, 'threshold'),
    'RandomHorizontalFlip': _simple('HorizontalFlip', 'flip', 0.5),
    'RandomVerticalFlip': _simple('VerticalFlip', 'vflip', 0.5),
    'RandomRotation': _rotation,
    'ToTensor': _to_tensor,
    'Normalize': _normalize}
