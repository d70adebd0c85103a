"""JSON objects, one a line: read fast with orjson, and what it refuses with the standard library.

That takes what real loggers wrongly write: lone surrogates (a Windows file name may hold one), raw control characters,
NaN. Else one such character in a command line would hide the event from every field rule. A text that was cut is
closed and read as far as it goes. What was repaired is remarked; what is beyond repair is a reject with its cause.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

import orjson
import polars as pl

from ingest.formats.columns import Json
from ingest.formats.cut_json import close_cut_json
from ingest.formats.shapes import FULL, Alike

COLONS: Final = pl.col("payload").str.count_matches('":', literal=True)
"""At least the keys of a compact object; more than it has once read means that one may have hidden another."""
CUT: Final = "cut JSON: read as far as it goes"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_LONGEST_WORD: Final = 10

Remarks = dict[int, str]
"""Row -> what was wrong with it."""


def add_remark(remarks: Remarks, row: int, remark: str) -> None:
    """Note what was wrong with a row, after what is noted already."""
    remarks[row] = f"{remarks[row]}; {remark}" if row in remarks else remark


def read_objects(lines: pl.DataFrame, rejects: Remarks, remarks: Remarks) -> Iterator[Alike]:
    """The objects of the lines, those with the same keys together; rejects and remarks are added to.

    Objects are handed on once there are `FULL` of one shape, while they are still in the processor's cache: three
    passes over the objects of 20,000 lines take twice as long as 20 times three passes over 1,000.
    """
    found: dict[tuple[str, ...], Alike] = {}
    loads = orjson.loads
    for row, payload, colons in _rows(lines):
        # The loop that every JSON event goes through: what is not needed for each of them stays out of it.
        remark = None
        try:
            event = loads(payload)
        except orjson.JSONDecodeError as error:
            event, remark = _decode_leniently(payload, str(error))
            if event is None:
                rejects[row] = remark or "broken JSON"
                continue
        if type(event) is not dict:
            rejects[row] = _no_object(event)
            continue
        if colons > len(event) and (twice := _hidden_key(payload, colons, event)) is not None:
            add_remark(remarks, row, f"key {twice[:64]!r} occurs twice: the last value is read")
        if remark is not None:
            add_remark(remarks, row, remark)
        key = tuple(event)
        same = found.get(key)
        if same is None:
            same = found[key] = Alike([], [])
        same.rows.append(row)
        same.events.append(event)
        if len(same.rows) == FULL:
            yield found.pop(key)
    yield from found.values()


def _rows(lines: pl.DataFrame) -> Iterator[tuple[int, bytes, int]]:
    """(row, payload, colons) of each line."""
    for part in lines.iter_slices(FULL):
        columns = (part["row"], part["payload"].cast(pl.Binary), part.select(COLONS).to_series())
        yield from zip(*(column.to_list() for column in columns), strict=True)


def _hidden_key(payload: bytes, colons: int, event: dict[str, Json]) -> str | None:
    """A key that occurs twice, looked for only where there are more keys in the text than in the object."""
    return _key_twice(payload) if colons - payload.count(b'\\":') > _count_keys(event) else None


def _no_object(value: Json) -> str:
    return "a JSON array, not an object" if isinstance(value, list) else "JSON, but not an object"


def _decode_leniently(payload: bytes, cause: str) -> tuple[dict[str, Json] | None, str | None]:
    text = payload.decode("utf-8", "surrogatepass")
    remark = f"not valid JSON, read all the same: {cause}"
    try:
        try:
            value = _loads(text)
        except json.JSONDecodeError as error:
            closed = close_cut_json(text) if _at_the_end(error) else None
            if closed is None:
                raise
            value, remark = _loads(closed), CUT
    except (ValueError, RecursionError):
        return None, f"broken JSON: {cause}"
    if not value:
        return None, f"broken JSON: {cause}"
    return (value, remark) if isinstance(value, dict) else (None, _no_object(value))


def _loads(text: str) -> Json:
    value: Json = json.loads(text, strict=False)
    shown = repr(value)
    return _without_surrogates(value) if _SURROGATE.search(shown) or r"\ud" in shown else value


def _at_the_end(error: json.JSONDecodeError) -> bool:
    """Whether the text may have been cut there, even within an escape or a word such as `false`."""
    return error.msg.startswith("Unterminated string") or error.pos >= len(error.doc) - _LONGEST_WORD


def _without_surrogates(value: Json) -> Json:
    """The value with U+FFFD for every lone surrogate, which UTF-8 (and so a column) cannot hold."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_SURROGATE.sub("\ufffd", key): _without_surrogates(item) for key, item in value.items()}
    return value


def _count_keys(value: Json) -> int:
    """Keys of all objects within; with a list of its own, since orjson reads deeper than Python may recurse."""
    count = 0
    waiting: list[Json] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            count += len(item)
            waiting += (inner for inner in item.values() if isinstance(inner, (dict, list)))
        elif isinstance(item, list):
            waiting += (inner for inner in item if isinstance(inner, (dict, list)))
    return count


def _key_twice(payload: bytes) -> str | None:
    """A key that occurs twice in one object: broken templates let a sender add one, so it must not go unseen."""
    found: list[str] = []

    def look(pairs: list[tuple[str, Json]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                found.append(key)
            seen.add(key)

    try:
        json.loads(payload, object_pairs_hook=look, strict=False)
    except (ValueError, RecursionError):
        return None
    return found[0] if found else None
