"""What an analyst asks of the alert store, and what comes back: filters, pages, counts, and their SQL.

The queue is ordered worst first, then newest, then latest to arrive: (level rank, timestamp, n), all falling. Pages go
on from the last row seen (keyset), not from a row number, so alerts that arrive meanwhile shift nothing. Every value
reaches SQL as a parameter, and text is searched literally: `%` and `_` mean themselves.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson

from storage.alert import Alert, Decision, Level, Status
from storage.alert_codec import in_utc, load_evidence, load_fields, load_matched, storable
from storage.errors import CursorError

OPEN_STATUSES: Final = frozenset({Status.NEW, Status.IN_PROGRESS})
"""What still wants an analyst."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST: Final = 2**63 - 1

ROW_COLUMNS: Final = (
    "a.n, a.id, a.rule_id, a.rule_title, a.level, a.tenant, epoch_us(a.timestamp), epoch_us(a.received), a.logsource, "
    'a.host, a."user", a.source_ip, a.destination_ip, a.event_ids, a.matched, a.event, a.original, a.tags, '
    "a.evidence, "
    "s.status, d.seq, epoch_us(d.decided), d.author, d.status, d.note"
)
"""What `row_of` reads, from alerts a, state s and decisions d."""


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts are asked for; `None` is all, an empty collection none.

    Attributes:
        tenants: Hospitals.
        levels: Sigma levels.
        statuses: Where alerts stand; `OPEN_STATUSES` for what wants an analyst.
        rule_id: One rule.
        host: One host, in any case.
        text: A piece of the rule's title, the host, the user or the raw line, in any case; no wildcards.
        since: First event time, inclusive.
        until: Last event time, exclusive.
    """

    tenants: Collection[str] | None = None
    levels: Collection[Level] | None = None
    statuses: Collection[Status] | None = None
    rule_id: str | None = None
    host: str | None = None
    text: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class AlertRow:
    """An alert and where it stands.

    Attributes:
        alert: What was detected.
        status: `new` until someone decides.
        decision: The latest decision, if any.
        decision_seq: Its place in the journal: hand it to `decide(expected_seq=...)` to notice a colleague's decision.
        n: Number of arrival in this store.
    """

    alert: Alert
    status: Status
    decision: Decision | None
    decision_seq: int | None
    n: int


@dataclass(frozen=True, slots=True)
class AlertPage:
    """One page of the queue; `next_cursor` is `None` on the last, `total` counts all pages."""

    items: list[AlertRow]
    next_cursor: str | None
    total: int


@dataclass(frozen=True, slots=True)
class AlertCounts:
    """How many alerts a filter meets, and of what kind; a kind without any is absent."""

    total: int = 0
    by_level: dict[Level, int] = field(default_factory=dict)
    by_status: dict[Status, int] = field(default_factory=dict)
    by_tenant: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Clause:
    """A FROM and WHERE over `state s`, with its parameters."""

    sql: str
    parameters: tuple[object, ...]


def clause_of(asked: AlertFilter, after: str | None = None) -> Clause:
    """The rows of `state s` that a filter meets, from a cursor on.

    Raises:
        CursorError: The cursor is not one of `cursor_of`.
    """
    conditions: list[str] = []
    parameters: list[object] = []

    def require(condition: str, *values: object) -> None:
        conditions.append(condition)
        parameters.extend(storable(value) if isinstance(value, str) else value for value in values)

    def require_one_of(column: str, values: Sequence[object] | None) -> None:
        if values is not None:
            require(f"{column} IN ({', '.join('?' * len(values))})" if values else "false", *values)

    require_one_of("s.tenant", _sorted(asked.tenants))
    require_one_of("s.rank", None if asked.levels is None else sorted(level.rank for level in asked.levels))
    require_one_of("s.status", _sorted(asked.statuses))
    if asked.rule_id is not None:
        require("s.rule_id = ?", asked.rule_id)
    if asked.host is not None:
        require("lower(s.host) = lower(?)", asked.host)
    if asked.since is not None:
        require("s.timestamp >= make_timestamptz(?::BIGINT)", microseconds(asked.since))
    if asked.until is not None:
        require("s.timestamp < make_timestamptz(?::BIGINT)", microseconds(asked.until))
    if asked.text:
        searched = ("a.rule_title", "a.host", 'a."user"', "a.original")
        require(
            " OR ".join(f"contains(lower({column}), lower(?))" for column in searched), *[asked.text] * len(searched)
        )
    if after is not None:
        rank, time, n = _place(after)
        require(
            "s.rank < ? OR s.rank = ? AND (s.timestamp < make_timestamptz(?::BIGINT)"
            " OR s.timestamp = make_timestamptz(?::BIGINT) AND s.n < ?)",
            *(rank, rank, time, time, n),
        )
    source = "FROM state s" + (" JOIN alerts a ON a.n = s.n" if asked.text else "")
    where = " WHERE " + " AND ".join(f"({condition})" for condition in conditions) if conditions else ""
    return Clause(source + where, tuple(parameters))


def cursor_of(row: AlertRow) -> str:
    """The opaque place of a row in the queue."""
    place = [row.alert.level.rank, microseconds(row.alert.timestamp), row.n]
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (in_utc(moment) - _EPOCH) // timedelta(microseconds=1)


def moment_of(value: object) -> datetime:
    """The time of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=_integer(value))


def row_of(values: Sequence[object]) -> AlertRow:
    """An alert and its state from the values of `ROW_COLUMNS`."""
    (n, *alert, status, seq, at, author, decided, note) = values
    decision = None
    if seq is not None:
        decision = Decision(str(alert[0]), moment_of(at), str(author), Status(str(decided)), str(note))
    return AlertRow(_alert(alert), Status(str(status)), decision, None if seq is None else _integer(seq), _integer(n))


def _alert(values: Sequence[object]) -> Alert:
    (id_, rule_id, rule_title, level, tenant, timestamp, received, logsource, *rest) = values
    (host, user, source_ip, destination_ip, event_ids, matched, event, original, tags, evidence) = rest
    return Alert(
        id=str(id_),
        rule_id=str(rule_id),
        rule_title=str(rule_title),
        level=Level(str(level)),
        tenant=str(tenant),
        timestamp=moment_of(timestamp),
        received=moment_of(received),
        logsource=str(logsource),
        host=_optional(host),
        user=_optional(user),
        source_ip=_optional(source_ip),
        destination_ip=_optional(destination_ip),
        event_ids=_texts(event_ids),
        matched=load_matched(str(matched)),
        event=load_fields(str(event)),
        original=str(original),
        tags=_texts(tags),
        evidence=load_evidence(str(evidence)),
    )


def _place(cursor: str) -> tuple[int, int, int]:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        place = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (UnicodeEncodeError, binascii.Error, orjson.JSONDecodeError) as error:
        raise CursorError(f"not a page cursor: {cursor[:80]!r}") from error
    if not isinstance(place, list) or len(place) != 3 or not all(type(part) is int for part in place):
        raise CursorError(f"not a page cursor: {cursor[:80]!r}")
    rank, time, n = place
    if not (0 <= rank < len(Level) and abs(time) <= _LARGEST and abs(n) <= _LARGEST):
        raise CursorError(f"not a page cursor: {cursor[:80]!r}")
    return rank, time, n


def _sorted(values: Collection[str] | None) -> list[str] | None:
    return None if values is None else sorted(str(value) for value in values)


def _optional(value: object) -> str | None:
    return None if value is None else str(value)


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"a list expected, not {type(value).__name__}")
    return tuple(str(item) for item in value)


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"an integer expected, not {type(value).__name__}")
    return value
