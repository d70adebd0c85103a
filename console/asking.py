"""What a reader of the queue asks for: the query string of the page and of the API, as a filter for the store.

Every part of a question is in the address, so that a view can be kept, sent to a colleague and reloaded. Two words
stand for more than one status: `open` (new and in progress, the page's default) and `all`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import Depends, Query

from console import wording
from storage.alert import Level, Status
from storage.alert_queue import OPEN_STATUSES, AlertFilter

StatusChoice = Literal["open", "all", "new", "in_progress", "true_positive", "false_positive", "closed"]
Since = Literal["", "1h", "24h", "7d", "30d"]
TEXT_MAX: Final = 200
NAME_MAX: Final = 300
CURSOR_MAX: Final = 400

Tenants = Annotated[list[Annotated[str, Query(max_length=NAME_MAX)]], Query(description="Hospitals; none means all.")]
Levels = Annotated[list[Level], Query(description="Levels; none means all.")]
Text = Annotated[str, Query(max_length=TEXT_MAX, description="Text to find in the alert or its raw line.")]
Name = Annotated[str, Query(max_length=NAME_MAX)]
Cursor = Annotated[str, Query(max_length=CURSOR_MAX, description="`next_cursor` of the page before.")]


@dataclass(frozen=True, slots=True)
class Question:
    """The queue page's query string, read."""

    tenant: tuple[str, ...] = ()
    level: tuple[Level, ...] = ()
    status: StatusChoice = "open"
    since: Since = ""
    q: str = ""
    rule: str = ""
    host: str = ""
    cursor: str = ""

    def filter(self, now: datetime) -> AlertFilter:
        """What the store is asked."""
        return AlertFilter(
            tenants=self.tenant or None,
            levels=self.level or None,
            statuses=self.statuses,
            rule_id=self.rule or None,
            host=self.host or None,
            text=self.q or None,
            since=now - wording.SINCE[self.since][1] if self.since else None,
        )

    @property
    def statuses(self) -> frozenset[Status] | None:
        """The statuses `status` stands for; None means all."""
        if self.status == "open":
            return OPEN_STATUSES
        return None if self.status == "all" else frozenset({Status(self.status)})

    @property
    def narrowed(self) -> bool:
        """Whether anything but the default view is asked for."""
        return replace(self, cursor="") != Question()

    @property
    def address(self) -> str:
        """The query string that asks this again, without what is at its default."""
        pairs = [("tenant", name) for name in self.tenant] + [("level", level.value) for level in self.level]
        single = (
            ("status", "" if self.status == "open" else self.status),
            ("since", self.since),
            ("q", self.q),
            ("rule", self.rule),
            ("host", self.host),
            ("cursor", self.cursor),
        )
        return urlencode(pairs + [(name, value) for name, value in single if value])

    def but(self, **changes: str | tuple[str, ...] | tuple[Level, ...]) -> str:
        """The address of this question with some parts changed, from its first page."""
        return "/?" + replace(self, **{"cursor": "", **changes}).address  # type: ignore[arg-type]


def question(
    tenant: Tenants = [],  # noqa: B006 - FastAPI copies the default
    level: Levels = [],  # noqa: B006
    status: StatusChoice = "open",
    since: Since = "",
    q: Text = "",
    rule: Name = "",
    host: Name = "",
    cursor: Cursor = "",
) -> Question:
    """Read the queue page's query string (FastAPI dependency)."""
    return Question(tuple(tenant), tuple(level), status, since, q.strip(), rule.strip(), host.strip(), cursor)


AskedQuestion = Annotated[Question, Depends(question)]


def api_filter(
    tenant: Tenants = [],  # noqa: B006
    level: Levels = [],  # noqa: B006
    status: Annotated[list[Status], Query(description="Statuses; none means all.")] = [],  # noqa: B006
    rule_id: Name = "",
    host: Name = "",
    q: Text = "",
    since: Annotated[datetime | None, Query(description="Event time at or after; UTC unless it says.")] = None,
    until: Annotated[datetime | None, Query(description="Event time before; UTC unless it says.")] = None,
) -> AlertFilter:
    """Read the API's query string (FastAPI dependency)."""
    return AlertFilter(
        tenants=tenant or None,
        levels=level or None,
        statuses=status or None,
        rule_id=rule_id or None,
        host=host or None,
        text=q.strip() or None,
        since=_in_utc(since),
        until=_in_utc(until),
    )


def _in_utc(value: datetime | None) -> datetime | None:
    if value is None or value.tzinfo is not None:
        return value
    return value.replace(tzinfo=UTC)


AskedFilter = Annotated[AlertFilter, Depends(api_filter)]
