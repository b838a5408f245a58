"""Who imports whom: as CONTRIBUTING.md lists the rooms, upwards only."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / 'openselfsup'
LIST = re.search(r'```\nopenselfsup/\n(.*?)```', (PACKAGE.parent / 'CONTRIBUTING.md').read_text(
    encoding='utf-8'), re.DOTALL)[1]
# A name's place; those of one line know nothing of one another.
PLACES = {name.rstrip('/'): place for place, line in enumerate(LIST.splitlines())
          for name in re.split(r'\s{2,}', line.strip())[0].split()}
# All but openselfsup itself, as import and as command.
FILES = [path for path in PACKAGE.rglob('*.py')
         if path not in (PACKAGE / '__init__.py', PACKAGE / '__main__.py')]


def imported(path: Path) -> Iterator[list[str]]:
    """Yield the parts of every name that a file imports, wherever in it."""
    package = [*path.relative_to(PACKAGE.parent).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split('.') for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            module = node.module.split('.') if node.module else []
            yield from ([*base, *module, alias.name] for alias in node.names)


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def test_the_list_names_every_room():
    assert {room(path) for path in FILES} == set(PLACES)


def test_imports_go_upwards_in_the_list():
    wrong = {f'{path.relative_to(PACKAGE)} imports {name[1]}' for path in FILES
             for name in imported(path) if name[0] == PACKAGE.name and name[1] in PLACES
             and name[1] != room(path) and PLACES[name[1]] >= PLACES[room(path)]}
    assert not wrong


def test_mmengine_and_mmcv_stay_where_they_are_wrapped():
    found = {library: {str(path.relative_to(PACKAGE)) for path in FILES
                       for name in imported(path) if name[0] == library}
             for library in ('mmengine', 'mmcv')}
    assert 'registry.py' in found['mmengine']
    assert all(name == 'registry.py' or name.startswith('engine/') for name in found['mmengine'])
    assert found['mmcv'] == {'models/norm.py'}
