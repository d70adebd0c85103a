"""Atoms over columns: for each atom, which rows satisfy it.

A mask is a Boolean Series without nulls, or plain `False` where no row satisfies the atom (most atoms of most batches),
or plain `True` where every row does. Each column is lower-cased once for all atoms, and atoms look at a column's
distinct values when those are much fewer than its rows.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Final, TypeAlias

import polars as pl

from detections.atoms import FIELD_OPERATORS, Atom, Operator, lower_column
from detections.bounded_regex import bounded_regex
from detections.times import time_part
from ingest.envelope import ENVELOPE, ORIGINAL

Mask: TypeAlias = pl.Series | bool
ValueTest: TypeAlias = Callable[[Sequence[str | None]], list[bool]]

SEPARATOR: Final = "\x00"
"""Between the fields of the text that keywords search; a keyword that holds it is sought field by field."""

_SLICE: Final = 2048  # atoms a query: bounds the memory that masks take
_SHORT_TEXT: Final = 8192  # bytes of values up to which searching in Python costs less than building a query
_LONG_LITERAL: Final = 500
"""Characters of a text past which it is sought in Python: Polars compiles it as a regex, whose price is its square."""

_DISTINCT_WORTH: Final = 64  # rows below which looking for distinct values costs more than it saves
_VALUE: Final = pl.col("value")


def resolve_fields(columns: Iterable[str]) -> dict[str, str]:
    """Name as a rule may write it -> column: exact names, and names in lower case.

    Look up a field by its name, else by its name in lower case. The raw line is reached by keywords only.
    """
    usable = [column for column in columns if column != ORIGINAL]
    return {column.lower(): column for column in usable} | {column: column for column in usable}


def keyword_columns(columns: Iterable[str]) -> list[str]:
    """The columns that keywords search: the event's own fields and the raw line, not what we know of its transport."""
    return [column for column in columns if column not in ENVELOPE or column == ORIGINAL]


def text_column(events: pl.DataFrame, column: str) -> pl.Series:
    """A column as text; only a few envelope columns are not."""
    series = events.get_column(column)
    return series if series.dtype == pl.String else series.cast(pl.String)


def column_masks(series: pl.Series, atoms: Sequence[Atom]) -> dict[Atom, Mask]:
    """Decide atoms on one text column."""
    rows = len(series)
    if series.null_count() == rows:
        return {atom: atom.operator == "null" for atom in atoms}
    values, codes = _distinct(series)
    masks = _rows_masks(values, atoms)
    if codes is None:
        return masks
    return {atom: mask if isinstance(mask, bool) else mask.gather(codes) for atom, mask in masks.items()}


def _rows_masks(values: pl.Series, atoms: Sequence[Atom]) -> dict[Atom, Mask]:
    """Decide atoms on every row of a text column, which is lower-cased once."""
    lowered = [atom for atom in atoms if atom.lowered]
    masks = _decide(lower_column(values), lowered) if lowered else {}
    return masks | _decide(values, [atom for atom in atoms if not atom.lowered])


def _distinct(series: pl.Series) -> tuple[pl.Series, pl.Series | None]:
    """The distinct values of a column and the place of each row among them; or the column itself if that is no gain."""
    if len(series) < _DISTINCT_WORTH:
        return series, None
    values = series.unique()
    if 2 * len(values) > len(series):
        return series, None
    places = pl.DataFrame({"value": values}).with_row_index("place")
    joined = pl.DataFrame({"value": series}).join(
        places, on="value", how="left", nulls_equal=True, maintain_order="left"
    )
    return values, joined.get_column("place")


def _decide(values: pl.Series, atoms: Sequence[Atom]) -> dict[Atom, Mask]:
    """Decide atoms on values that are as the atoms want them, by the means that is cheapest."""
    masks = _by_value(values, {atom: test for atom in atoms if (test := _value_test(atom)) is not None})
    if 0 < (values.str.len_bytes().sum() or 0) + len(values) <= _SHORT_TEXT:
        masks |= _search(values.to_list(), [atom for atom in atoms if atom.operator in _TESTS and atom not in masks])
    return masks | _query(values, [atom for atom in atoms if atom not in masks])


def _search(values: Sequence[str | None], atoms: Sequence[Atom]) -> dict[Atom, Mask]:
    """Decide plain atoms on a few values: one search through all of them rules out nearly every atom."""
    masks: dict[Atom, Mask] = {}
    everything = SEPARATOR.join(value for value in values if value is not None)
    for atom in atoms:
        masks[atom] = False
        if atom.value in everything:
            test, wanted = _TESTS[atom.operator], atom.value
            found = [value is not None and test(value, wanted) for value in values]
            if any(found):
                masks[atom] = pl.Series(found, dtype=pl.Boolean)
    return masks


_TESTS: Final[dict[Operator, Callable[[str, str], bool]]] = {
    "eq": str.__eq__,
    "contains": str.__contains__,
    "startswith": str.startswith,
    "endswith": str.endswith,
}


def _query(values: pl.Series, atoms: Sequence[Atom]) -> dict[Atom, Mask]:
    """Decide atoms with Polars expressions, many in one query."""
    masks: dict[Atom, Mask] = {}
    frame = pl.DataFrame({"value": values})
    for start in range(0, len(atoms), _SLICE):
        part = atoms[start : start + _SLICE]
        found = frame.select(
            atom_expression(atom.operator, atom.value).fill_null(value=False).alias(str(place))  # a null is no match
            for place, atom in enumerate(part)
        )
        some = found.select(pl.all().any()).row(0)
        for place, atom in enumerate(part):
            masks[atom] = found.to_series(place) if some[place] else False
    return masks


@lru_cache(maxsize=1 << 17)
def atom_expression(operator: Operator, value: str) -> pl.Expr:
    """The Polars expression of an atom over a column named `value`."""
    return _EXPRESSIONS[operator](value)


def _compared(compare: Callable[[pl.Expr, float], pl.Expr], value: str) -> pl.Expr:
    """Compare as numbers. Texts that are no finite number are false: Polars holds NaN greater than every number."""
    number = _VALUE.cast(pl.Float64, strict=False)
    return number.is_finite() & compare(number, float(value))


def _time_compared(compare: Callable[[pl.Expr, int], pl.Expr], value: str) -> pl.Expr:
    """Compare a part of the time that a text is; false where it is no time."""
    part, _, number = value.partition(" ")
    return compare(time_part(_VALUE, part), int(number))


_EXPRESSIONS: Final[dict[Operator, Callable[[str], pl.Expr]]] = {
    "eq": _VALUE.eq,
    "contains": partial(_VALUE.str.contains, literal=True),
    "startswith": _VALUE.str.starts_with,
    "endswith": _VALUE.str.ends_with,
    "like": _VALUE.str.contains,
    "re": _VALUE.str.contains,
    "null": lambda _: _VALUE.is_null(),
    "exists": lambda _: _VALUE.is_not_null(),
    "lt": partial(_compared, pl.Expr.lt),
    "lte": partial(_compared, pl.Expr.le),
    "gt": partial(_compared, pl.Expr.gt),
    "gte": partial(_compared, pl.Expr.ge),
    "time_eq": partial(_time_compared, pl.Expr.eq),
    "time_lt": partial(_time_compared, pl.Expr.lt),
    "time_lte": partial(_time_compared, pl.Expr.le),
    "time_gt": partial(_time_compared, pl.Expr.gt),
    "time_gte": partial(_time_compared, pl.Expr.ge),
}


def _by_value(values: pl.Series, tests: Mapping[Atom, ValueTest]) -> dict[Atom, Mask]:
    """Decide atoms value by value, where Polars has no expression for them, or a dear one."""
    masks: dict[Atom, Mask] = {}
    texts = values.to_list() if tests else []
    for atom, test in tests.items():
        found = pl.Series(test(texts), dtype=pl.Boolean)
        masks[atom] = found if found.any() else False
    return masks


def _value_test(atom: Atom) -> ValueTest | None:
    """How an atom is decided value by value; None if Polars decides it."""
    if atom.operator == "contains":
        return _text_test(atom.value) if len(atom.value) > _LONG_LITERAL else None
    make = _BY_VALUE.get(atom.operator)
    return None if make is None else make(atom.value)


def _text_test(wanted: str) -> ValueTest:
    """Whether a text is within values; linear in both."""
    return lambda values: [value is not None and wanted in value for value in values]


def _network_test(network: str) -> ValueTest:
    """Membership of a network; an IPv4 address mapped into IPv6 counts as itself, and what is no address is outside."""
    wanted = ipaddress.ip_network(network)

    def test(value: str) -> bool:
        try:
            address = ipaddress.ip_address(value.strip())
        except ValueError:
            return False
        if wanted.version == 4 and isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            return address.ipv4_mapped in wanted
        return address in wanted

    return lambda values: [value is not None and test(value) for value in values]


_BY_VALUE: Final[dict[Operator, Callable[[str], ValueTest]]] = {
    "cidr": _network_test,
    "re_slow": lambda pattern: bounded_regex(pattern).search,
}


def keyword_masks(events: pl.DataFrame, atoms: Sequence[Atom]) -> dict[Atom, Mask]:
    """Decide keywords: any own field of the event, or the raw line, satisfies them."""
    columns = [name for name in keyword_columns(events.columns) if events.get_column(name).null_count() < events.height]
    if not columns:
        return dict.fromkeys(atoms, False)
    # One text a row decides plain keywords exactly, and says where looking field by field for others can be spared.
    joined = events.select(pl.concat_str(columns, separator=SEPARATOR, ignore_nulls=True)).to_series()
    exact = [atom for atom in atoms if atom.operator == "contains" and SEPARATOR not in atom.value]
    masks = _rows_masks(joined, exact)
    others = [atom for atom in atoms if atom not in masks]
    likely = _rows_masks(joined, [atom for atom in others if atom.operator == "like"])
    masks |= {atom: mask for atom, mask in likely.items() if mask is False}
    others = [atom for atom in others if atom not in masks]
    for column in columns if others else ():
        for atom, mask in column_masks(text_column(events, column), others).items():
            masks[atom] = _either(masks.get(atom, False), mask)
    return masks


def _either(left: Mask, right: Mask) -> Mask:
    if isinstance(left, bool):
        return left or right
    if isinstance(right, bool):
        return right or left
    return left | right


def reference_mask(left: pl.Series, right: pl.Series, operator: Operator) -> Mask:
    """Compare two columns of text row by row, without regard to case unless `_cased`; false where either is null."""
    cased = operator.endswith("_cased")
    frame = pl.DataFrame(
        {"left": left if cased else lower_column(left), "right": right if cased else lower_column(right)}
    )
    name = operator.removesuffix("_cased")
    if name == "field_contains":  # in Polars, one row's text is a regex, whose price is the square of its length
        pairs = frame.iter_rows()
        found = pl.Series([a is not None and b is not None and b in a for a, b in pairs], dtype=pl.Boolean)
    else:
        found = frame.select(_REFERENCES[name](pl.col("left"), pl.col("right")).fill_null(value=False)).to_series()
    return found if found.any() else False


_REFERENCES: Final[dict[str, Callable[[pl.Expr, pl.Expr], pl.Expr]]] = {
    "field_eq": lambda left, right: left == right,
    "field_startswith": lambda left, right: left.str.starts_with(right),
    "field_endswith": lambda left, right: left.str.ends_with(right),
}


def atom_masks(events: pl.DataFrame, atoms: Iterable[Atom], names: Mapping[str, str]) -> dict[Atom, Mask]:
    """Decide atoms on events; `names` is `resolve_fields` of their columns."""
    by_column: dict[str, list[Atom]] = {}
    keywords: list[Atom] = []
    masks: dict[Atom, Mask] = {}
    for atom in atoms:
        if atom.field is None:
            keywords.append(atom)
            continue
        column = find_column(atom.field, names)
        if column is None:
            masks[atom] = atom.operator == "null"
        elif atom.operator in FIELD_OPERATORS:
            other = find_column(atom.value, names)
            pair = other is not None and (text_column(events, column), text_column(events, other))
            masks[atom] = reference_mask(*pair, atom.operator) if pair else False
        else:
            by_column.setdefault(column, []).append(atom)
    for column, wanted in by_column.items():
        masks |= column_masks(text_column(events, column), wanted)
    if keywords:
        masks |= keyword_masks(events, keywords)
    return masks


def find_column(field: str, names: Mapping[str, str]) -> str | None:
    """The column that a rule means by `field`, or None if the events have none."""
    return names.get(field) or names.get(field.lower())
