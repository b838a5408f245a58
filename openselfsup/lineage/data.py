"""Published ``data`` → our ``dataset`` and what of a batch stands there: size, workers."""

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import nearest
from .fields import Fields
from .views import Pipeline, mean_and_std, translate_pipeline

Dataset = tuple[dict[str, Any], list[Pipeline]]
Views = Callable[[Fields, dict[str, Any]], Dataset]


def translate_data(fields: Fields, prefetch: bool, img_norm_cfg: Any) -> dict[str, Any]:
    """Return our ``dataset``, ``normalize``, ``workers`` and ``drop_last``.

    Args:
        fields: the published ``data``, of which ``imgs_per_gpu`` has been taken.
        prefetch: whether views are normalised on the GPU, by ``img_norm_cfg``.
        img_norm_cfg: mean and std at the top of the config.
    """
    ours: dict[str, Any] = {}
    train = fields.take('train')
    if isinstance(train, (list, tuple)):
        dataset, pipelines = _joined(train, fields)
    else:
        dataset, pipelines = _dataset(fields.part_of(train, 'train'))
    ours['dataset'] = dataset
    ours['normalize'] = _normalize(fields, pipelines, prefetch, img_norm_cfg)
    ours['workers'] = fields.take('workers_per_gpu')
    ours['drop_last'] = fields.take('drop_last', False)
    if not ours['drop_last']:
        fields.note('kept', 'the last step of an epoch sees the tiles that are left; published '
                    'ranks fill it with tiles of the same epoch, and configs of ours leave it out',
                    'drop_last', key='drop_last')
    if fields.take('sampling_replace', False, bool):
        fields.note('differs', 'every tile is seen once an epoch; published draws them with '
                    'replacement, which leaves out 37 % of them', 'dataset',
                    key='sampling_replace')
    fields.ignore('labelled tiles are looked at by `openselfsup evaluate` after the run',
                  'val', 'test')
    fields.close()
    return ours


def _dataset(train: Fields) -> Dataset:
    """Return our dataset for a published one, and the pipelines of its views."""
    kind = train.take('type', kind=str)
    if kind == 'RepeatDataset':
        dataset, pipelines = _dataset(train.part('dataset'))
        times = train.take('times')
        dataset['source'] = dict(type='Mixed', sources=[dataset['source']], repeat=[times])
        train.close()
        return dataset, pipelines
    if kind not in DATASETS:
        raise train.wrong(f"no dataset here is called '{kind}' (there are: {', '.join(DATASETS)})",
                          nearest(str(kind), DATASETS))
    source = translate_source(train.part('data_source'))
    views, pipelines = DATASETS[kind](train, source)
    train.take('prefetch', False, bool)  # here views are always normalised where the model is
    train.close()
    return dict(type='TileDataset', source=source, **views), pipelines


def _joined(trains: Any, fields: Fields) -> Dataset:
    """Return one dataset of several whose views undergo the same."""
    if not trains:
        raise fields.wrong('data.train is empty; expected a data set, or a list of some')
    found = [_dataset(fields.part_of(train, f'train.{i}')) for i, train in enumerate(trains)]
    dataset, pipelines = found[0]
    for other, _ in found[1:]:
        if {**other, 'source': None} != {**dataset, 'source': None}:
            raise fields.wrong('the data sets of data.train differ in more than their tiles; here '
                               'all tiles of a run have one recipe')
    dataset['source'] = dict(type='Mixed', sources=[other['source'] for other, _ in found])
    return dataset, pipelines


# Views

def _same_views(n_views: int) -> Views:
    """Return what translates a dataset of views by one pipeline."""
    def translate(train: Fields, source: dict) -> Dataset:
        side = 32 if source['type'].startswith('Cifar') else None
        found = translate_pipeline(train.take('pipeline', kind=list), (*train.path, 'pipeline'),
                                   train.log, 'dataset.recipe', side)
        return dict(recipe=found.recipe, n_views=n_views), [found]
    return translate


def _two_pipelines(train: Fields, source: dict) -> Dataset:
    found = {f'view{i}': translate_pipeline(
        train.take(f'pipeline{i}', kind=list), (*train.path, f'pipeline{i}'), train.log,
        f'dataset.recipe.view{i}') for i in (1, 2)}
    return dict(recipe={name: one.recipe for name, one in found.items()}), [*found.values()]


def _with_reference(train: Fields, source: dict) -> Dataset:
    """Two views, and as a third the box around both, resized bicubically."""
    found = translate_pipeline(train.take('pipeline', kind=list), (*train.path, 'pipeline'),
                               train.log, 'dataset.recipe.query')
    reference = dict(type='UnionView', of=['query', 'key'], size=found.size)
    return dict(recipe=dict(query=found.recipe, key=found.recipe, reference=reference)), [found]


def _formatted(train: Fields, source: dict) -> Dataset:
    """Views that are cut into patches by the method, and formatted then."""
    views, pipelines = _same_views(1)(train, source)
    for i, values in enumerate(train.take('format_pipeline', kind=list)):
        item = train.part_of(values, f'format_pipeline.{i}')
        kind = item.take('type')
        if kind == 'Normalize':
            pipelines[0].normalize = mean_and_std(item)
        elif kind != 'ToTensor':
            raise item.wrong(f'{kind} of patches is not here; expected ToTensor and Normalize')
        item.close()
    return views, pipelines


def _boxes(views: Views) -> Views:
    """Return what translates a dataset that tells where the cells of a grid lie."""
    def translate(train: Fields, source: dict) -> Dataset:
        grid = train.take('grid_size')
        train.note('ignored', f'{grid}: the grid is that of the feature map, and where its cells '
                   'lie is known exactly', 'dataset', key='grid_size')
        return views(train, source)
    return translate


DATASETS: dict[str, Views] = {
    'ContrastiveDataset': _same_views(2), 'ContrastiveDatasetBoxes': _boxes(_same_views(2)),
    'ContrastiveDatasetTrans': _with_reference,
    'ContrastiveDatasetTransBoxes': _boxes(_with_reference), 'BYOLDataset': _two_pipelines,
    'ClassificationDataset': _same_views(1), 'NPIDDataset': _same_views(1),
    'RotationPredDataset': _same_views(1), 'DeepClusterDataset': _same_views(1),
    'RelativeLocDataset': _formatted}
SOURCES = ('ImageList', 'ImageNet', 'Places205', 'Cifar10', 'Cifar100')


# Tiles

def translate_source(source: Fields) -> dict[str, Any]:
    """Return our ``source`` for a published ``data_source``."""
    kind = source.take('type', kind=str)
    if kind not in SOURCES:
        raise source.wrong(f"no source of tiles here is called '{kind}'",
                           nearest(str(kind), SOURCES))
    if kind.startswith('Cifar'):
        ours = dict(type=kind, root=source.take('root'), split=source.take('split'))
        source.take('return_label', True, bool)
        source.close()
        return ours
    ours = dict(type='ImageList', root=source.take('root'), list_file=source.take('list_file'))
    source.ignore('tiles are read from the disk, or packed into one file by `openselfsup pack`',
                  'memcached', 'mclient_path')
    source.take('return_label', True, bool)  # labels are there where the list has them
    source.close()
    return ours


def _normalize(fields: Fields, pipelines: list[Pipeline], prefetch: bool, img_norm_cfg: Any
               ) -> dict[str, Any]:
    """Return mean and std, which all views must have in common."""
    found = [pipeline.normalize for pipeline in pipelines]
    if prefetch:
        if not isinstance(img_norm_cfg, Mapping):
            raise fields.wrong('prefetch=True needs img_norm_cfg at the top, by which views are '
                               'normalised on the GPU')
        found = [mean_and_std(Fields(img_norm_cfg, ('img_norm_cfg',), fields.log))]
    if any(other != found[0] for other in found):
        raise fields.wrong('the views are normalised differently; here one mean and std is for all')
    if found[0] is None:
        fields.note('kept', 'views are in [0, 1]: this pipeline has no Normalize', 'normalize')
        return dict(mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0])
    return found[0]
