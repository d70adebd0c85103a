r"""Rules to Polars code that can be pasted into a notebook.

The same expressions that the plan runs are written out, e.g. for `Image|endswith: \mimikatz.exe`

    pl.col("Image").cast(pl.String).str.to_lowercase().str.ends_with("\\mimikatz.exe")

so that a hunt in a notebook means what the rule means. Columns are cast to text, as a notebook's frame may hold
numbers. A null makes an expression null; `filter` drops it, and under `not` it is made false first. A regex with
look-around has no form in Polars and is refused, as is a rule that is true or false for every event.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterable
from typing import Final

from detections.atoms import FIELD_OPERATORS, FINAL_SIGMA, SIGMA, And, Atom, Expression, Not, Operator, atoms_of
from detections.times import time_code

_OCTET: Final = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"


class RenderError(ValueError):
    """An expression that has no form as Polars code."""


def render(expression: Expression) -> str:
    """Write an expression as Python code over `pl` (`import polars as pl`).

    Raises:
        RenderError: A part has no form as Polars code.
    """
    if isinstance(expression, bool):
        raise RenderError(f"the rule is {str(expression).lower()} for every event")
    if isinstance(expression, Atom):
        return _atom(expression)
    if isinstance(expression, Not):
        return f"~{render(expression.part)}.fill_null(False)"
    if isinstance(expression, And):
        return f"({' & '.join(render(part) for part in expression.parts)})"
    return _alternatives(expression.parts)


def quote(text: str) -> str:
    """A Python string literal in double quotes; what a terminal would not show as a character is escaped."""
    literal = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in literal)


def _alternatives(parts: Iterable[Expression]) -> str:
    """A disjunction; plain comparisons of one field are put together."""
    groups: dict[tuple[str, Operator, bool], list[Atom]] = {}
    rendered: list[str] = []
    for part in parts:
        if isinstance(part, Atom) and part.field is not None and part.operator in _GROUPED:
            groups.setdefault((part.field, part.operator, part.cased), []).append(part)
        else:
            rendered.append(render(part))
    grouped = [
        _atom(atoms[0]) if len(atoms) == 1 else _group(field, operator, atoms)
        for (field, operator, _), atoms in groups.items()
    ]
    joined = " | ".join([*grouped, *rendered])
    return joined if len(grouped) + len(rendered) == 1 else f"({joined})"


_GROUPED: Final[dict[Operator, str]] = {"eq": "is_in", "contains": "str.contains_any"}


def _group(field: str, operator: Operator, atoms: list[Atom]) -> str:
    folding = [atom.value for atom in atoms if _folds(atom)]
    column = _text(field) + (_lower("".join(folding)) if folding else "")
    return f"{column}.{_GROUPED[operator]}([{', '.join(quote(atom.value) for atom in atoms)}])"


def _text(field: str) -> str:
    return f"pl.col({quote(field)}).cast(pl.String)"


def _lower(wanted: str) -> str:
    """Lower-casing as `lower_column` does it; the final sigma matters to values that hold a sigma only."""
    final = f".str.replace_all({quote(FINAL_SIGMA)}, {quote(SIGMA)}, literal=True)" if SIGMA in wanted else ""
    return f".str.to_lowercase(){final}"


def needed_columns(expression: Expression) -> list[str]:
    """The columns that the code of an expression names, each once."""
    return list(dict.fromkeys(field for atom in atoms_of(expression) for field in atom.fields))


def _folds(atom: Atom) -> bool:
    """Whether lower-casing the column can change the answer: only if the value has letters."""
    return atom.lowered and (atom.operator == "like" or atom.value.upper() != atom.value)


def _atom(atom: Atom) -> str:
    if atom.field is None:
        if atom.operator not in _METHODS:
            raise RenderError(f"keyword {atom.text!r} has no form as a Polars expression")
        column = "pl.col(pl.String)" + (_lower(atom.value) if _folds(atom) else "")
        return f"pl.any_horizontal({column}{_METHODS[atom.operator](quote(atom.value))})"
    column = _text(atom.field) + (_lower(atom.value) if _folds(atom) else "")
    if atom.operator in _METHODS:
        return f"{column}{_METHODS[atom.operator](quote(atom.value))}"
    if atom.operator in FIELD_OPERATORS:
        lower = "" if atom.operator.endswith("_cased") else _lower(SIGMA)
        compared = _REFERENCES[atom.operator.removesuffix("_cased")].format(f"{_text(atom.value)}{lower}")
        return f"{column}{lower}.{compared}"
    if atom.operator in _TIMES:
        part, _, wanted = atom.value.partition(" ")
        return f"({time_code(column, part)} {_TIMES[atom.operator]} {int(wanted)})"
    if atom.operator in _COMPARED:
        number = f"{column}.cast(pl.Float64, strict=False)"
        return f"({number}.is_finite() & ({number} {_COMPARED[atom.operator]} {float(atom.value)!r}))"
    if atom.operator == "cidr":
        return _network(f"{column}.str.strip_chars()", atom.value)
    raise RenderError(f"regex {atom.text!r} needs look-around, which Polars does not have")


_METHODS: Final[dict[Operator, Callable[[str], str]]] = {
    "eq": ".eq({})".format,
    "contains": ".str.contains({}, literal=True)".format,
    "startswith": ".str.starts_with({})".format,
    "endswith": ".str.ends_with({})".format,
    "like": ".str.contains({})".format,
    "re": ".str.contains({})".format,
    "null": lambda _: ".is_null()",
    "exists": lambda _: ".is_not_null()",
}
_REFERENCES: Final[dict[str, str]] = {
    "field_eq": "eq({})",
    "field_contains": "str.contains({}, literal=True)",
    "field_startswith": "str.starts_with({})",
    "field_endswith": "str.ends_with({})",
}
_COMPARED: Final[dict[Operator, str]] = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_TIMES: Final[dict[Operator, str]] = {
    "time_eq": "==", "time_lt": "<", "time_lte": "<=", "time_gt": ">", "time_gte": ">=",
}  # fmt: skip


def _network(column: str, network: str) -> str:
    """Membership of a network: a regex over dotted addresses; of IPv6 spellings there are too many, Python reads them.

    Only what is an IPv6 address reaches Python, which would raise on anything else.
    """
    wanted = ipaddress.ip_network(network)
    if isinstance(wanted, ipaddress.IPv4Network):
        return f"{column}.str.contains({quote(_dotted_pattern(wanted))})"
    module = '__import__("ipaddress")'
    test = f"lambda text: {module}.ip_address(text) in {module}.ip_network({quote(network)})"
    addresses = f"pl.when({column}.str.contains({quote(_IPV6)})).then({column})"
    return f"{addresses}.map_elements({test}, return_dtype=pl.Boolean)"


def _ipv6_pattern() -> str:
    """The spellings of an IPv6 address in hexadecimal groups, `::` standing for one group or more (RFC 4291, 2.2)."""
    group = "[0-9a-f]{1,4}"
    forms = [f"(?:{group}:){{7}}{group}", f"(?:{group}:){{1,7}}:", f":(?:(?::{group}){{1,7}}|:)"]
    forms += [f"(?:{group}:){{1,{left}}}(?::{group}){{1,{7 - left}}}" for left in range(1, 7)]
    return rf"\A(?i:{'|'.join(forms)})\z"


_IPV6: Final = _ipv6_pattern()


def _dotted_pattern(wanted: ipaddress.IPv4Network) -> str:
    """A regex for the dotted addresses of an IPv4 network, mapped into IPv6 or not."""
    octets: list[str] = []
    for low, high in zip(wanted.network_address.packed, wanted.broadcast_address.packed, strict=True):
        if (low, high) == (0, 255):
            octets.append(_OCTET)
        elif low == high:
            octets.append(str(low))
        else:
            octets.append(f"(?:{'|'.join(str(octet) for octet in range(low, high + 1))})")
    return r"\A(?i:::ffff:)?" + r"\.".join(octets) + r"\z"
