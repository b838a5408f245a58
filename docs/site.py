"""What the documentation site needs beside Markdown: roles of docstrings, files of the root."""

import re
from collections.abc import Iterator
from pathlib import Path

from griffe import Extension, Module, Object

ROOT = Path(__file__).resolve().parents[1]
AT_THE_ROOT = {'contributing.md': 'CONTRIBUTING.md', 'changelog.md': 'CHANGELOG.md'}
ROLE = re.compile(r':(?:class|func|meth|mod|data|attr):`(~?)([^`]+)`')


def on_page_markdown(markdown: str, page, **kwargs) -> str:
    """Show a file of the repository's root, whose links start there, as a page (mkdocs hook)."""
    source = AT_THE_ROOT.get(page.file.src_uri)
    if source is None:
        return markdown
    return (ROOT / source).read_text(encoding='utf-8').replace('](docs/', '](').replace(
        '](CHANGELOG.md)', '](changelog.md)')


class Roles(Extension):
    """Turn every role (:class:`Name`) into a link; what leads nowhere fails a strict build."""

    def on_package(self, *, pkg: Module, **kwargs) -> None:
        """Rewrite the docstrings of a package; document what it re-exports where it is defined."""
        objects = list(_walk(pkg))
        places: dict[str, list[str]] = {}
        for obj in objects:
            places.setdefault(obj.name, []).append(obj.path)
        known = {name: paths[0] for name, paths in places.items() if len(paths) == 1}
        for obj in objects:
            if obj.is_module:
                obj.exports = None
            if obj.docstring:
                obj.docstring.value = ROLE.sub(
                    lambda found, obj=obj: _link(obj, *found.groups(), known), obj.docstring.value)


def _walk(obj: Object) -> Iterator[Object]:
    yield obj
    for member in obj.members.values():
        if not member.is_alias:
            yield from _walk(member)


def _link(obj: Object, short: str, name: str, known: dict[str, str]) -> str:
    shown = name.lstrip('.').rpartition('.')[2] if short else name.lstrip('.')
    place = _resolve(obj, name, known)
    if place.startswith('openselfsup'):
        try:
            found = obj.modules_collection[place]
        except KeyError:  # leads nowhere: the strict build says so
            return f'[`{shown}`][{place}]'
        if found.has_docstrings:  # others have no place on a page
            return f'[`{shown}`][{found.canonical_path}]'
    return f'`{shown}`'


def _resolve(obj: Object, name: str, known: dict[str, str]) -> str:
    """Return the full name of what a docstring calls by a name of its own module.

    Args:
        obj: whose docstring it is.
        name: as written; with a dot in front it starts at the package, as in imports.
        known: full names by last name, of those that are unique in the whole package.
    """
    module = obj.module
    if name.startswith('.'):
        return f'{(module if module.is_init_module else module.parent).path}{name}'
    first, dot, rest = name.partition('.')
    for scope in (obj if obj.is_class else obj.parent or module, module):
        if first in scope.members:
            member = scope.members[first]
            return (member.target_path if member.is_alias else member.path) + dot + rest
    return known.get(first, first) + dot + rest
