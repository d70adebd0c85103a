"""Tables for terminals and pipes: columns as wide as their widest value, no lines drawn, nothing cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ingest.visible import visible


def table_lines(
    heads: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[int] = ()
) -> Iterator[str]:
    """The lines of a table; what an attacker or a rule's author wrote is made visible.

    Args:
        heads: Names of the columns.
        rows: Values by column.
        numbers: Places of the columns that are set to the right.
    """
    cells = [list(heads), *([visible(str(value)) for value in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(heads))]
    for row in cells:
        shown = (
            value.rjust(width) if at in numbers else value.ljust(width)
            for at, (value, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(shown).rstrip()
