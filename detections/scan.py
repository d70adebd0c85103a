"""Many needles, one pass: where in a column they are.

A column's values are laid out in one buffer with `EDGE` before and after each, and Hyperscan (Vectorscan) looks for all
needles in one call; where in the buffer a needle ends says in which row it is. What is found is a superset: a value may
hold `EDGE` itself, and ASCII is compared without regard to case. What is not found is not there.

A sender can write a value that holds one needle a million times. Past `MOST_FOUND` the column is gone through again,
value by value, each needle counted at most once in a value.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import Final

import hyperscan
import polars as pl
import pyarrow as pa

from detections.atoms import lower_column
from detections.needles import EDGE, WIDE_LETTERS

MOST_FOUND: Final = 32
"""Finds a row, on average over a buffer, past which values are gone through one by one; ordinary are about 4."""

_FEW: Final = 65_536
"""Finds that are taken whatever the number of rows."""

_WORTH_A_QUERY: Final = 2048
"""Finds from which a query puts them in order faster than a loop."""

_LAST_EDGE: Final = pl.Series([EDGE])
_PLAIN_ARROW: Final = pl.CompatLevel.oldest()  # offsets into one buffer, not views into many


class Scanner:
    """Needles of one field, compiled; to be shared by threads.

    Args:
        needles: Texts (`Needle.text`); a find names them by their place.
        edges: Whether values are told apart by `EDGE`; without, needles that are anchored cannot be found.
    """

    def __init__(self, needles: Sequence[str], *, edges: bool = True) -> None:
        self._edges = edges
        self._wide = len(needles)
        self._patterns = [_pattern(text) for text in (*needles, *WIDE_LETTERS)]
        # A needle that ends in an edge is found at the first byte of the next value
        self._back = [1 + text.endswith(EDGE) for text in needles] + [1] * len(WIDE_LETTERS)
        self._database = self._compiled(hyperscan.HS_FLAG_CASELESS)
        self._once: hyperscan.Database | None = None
        self._lock = threading.Lock()  # a database has one scratch space

    def _compiled(self, flags: int) -> hyperscan.Database:
        database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        places = list(range(len(self._patterns)))
        database.compile(expressions=self._patterns, ids=places, flags=[flags] * len(places))
        return database

    def find(self, values: pl.Series) -> dict[int, list[int]]:
        """Needle -> the rows in which it is, ascending, each once.

        A needle numbered beyond the last stands for all of them (`WIDE_LETTERS`).
        """
        array = _laid_out(values, edges=self._edges)
        data = array.buffers()[2]
        if not data:  # nothing but nulls
            return {}
        places: list[int] = []
        stops: list[int] = []
        place, stop = places.append, stops.append
        most = _FEW + MOST_FOUND * len(values)

        def found(needle: int, _start: int, end: int, _flags: int, _context: object) -> bool:
            place(needle)
            stop(end)
            return len(places) > most

        with self._lock:
            try:
                self._database.scan(memoryview(data), found)  # type: ignore[type-var]  # any buffer will do
            except hyperscan.ScanTerminated:
                return self._find_once(values)
        if not places:
            return {}
        back = self._back
        last_bytes = [end - back[needle] for needle, end in zip(places, stops, strict=True)]
        return _by_needle(places, _ends(array).search_sorted(pl.Series(last_bytes, dtype=pl.Int64), side="right"))

    def _find_once(self, values: pl.Series) -> dict[int, list[int]]:
        """As `find`, but no more finds are made than each needle once a value."""
        if self._once is None:
            self._once = self._compiled(hyperscan.HS_FLAG_CASELESS | hyperscan.HS_FLAG_SINGLEMATCH)
        rows: dict[int, list[int]] = {}
        for row, value in enumerate(values.to_list()):
            if value is not None:
                text = f"{EDGE}{value}{EDGE}" if self._edges else value
                needles: set[int] = set()
                self._once.scan(text.encode(), lambda needle, *_, into=needles: into.add(needle))
                for needle in needles:
                    rows.setdefault(needle, []).append(row)
        return rows

    def stands_for_all(self, needle: int) -> bool:
        """Whether a find means that any needle may be there."""
        return needle >= self._wide


def _laid_out(values: pl.Series, *, edges: bool) -> pa.LargeStringArray:
    """The values in one buffer: `EDGE`, value, `EDGE`, value ... `EDGE`."""
    if edges:
        values = pl.select(pl.concat_str([pl.lit(EDGE), values])).to_series().append(_LAST_EDGE)
    array: pa.LargeStringArray = values.rechunk().to_arrow(compat_level=_PLAIN_ARROW)  # type: ignore[assignment]
    return array


def _ends(array: pa.LargeStringArray) -> pl.Series:
    """Where each value ends in the buffer."""
    offsets = pa.Array.from_buffers(pa.int64(), len(array), [None, array.buffers()[1]], offset=array.offset + 1)
    return pl.Series(offsets)


_CASED_END: Final = 0x20000
"""Letters that have case are in the first two planes of Unicode; the others hold ideographs."""

_ESCAPES: Final = {code: f"\\x{code:02x}" for code in range(0x80) if not chr(code).isalnum()}


def _by_needle(needles: list[int], rows: pl.Series) -> dict[int, list[int]]:
    """Needle -> rows, ascending, each once."""
    if len(needles) < _WORTH_A_QUERY:
        found: dict[int, set[int]] = {}
        for needle, row in zip(needles, rows.to_list(), strict=True):
            found.setdefault(needle, set()).add(row)
        return {needle: sorted(rows) for needle, rows in found.items()}
    pairs = pl.DataFrame({"needle": pl.Series(needles, dtype=pl.Int32), "row": rows}).unique().sort("needle", "row")
    return dict(pairs.group_by("needle", maintain_order=True).agg("row").iter_rows())


def _pattern(text: str) -> bytes:
    """A regex for a text in lower case and all the texts that become it in lower case; ASCII is left to Hyperscan."""
    if text.isascii():
        return text.translate(_ESCAPES).encode()
    return b"".join(_cases(char) for char in text)


@cache
def _cases(char: str) -> bytes:
    if char.isascii():
        return char.translate(_ESCAPES).encode()
    others = _capitals().get(char, ())
    same = [b"".join(b"\\x%02x" % byte for byte in other.encode()) for other in (char, *others)]
    return b"(?:" + b"|".join(same) + b")" if others else same[0]


@cache
def _capitals() -> dict[str, tuple[str, ...]]:
    """Each letter beyond ASCII -> those that become it in lower case: by the very function that lowers columns."""
    letters = pl.Series([chr(code) for code in range(0x80, _CASED_END) if not 0xD800 <= code < 0xE000])
    table = pl.DataFrame({"from": letters, "to": lower_column(letters)}).filter(pl.col("from") != pl.col("to"))
    capitals: dict[str, tuple[str, ...]] = {}
    for letter, lowered in table.iter_rows():
        capitals[lowered] = (*capitals.get(lowered, ()), letter)
    return capitals
