"""What a preparation did, and what it found odd, by file."""

from dataclasses import dataclass, field

from ...errors import listed


@dataclass
class Report:
    """Collected while a dataset is prepared or checked.

    Attributes:
        name: of the dataset.
        facts: what was written or found: counts by name.
        notes: oddities that change nothing, such as an object in two pieces; one line each,
            beginning with the file.
        problems: what was left out or is wrong, one line each.
    """

    name: str
    facts: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def note(self, file: object, what: str) -> None:
        """Remember an oddity of a file."""
        self.notes.append(f'{file}: {what}')

    def problem(self, file: object, what: str) -> None:
        """Remember why a file was left out or is wrong."""
        self.problems.append(f'{file}: {what}')

    def expect(self, what: str, found: int, published: int) -> None:
        """Note a count that differs from the published one."""
        if found != published:
            self.note(self.name, f'{found} {what}, the published dataset has {published}')

    def __str__(self) -> str:
        lines = [self.name] + [f'  {name}: {value}' for name, value in self.facts.items()]
        for what, entries in (('odd, but used', self.notes), ('problems', self.problems)):
            if entries:
                lines.append(listed(f'{len(entries)} {what}', entries))
        return '\n'.join(lines)
