"""The table of published configs in docs/lineage.md: what each row must be.

`PYTHONPATH=. python tests/lineage/config_table.py` writes it anew.
"""

import inspect
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from published import NAMES, REPO, write

from openselfsup.datasets.recipes import view_recipes
from openselfsup.engine.config import load_config
from openselfsup.errors import UserError
from openselfsup.lineage.configs import Loaded, load
from openselfsup.registry import registry_of
from openselfsup.shipped import shipped_config
from openselfsup.views import STEPS, GeometricStep

PAGE = REPO / 'docs/lineage.md'
HEAD = ('| published config | method | tiles x processes | same name here | not one to one |\n'
        '|---|---|---|---|---|\n')
# Where our own configs of the same name mend or leave out something, each for a reason: stages that
# nothing reads; negatives of other tiles only; norms over the rows of all processes.
MENDED = {'out_indices', 'ensure_neg', 'sync_bn'}


def name_here(name: str) -> str:
    """Return the name that our own config for a published one has."""
    repository, _, rest = name.removesuffix('.py').partition('/configs/')
    if repository == 'OpenSelfSup':
        return f'OpenSelfSup/{rest}'.replace('selfsup/', '')
    rest = rest.removeprefix('NCT_pretraining/')
    if rest == 'classification/r18':
        return 'Classification/r18_bs256_ep100'
    rest = re.sub(r'^moco_(v\d)/r18', r'MoCo/r18_\1', rest)
    for theirs, ours in dict(concl='ConCL', densecl='DenseCL', simclr='SimCLR', byol='BYOL',
                             classification='Classification').items():
        rest = re.sub(f'^{theirs}/', f'{ours}/', rest)
    return rest


def row(name: str, found: Loaded | UserError) -> str:
    """Return the row of a config that was loaded, or refused."""
    ours = f'`{name_here(name)}`' if shipped_config(name_here(name)) else ''
    if isinstance(found, UserError):
        said = str(found).split(': ', 1)[1].split(': the published')[0]
        return f'| `{name}` | | | {ours} | refused: {said} |'
    batch = next(note.text for note in found.notes if note.theirs == 'data.imgs_per_gpu')
    tiles, processes = re.match(r'(\d+) tiles x (\d+)', batch).groups()
    passes = f' x {found.cfg.accumulate} passes' if found.cfg.accumulate > 1 else ''
    told = [f'`{note.theirs}` {note.kind}' for note in found.notes
            if note.kind in ('repaired', 'differs')]
    return (f'| `{name}` | {found.cfg.model.type} | {tiles} x {processes}{passes} | {ours} | '
            f"{', '.join(dict.fromkeys(told))} |")


def resolved(value: Any, argument: str = '') -> Any:
    """Return a part of a config with the defaults of its classes, without what we mend."""
    if isinstance(value, dict) and 'type' in value and not argument.endswith('_cfg'):
        cls = registry_of(value['type'], argument).get(value['type'])
        defaults = {key: p.default for key, p in inspect.signature(cls).parameters.items()
                    if p.default is not p.empty}
        value = {**defaults, **value, 'type': cls.__name__}
    if isinstance(value, dict):
        return {key: resolved(item, key) for key, item in value.items() if key not in MENDED}
    if isinstance(value, (list, tuple)):
        return [resolved(item, argument) for item in value]
    return value


def essence(cfg: Any) -> dict[str, Any]:
    """Return what two configs of the same name must have in common."""
    fields = cfg.to_dict()
    for key, part in fields['model'].items():  # methods infer what ours do not say
        if isinstance(part, dict) and key != 'backbone':
            part.pop('in_channels', None)
            if isinstance(part.get('predictor'), dict):
                part['predictor'].pop('in_channels', None)
    views = [resolved(recipe, 'recipe') for _, recipe in view_recipes(
        fields['dataset']['recipe'], fields['dataset'].get('n_views')).values()]
    for view in views:
        steps = [step for step in view.pop('steps', {}).values() if step is not None]
        view['place'] = [step for step in steps if issubclass(STEPS[step['type']], GeometricStep)]
        view['pixels'] = [step for step in steps if step not in view['place']]
        view.pop('of', None)
    optimizer = {key: fields['optimizer'].get(key) for key in
                 ('type', 'lr', 'weight_decay', 'momentum', 'paramwise_options')}
    return dict(model=resolved(fields['model'], 'model'), views=views, optimizer=optimizer,
                schedule=fields['schedule']['type'],
                warmup=fields['schedule'].get('warmup_epochs', 0),
                batch=fields['global_batch_size'], epochs=fields['epochs'],
                normalize=fields['normalize'], hooks=resolved(fields['hooks'], 'hooks'))


def own_config(name: str) -> Any:
    """Return our own config for a published one, None if there is none."""
    path = shipped_config(name_here(name))
    return load_config(path) if path else None


def main() -> None:
    """Write the table into the page."""
    page = PAGE.read_text()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        os.chdir(folder)
        rows = []
        for name in NAMES:
            try:
                rows.append(row(name, load(name)))
            except UserError as error:
                rows.append(row(name, error))
    before, after = page.split(HEAD)
    after = re.sub(r'^([| ].*\n)*', '', after)
    PAGE.write_text(before + HEAD + ''.join(f'{row}\n' for row in rows) + after)


if __name__ == '__main__':
    main()
