r"""Alerts as bytes on the bus: one JSON object each.

Log text is written by attackers, and Python strings can hold what UTF-8 cannot: lone surrogates, which JSON writers and
DuckDB both refuse. They are written out visibly (`\udc80`), so that no alert is lost to a hostile file name. A NUL is
a legal character everywhere here and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import orjson

from storage.alert import Alert, Evidence, Level
from storage.errors import AlertDecodeError


def storable(text: str) -> str:
    r"""The text, with lone surrogates written as `\udXXX`."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def encode_alert(alert: Alert) -> bytes:
    """An alert as JSON; times in UTC to the microsecond."""
    return orjson.dumps({name: _plain(getattr(alert, name)) for name in _READERS})


def decode_alert(value: bytes) -> Alert:
    """Read an alert back.

    Members it does not know are ignored, so that an older reader survives a newer writer; `evidence`, which older
    writers do not know, may be missing.

    Raises:
        AlertDecodeError: The bytes are not JSON, or a member is missing or of the wrong kind.
    """
    try:
        members = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise AlertDecodeError(f"not JSON: {error}") from error
    if not isinstance(members, dict):
        raise AlertDecodeError(f"an alert is a JSON object, not {type(members).__name__}")
    read: dict[str, object] = {}
    for name, reader in _READERS.items():
        if name not in members and name in _OPTIONAL:
            continue
        if name not in members:
            raise AlertDecodeError(f"member {name} is missing")
        try:
            read[name] = reader(members[name])
        except (ValueError, OverflowError) as error:
            raise AlertDecodeError(f"member {name}: {error}") from error
    return Alert(**read)  # type: ignore[arg-type]  # the table below has one reader of the right type for each member


def dump_fields(fields: Mapping[str, str | None]) -> str:
    """Fields as a JSON object in text, as the store keeps them."""
    return orjson.dumps(_plain(fields)).decode()


def load_fields(text: str) -> dict[str, str]:
    """Read back what `dump_fields` wrote."""
    return _fields(orjson.loads(text))


def load_matched(text: str) -> dict[str, str | None]:
    """Read back what `dump_fields` wrote of the matched fields, of which one may be absent from the event."""
    return _matched(orjson.loads(text))


def dump_evidence(evidence: Sequence[Evidence]) -> str:
    """Evidence as a JSON list in text, as the store keeps it."""
    return orjson.dumps(_plain(tuple(evidence))).decode()


def load_evidence(text: str) -> tuple[Evidence, ...]:
    """Read back what `dump_evidence` wrote."""
    return _evidence(orjson.loads(text))


def in_utc(moment: datetime) -> datetime:
    """The moment in UTC; one without a time zone is taken to be UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _plain(value: object) -> object:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, datetime):
        return in_utc(value).isoformat(timespec="microseconds")
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Evidence):
        return {name: _plain(getattr(value, name)) for name in _EVIDENCE_READERS}
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"text expected, not {type(value).__name__}")  # noqa: TRY004 - one kind of error for bad data
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _moment(value: object) -> datetime:
    return in_utc(datetime.fromisoformat(_text(value)))


def _level(value: object) -> Level:
    return Level(_text(value))


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"a list expected, not {type(value).__name__}")  # noqa: TRY004 - as above
    return tuple(_text(item) for item in value)


def _fields(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"an object expected, not {type(value).__name__}")  # noqa: TRY004 - as above
    return {name: _text(item) for name, item in value.items()}


def _matched(value: object) -> dict[str, str | None]:
    if not isinstance(value, dict):
        raise ValueError(f"an object expected, not {type(value).__name__}")  # noqa: TRY004 - as above
    return {name: _text_or_none(item) for name, item in value.items()}


def _evidence(value: object) -> tuple[Evidence, ...]:
    if not isinstance(value, list):
        raise ValueError(f"a list expected, not {type(value).__name__}")  # noqa: TRY004 - as above
    return tuple(_piece(item) for item in value)


def _piece(value: object) -> Evidence:
    if not isinstance(value, dict) or not _EVIDENCE_READERS.keys() <= value.keys():
        raise ValueError(f"an object with {', '.join(_EVIDENCE_READERS)} expected")
    read = {name: reader(value[name]) for name, reader in _EVIDENCE_READERS.items()}
    return Evidence(**read)  # type: ignore[arg-type]  # the table below has one reader of the right type for each member


_EVIDENCE_READERS: Final[dict[str, Callable[[object], object]]] = {
    "event_id": _text,
    "timestamp": _moment,
    "rule_title": _text,
    "host": _text_or_none,
    "user": _text_or_none,
    "source_ip": _text_or_none,
    "matched": _matched,
}
"""Member -> how it is read; exactly the fields of `Evidence`."""

_OPTIONAL: Final = frozenset({"evidence"})

_READERS: Final[dict[str, Callable[[object], object]]] = {
    "id": _text,
    "rule_id": _text,
    "rule_title": _text,
    "level": _level,
    "tenant": _text,
    "timestamp": _moment,
    "received": _moment,
    "logsource": _text,
    "host": _text_or_none,
    "user": _text_or_none,
    "source_ip": _text_or_none,
    "destination_ip": _text_or_none,
    "event_ids": _texts,
    "matched": _matched,
    "event": _fields,
    "original": _text,
    "tags": _texts,
    "evidence": _evidence,
}
"""Member -> how it is read; exactly the fields of `Alert`."""
