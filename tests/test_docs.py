"""The code of the documentation runs as it is written."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from openselfsup import load_backbone
from openselfsup.checkpoints import detect, load
from openselfsup.cli.main import COMMANDS, parse
from openselfsup.engine.config import load_config
from openselfsup.registry import ALGORITHMS

REPO = Path(__file__).resolve().parents[1]


def blocks(name: str, language: str = 'python') -> list[str]:
    text = (REPO / name).read_text()
    return re.findall(rf'^```{language}\n(.*?)^```', text, flags=re.M | re.S)


def test_the_worked_example_of_a_new_method_trains(tmp_path, tool, monkeypatch):
    method, config = blocks('docs/new_method.md')
    (tmp_path / 'my_methods.py').write_text(method)
    (tmp_path / 'my_config.py').write_text(config.replace("'configs/", f"'{REPO}/configs/"))
    monkeypatch.syspath_prepend(tmp_path)
    answer = tool('tools/train.py', tmp_path / 'my_config.py', '--work-dir', tmp_path / 'run',
                  '--cfg-options', 'epochs=1', 'dataset.recipe.size=64', 'global_batch_size=16',
                  'dataset.source.root=data/demo/kather2016', 'log_interval=1')
    assert answer.returncode == 0, answer.stderr
    assert 'SimSiam' in answer.stdout and 'loss_cosine' in answer.stdout
    checkpoint = load(tmp_path / 'run/epoch_1.pth')
    assert detect(checkpoint) == 'ours'
    state, loaded = checkpoint['state_dict'], load_backbone(tmp_path / 'run/epoch_1.pth')
    assert all(value.equal(state[f'backbone.{name}'])
               for name, value in loaded.state_dict().items())
    with torch.autocast('cpu', torch.bfloat16):
        outputs = ALGORITHMS.build(load_config(tmp_path / 'my_config.py').model)(
            list(torch.randn(2, 2, 3, 32, 32)))
    assert all(value.dtype == torch.float32 for value in outputs.values())


def test_the_notebook_example_of_the_data_page_runs():
    code = next(block for block in blocks('docs/data.md') if 'match_cells' in block)
    names: dict = {}
    exec(code, names)
    assert names['matching'].weight_q.shape == (1, 49)


def test_the_data_page_names_every_step_and_its_file():
    from openselfsup.views import STEPS
    rows = [row for row in (REPO / 'docs/data.md').read_text().splitlines() if row[:1] == '|']
    for name, step in STEPS.items():
        row = next(row for row in rows if f'`{name}`' in row)
        assert f"`{step.__module__.rpartition('.')[2]}.py`" in row


def test_every_field_of_a_config_is_documented():
    import dataclasses

    from openselfsup.engine.fields import PretrainConfig
    text = (REPO / 'docs/configuration.md').read_text()
    for field in dataclasses.fields(PretrainConfig):
        assert f'| `{field.name}` |' in text
        default = field.default
        if isinstance(default, (int, float, str)) and not isinstance(default, bool):
            assert re.search(rf"\| `{field.name}` \| `?'?{re.escape(str(default))}'?`? \|", text)


def test_the_configs_of_the_page_on_released_weights_are_configs(tmp_path):
    for number, code in enumerate(blocks('docs/continue.md')):
        (tmp_path / f'{number}.py').write_text(code)
        cfg = load_config(tmp_path / f'{number}.py')
        assert cfg.model.heads_only_epochs == 1 and cfg.hooks


@pytest.mark.parametrize('page', ['README.md', *sorted(
    str(path.relative_to(REPO)) for path in (REPO / 'docs').rglob('*.md'))])
def test_the_commands_of_a_page_are_commands_with_these_arguments(page):
    fenced = re.findall(r'^```(\w*)\n(.*?)^```$', (REPO / page).read_text(), flags=re.M | re.S)
    text = '\n'.join(block for language, block in fenced if language in ('', 'bash'))
    for line in re.findall(r'^(?:PYTHONPATH=\. |torchrun .*)?openselfsup .*',
                           text.replace('\\\n', ' '), flags=re.M):
        words = shlex.split(line, comments=True)
        words = words[words.index('openselfsup') + 1:]
        name = ' '.join(words[:2]) if ' '.join(words[:2]) in COMMANDS else words[0]
        parse(name, words[len(name.split()):])


def test_the_readme_lists_every_command_with_its_published_path():
    rows = re.findall(r'^\| `(.+)` \| `(\S+\.py)` \|',
                      (REPO / 'README.md').read_text(), flags=re.M)
    listed = {next(name for name in COMMANDS if f'{words} '.startswith(f'{name} ')): path
              for words, path in rows}
    assert listed.keys() == COMMANDS.keys()
    for name, path in listed.items():
        assert (REPO / path).read_text().endswith(f"    command('{name}')\n")


def test_the_readme_has_a_row_for_every_method():
    from openselfsup.registry import ALGORITHMS
    methods = {ALGORITHMS.get(name) for name in ALGORITHMS.names()}
    text = (REPO / 'README.md').read_text()
    for cls in methods:
        if cls.__module__.startswith('openselfsup.'):
            assert re.search(rf'^\| {cls.__name__}\b.*`configs/', text, re.M), cls.__name__
