r"""Lines of `name=value` pairs: names bare, values bare or in double quotes, pairs apart by white space.

No standard says how: WebTrends' WELF (which firewalls write) says only that a value with spaces is quoted. What is
relied on here: within quotes a backslash takes the next character with it, so that `\"` does not end a value; of a name
that occurs twice the first counts, since what a stranger can put into a line comes behind what the device wrote.

Each line is passed once, whatever it holds: a name is only looked for where a word begins, and nothing backtracks
(possessive quantifiers), or else a megabyte of `aaaa...` would cost a minute.

Devices write one kind of event with the same names in the same order. So once a shape has been seen `OFTEN`, an
expression of its own reads it: that takes a third of the time of finding pair after pair.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from ingest.formats.columns import Json
from ingest.formats.shapes import Shape

MAX_PAIRS: Final = 500
"""Most pairs of one line that become fields; no device writes half as many."""
OFTEN: Final = 50
"""Lines of a shape after which it is given an expression of its own; to compile one costs as much as 50 lines."""
MAX_TEMPLATES: Final = 16
"""Most of those in a batch: each line that fits none has been tried on all of them."""

CUT: Final = "a quote is not closed: cut line, or odd quoting"
REPEATED: Final = "a name occurs twice: its first value is kept"
LEFT_OUT: Final = f"more than {MAX_PAIRS} pairs: those beyond are in the raw line only"

_NAME: Final = r"[A-Za-z_][\w.\[\]/-]*+"
_PAIR: Final = re.compile(rf'(?<!\S)({_NAME})=(?:"([^"\\]*+(?:\\.[^"\\]*+)*+)"|(\S*+))', re.DOTALL)
_QUOTED: Final = r'"([^"\\]*+(?:\\[^"][^"\\]*+)*+)"'
_BARE: Final = r'([^\s"]*+)'

Signature = tuple[tuple[str, bool], ...]
"""Each name of a line and whether its value is quoted."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """What one line says.

    Attributes:
        fields: Name -> value, in the order of the line.
        signature: Its names and their quoting.
        remark: What was wrong with it, or None.
    """

    fields: dict[str, str]
    signature: Signature
    remark: str | None = None


def read_pairs(text: str) -> Pairs:
    """The pairs of one line; what stands between them is passed over."""
    fields: dict[str, str] = {}
    signature: list[tuple[str, bool]] = []
    remarks: dict[str, None] = {}
    for match in _PAIR.finditer(text):
        name, quoted, bare = match.groups()
        if name in fields:
            remarks[REPEATED] = None
            continue
        if len(fields) >= MAX_PAIRS:
            remarks[LEFT_OUT] = None
            break
        if quoted is not None:
            fields[name] = quoted.replace('\\"', '"') if "\\" in quoted else quoted
        elif bare.startswith('"'):  # nothing closes it
            fields[name] = text[match.start(3) + 1 :]
            remarks[CUT] = None
            break
        else:
            fields[name] = bare
        signature.append((name, quoted is not None))
    return Pairs(fields, tuple(signature), "; ".join(remarks) or None)


@dataclass(slots=True)
class _Template:
    """The expression of one shape, and what it has read."""

    names: list[str]
    match: Callable[[str], re.Match[str] | None]
    rows: list[int] = field(default_factory=list)
    values: list[tuple[str, ...]] = field(default_factory=list)


def _template(signature: Signature) -> _Template:
    pairs = (f"{re.escape(name)}={_QUOTED if quoted else _BARE}" for name, quoted in signature)
    return _Template([name for name, _ in signature], re.compile(r"\s++".join(pairs) + r"\s*").fullmatch)


@dataclass(frozen=True, slots=True)
class PairShapes:
    """What many lines say, by shape.

    Attributes:
        shapes: Every line that holds a pair, once.
        empty: Rows of lines without any.
        remarks: Row -> what was wrong with it.
    """

    shapes: list[Shape]
    empty: list[int]
    remarks: dict[int, str]


def pair_shapes(lines: Iterable[tuple[int, str]]) -> PairShapes:
    """Read lines, given as (row, text)."""
    templates: list[_Template] = []
    seen: Counter[Signature] = Counter()
    others: dict[tuple[str, ...], tuple[list[int], list[dict[str, str]]]] = {}
    empty: list[int] = []
    remarks: dict[int, str] = {}
    for row, text in lines:
        for template in templates:
            found = template.match(text)
            if found is not None:
                template.rows.append(row)
                template.values.append(found.groups())
                break
        else:
            pairs = read_pairs(text)
            if not pairs.fields:
                empty.append(row)
                continue
            rows, events = others.setdefault(tuple(pairs.fields), ([], []))
            rows.append(row)
            events.append(pairs.fields)
            if pairs.remark is not None:
                remarks[row] = pairs.remark
                continue
            seen[pairs.signature] += 1
            if seen[pairs.signature] == OFTEN and len(templates) < MAX_TEMPLATES:
                templates.append(_template(pairs.signature))
    shapes = [columns_of(template.names, template.rows, template.values) for template in templates if template.rows]
    shapes += [
        columns_of(names, rows, [tuple(event.values()) for event in events]) for names, (rows, events) in others.items()
    ]
    return PairShapes(shapes, empty, remarks)


def columns_of(names: Sequence[str], rows: list[int], values: Sequence[Sequence[Json]]) -> Shape:
    """Events with the same names as columns; `values` has a sequence of as many as `names` for each of `rows`."""
    return Shape(rows, dict(zip(names, zip(*values, strict=True), strict=True)))


def split_shape(shape: Shape, choices: Sequence[str]) -> list[tuple[str, Shape]]:
    """A shape by a choice that was made for each of its rows."""
    distinct = dict.fromkeys(choices)
    if len(distinct) == 1:
        return [(choices[0], shape)]
    parts: list[tuple[str, Shape]] = []
    for choice in distinct:
        places = [place for place, chosen in enumerate(choices) if chosen == choice]
        rows = [shape.rows[place] for place in places]
        parts.append((choice, Shape(rows, {name: [v[p] for p in places] for name, v in shape.columns.items()})))
    return parts


_MARK: Final = re.compile(r"(?<!\S)([A-Za-z_][\w.\[\]-]*+)=")


def read_extension(text: str) -> tuple[dict[str, str], bool]:
    r"""(the pairs of text whose values are never quoted but may hold spaces, as in CEF; whether some were left out).

    A value runs to the next word that ends in `=`; in values `=` and `\` are written with a backslash before them.
    """
    pieces = _MARK.split(text)
    pairs = zip(pieces[1::2], pieces[2::2], strict=True)
    fields: dict[str, str] = {}
    for name, value in islice(pairs, MAX_PAIRS):
        fields.setdefault(name, value.rstrip(" "))
    return fields, len(pieces) > 2 * MAX_PAIRS + 1


def extension_expression(names: Sequence[str]) -> Callable[[str], re.Match[str] | None]:
    """What reads text of these names as `read_extension` does, where no value holds `=`, a backslash or two spaces.

    A value then ends at a place that the next `=` alone decides, so a text that does not fit is given up in one pass.
    """
    value = r"([^=\\ ]*(?: [^=\\ ]+)*)"
    return re.compile(" ".join(f"{re.escape(name)}={value}" for name in names) + " *").fullmatch
