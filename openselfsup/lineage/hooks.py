"""Published ``custom_hooks`` → ours; what some of them say becomes arguments of the method."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import nearest
from ..values import Count, NotNegative
from .fields import Fields, Log

Hooks = list[dict[str, Any]]


class Rest(NamedTuple):
    """What the rest of a published config says that its hooks must agree with.

    Attributes:
        tiles: ``data_source`` of the training tiles.
        normalize: ``img_norm_cfg``.
        passes: ``update_interval`` of the optimiser.
    """

    tiles: Any
    normalize: Any
    passes: Any


def translate_hooks(hooks: Any, model: dict[str, Any], rest: Rest, log: Log) -> Hooks:
    """Return our ``hooks``.

    Args:
        hooks: the published list.
        model: our model, to which arguments are added.
        rest: what they must agree with.
        log: takes notes and mistakes.
    """
    ours: Hooks = []
    for number, hook in enumerate(hooks):
        fields = Fields(hook, ('custom_hooks', str(number)), log)
        kind = fields.take('type', kind=str)
        if kind not in HOOKS:
            raise fields.wrong(f"no hook is called '{kind}' that is known here",
                               nearest(str(kind), HOOKS))
        ours += HOOKS[kind](fields, model, rest)
        fields.close()
    if 'warmup_epochs' in model and model['warmup_epochs'] is None:
        raise Fields({}, ('model',), log).wrong(
            'warmup=True without a ConCLHook: the concept loss would never begin; expected '
            "custom_hooks=[dict(type='ConCLHook', warm_up_epoch=20)]")
    return ours


def _validate(fields: Fields, model: dict[str, Any], rest: Rest) -> Hooks:
    fields.note('ignored', 'labelled tiles are looked at by `openselfsup evaluate` after the run')
    for key in ('dataset', 'interval', 'initial', 'imgs_per_gpu', 'workers_per_gpu', 'prefetch',
                'img_norm_cfg', 'eval_param'):
        fields.take(key, None)
    return []


def _byol(fields: Fields, model: dict[str, Any], rest: Rest) -> Hooks:
    fields.only('end_momentum', 1.0, 'the momentum of BYOL rises to 1 here')
    passes = fields.take('update_interval', 1, Count)
    if passes != rest.passes:
        fields.note('differs', f'the target moves once a step of the optimiser, which is '
                    f'{rest.passes} passes; published: after every {passes}', 'model',
                    key='update_interval')
    return []


def _concl(fields: Fields, model: dict[str, Any], rest: Rest) -> Hooks:
    epochs = fields.take('warm_up_epoch', 10)
    if model.get('warmup_epochs') != 0:  # model.warmup=False needs no start
        model['warmup_epochs'] = epochs
    return []


def _deepcluster(fields: Fields, model: dict[str, Any], rest: Rest) -> Hooks:
    """DeepCluster's clusters of each epoch, or those that ODC starts from."""
    fields.only('initial', True, 'clusters are found before the first step here')
    extractor = fields.part('extractor')
    ours = dict(batch_size=extractor.take('imgs_per_gpu'), **_extracted(extractor, rest))
    extractor.ignore('tiles are read by as many as fit the machine', 'workers_per_gpu')
    extractor.close()
    clustering = fields.part('clustering')
    clustering.only('type', 'Kmeans', 'k-means is what is here')
    clustering.only('k', model['head']['num_classes'], 'the head has a class for each cluster')
    pca_dim = clustering.take('pca_dim', -1, int)
    clustering.close()
    uniform, interval = fields.take('unif_sampling', kind=bool), fields.take('interval', 1, Count)
    model.update(reweight=fields.take('reweight', kind=bool),
                 reweight_pow=fields.take('reweight_pow', kind=NotNegative))
    if fields.take('init_memory', False, bool):
        if pca_dim > 0 or uniform:
            raise fields.wrong('ODC starts from clusters of its features as they are, and sees '
                               'every tile; expected pca_dim=-1 and unif_sampling=False')
        return [dict(type='ODCHook', **ours)]
    return [dict(type='DeepClusterHook', interval=interval, uniform_sampling=uniform,
                 pca_dim=pca_dim if pca_dim > 0 else None, **ours)]


def _extracted(extractor: Fields, rest: Rest) -> dict[str, Any]:
    """Return how large the clustered tiles are; they must be those that are trained on."""
    dataset = extractor.part('dataset')
    dataset.only('type', 'DeepClusterDataset', 'it is DeepClusterDataset')
    dataset.only('data_source', rest.tiles, f'here those tiles are clustered that are trained on, '
                 f'{rest.tiles}')
    sizes = {}
    for number, values in enumerate(dataset.take('pipeline', kind=list)):
        item = dataset.part_of(values, f'pipeline.{number}')
        kind = item.take('type', kind=str)
        if kind == 'Normalize':
            if item.given('mean', 'std') != rest.normalize is not None:
                item.mistake('mean', 'these tiles are normalised otherwise than those that are '
                             'trained on; here all are alike')
        elif kind != 'ToTensor':
            sizes[kind] = item.take('size', kind=Count)
        item.close()
    if set(sizes) != {'Resize', 'CenterCrop'}:
        raise dataset.wrong('the clustered tiles undergo ' + (', '.join(sizes) or 'nothing')
                            + '; expected Resize and CenterCrop')
    dataset.take('prefetch', False, bool)
    dataset.close()
    return dict(resize=sizes['Resize'], size=sizes['CenterCrop'])


def _odc(fields: Fields, model: dict[str, Any], rest: Rest) -> Hooks:
    ours = {key: fields.take(key) for key in (
        'centroids_update_interval', 'deal_with_small_clusters_interval', 'reweight',
        'reweight_pow')}
    for key in ours.keys() & model.keys():
        if ours[key] != model[key]:
            fields.note('differs', f'{ours[key]} from the first step on; published: {model[key]}, '
                        'of the DeepClusterHook, until the first update', f'model.{key}', key=key)
    model.update(ours)
    fields.ignore('metrics.jsonl tells of the clusters', 'evaluate_interval')
    return []


HOOKS: dict[str, Callable[[Fields, dict[str, Any], Rest], Hooks]] = {
    'ValidateHook': _validate, 'BYOLHook': _byol, 'ConCLHook': _concl,
    'DeepClusterHook': _deepcluster, 'ODCHook': _odc}
