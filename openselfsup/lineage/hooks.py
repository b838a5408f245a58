"""Published ``custom_hooks`` → ours; what some of them say becomes arguments of the method."""

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import nearest
from .fields import Fields, Log

Hooks = list[dict[str, Any]]


def translate_hooks(hooks: Any, model: dict[str, Any], tiles: Any, log: Log) -> Hooks:
    """Return our ``hooks``.

    Args:
        hooks: the published list.
        model: our model, to which arguments are added.
        tiles: the published ``data_source`` of the training tiles.
        log: takes notes and mistakes.
    """
    ours: Hooks = []
    for number, hook in enumerate(hooks):
        fields = Fields(hook, ('custom_hooks', str(number)), log)
        kind = fields.take('type', kind=str)
        if kind not in HOOKS:
            raise fields.wrong(f"no hook is called '{kind}' that is known here",
                               nearest(str(kind), HOOKS))
        ours += HOOKS[kind](fields, model, tiles)
        fields.close()
    if 'warmup_epochs' in model and model['warmup_epochs'] is None:
        raise Fields({}, ('model',), log).wrong(
            'warmup=True without a ConCLHook: the concept loss would never begin; expected '
            "custom_hooks=[dict(type='ConCLHook', warm_up_epoch=20)]")
    return ours


def _validate(fields: Fields, model: dict[str, Any], tiles: Any) -> Hooks:
    fields.note('ignored', 'labelled tiles are looked at by `openselfsup evaluate` after the run')
    for key in ('dataset', 'interval', 'initial', 'imgs_per_gpu', 'workers_per_gpu', 'prefetch',
                'img_norm_cfg', 'eval_param'):
        fields.take(key, None)
    return []


def _byol(fields: Fields, model: dict[str, Any], tiles: Any) -> Hooks:
    fields.only('end_momentum', 1.0, 'the momentum of BYOL rises to 1 here')
    fields.take('update_interval', 1)  # the target follows each step of the optimiser
    return []


def _concl(fields: Fields, model: dict[str, Any], tiles: Any) -> Hooks:
    epochs = fields.take('warm_up_epoch', 10)
    if model.get('warmup_epochs') != 0:  # model.warmup=False needs no start
        model['warmup_epochs'] = epochs
    return []


def _deepcluster(fields: Fields, model: dict[str, Any], tiles: Any) -> Hooks:
    """DeepCluster's clusters of each epoch, or those that ODC starts from."""
    fields.only('initial', True, 'clusters are found before the first step here')
    extractor = fields.part('extractor')
    ours = dict(batch_size=extractor.take('imgs_per_gpu'), **_extracted(extractor, tiles))
    extractor.ignore('tiles are read by as many as fit the machine', 'workers_per_gpu')
    extractor.close()
    clustering = fields.part('clustering')
    clustering.only('type', 'Kmeans', 'k-means is what is here')
    clustering.only('k', model['head']['num_classes'], 'the head has a class for each cluster')
    pca_dim = clustering.take('pca_dim', -1, int)
    clustering.close()
    uniform, interval = fields.take('unif_sampling'), fields.take('interval', 1)
    model.update(reweight=fields.take('reweight'), reweight_pow=fields.take('reweight_pow'))
    if fields.take('init_memory', False):
        if pca_dim > 0 or uniform:
            raise fields.wrong('ODC starts from clusters of its features as they are, and sees '
                               'every tile; expected pca_dim=-1 and unif_sampling=False')
        return [dict(type='ODCHook', **ours)]
    return [dict(type='DeepClusterHook', interval=interval, uniform_sampling=uniform,
                 pca_dim=pca_dim if pca_dim > 0 else None, **ours)]


def _extracted(extractor: Fields, tiles: Any) -> dict[str, Any]:
    """Return how large the clustered tiles are; they must be those that are trained on."""
    dataset = extractor.part('dataset')
    dataset.take('type')
    if (found := dataset.take('data_source')) != tiles:
        dataset.mistake('data_source', f'{found} is clustered, {tiles} is trained on; here they '
                        'are the same tiles')
    sizes = {item['type']: item.get('size') for item in dataset.take('pipeline', kind=list)
             if isinstance(item, Mapping) and item.get('type') not in ('ToTensor', 'Normalize')}
    if set(sizes) != {'Resize', 'CenterCrop'}:
        raise dataset.wrong('the clustered tiles undergo ' + (', '.join(sizes) or 'nothing')
                            + '; expected Resize and CenterCrop')
    dataset.take('prefetch', False)
    dataset.close()
    return dict(resize=sizes['Resize'], size=sizes['CenterCrop'])


def _odc(fields: Fields, model: dict[str, Any], tiles: Any) -> Hooks:
    model.update({key: fields.take(key) for key in (
        'centroids_update_interval', 'deal_with_small_clusters_interval', 'reweight',
        'reweight_pow')})
    fields.ignore('metrics.jsonl tells of the clusters', 'evaluate_interval')
    return []


HOOKS: dict[str, Callable[[Fields, dict[str, Any], Any], Hooks]] = {
    'ValidateHook': _validate, 'BYOLHook': _byol, 'ConCLHook': _concl,
    'DeepClusterHook': _deepcluster, 'ODCHook': _odc}
