"""What an analyst asks of the alert store, and what comes back: filters, pages, counts, and their SQL.

The queue is ordered worst first, then newest, then latest to arrive: (level rank, timestamp, n), all falling. Pages go
on from the last row seen (keyset), not from a row number, so alerts that arrive meanwhile shift nothing. Every value
reaches SQL as a parameter, and text is searched literally: `%` and `_` mean themselves.

A page of ten million alerts comes from two looks: the narrow table `state` says which rows, and the wide ones are then
found by index. Text has no index: it is sought in the newest alerts only, and the page says how many.
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
from storage.alert_state import STATUS_CODES
from storage.errors import CursorError

OPEN_STATUSES: Final = frozenset({Status.NEW, Status.IN_PROGRESS})
"""What still wants an analyst."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST: Final = 2**63 - 1

ALERT_COLUMNS: Final = (
    "a.n, a.id, a.rule_id, a.rule_title, a.level, a.tenant, epoch_us(a.timestamp), epoch_us(a.received), a.logsource, "
    'a.host, a."user", a.source_ip, a.destination_ip, a.event_ids, a.matched, a.event, a.original, a.tags, '
    "a.evidence"
)
"""What `row_of` reads of alerts a."""

DECISION_COLUMNS: Final = "seq, alert_id, epoch_us(decided), author, status, note"
"""What `decision_of` reads, behind the place in the journal."""


Arrived = tuple[int, int]
"""First and last of some numbers of arrival."""


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
    """One page of the queue; `next_cursor` is `None` on the last, `total` counts all pages.

    `searched` is how many alerts, the newest to arrive, a text was sought in; `None` if in all.
    """

    items: list[AlertRow]
    next_cursor: str | None
    total: int
    searched: int | None = None


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


def clause_of(asked: AlertFilter, after: str | None = None, arrived: Arrived | None = None) -> Clause:
    """The rows of `state s` that a filter meets, from a cursor on.

    Args:
        asked: The filter.
        after: A cursor.
        arrived: With text, the numbers of arrival among which it is sought.

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
    require_one_of("s.status", None if asked.statuses is None else sorted(STATUS_CODES[s] for s in asked.statuses))
    if asked.rule_id is not None:
        require("s.rule_id = ?", asked.rule_id)
    if asked.host is not None:
        require("s.host = lower(?)", asked.host)
    if asked.since is not None:
        require("s.timestamp >= make_timestamptz(?::BIGINT)", microseconds(asked.since))
    if asked.until is not None:
        require("s.timestamp < make_timestamptz(?::BIGINT)", microseconds(asked.until))
    if asked.text:
        searched = ("a.rule_title", "a.host", 'a."user"', "a.original")
        require(
            " OR ".join(f"contains(lower({column}), lower(?))" for column in searched), *[asked.text] * len(searched)
        )
        if arrived is not None:  # said of both tables, since DuckDB passes only equality through a join
            require("s.n BETWEEN ? AND ? AND a.n BETWEEN ? AND ?", *arrived, *arrived)
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


def row_of(values: Sequence[object], status: Status, seq: int | None, decision: Decision | None) -> AlertRow:
    """An alert from the values of `ALERT_COLUMNS`, and where it stands."""
    n, *alert = values
    return AlertRow(_alert(alert), status, decision, seq, _integer(n))


def decision_of(values: Sequence[object]) -> tuple[int, Decision]:
    """A decision and its place in the journal from the values of `DECISION_COLUMNS`."""
    seq, alert_id, at, author, status, note = values
    return _integer(seq), Decision(str(alert_id), moment_of(at), str(author), Status(str(status)), str(note))


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
