"""What a reader of the queue asks for: the query string of the page and of the API, as a filter for the store.

Every part of a question is in the address, so that a view can be kept, sent to a colleague and reloaded. Two words
stand for more than one status: `open` (new and in progress, the page's default) and `all`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import Depends, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from console import wording
from storage.alert import Level, Status
from storage.alert_queue import OPEN_STATUSES, AlertFilter

StatusChoice = Literal["open", "all", "new", "in_progress", "true_positive", "false_positive", "closed"]
Since = Literal["", "1h", "24h", "7d", "30d"]
TEXT_MAX: Final = 200
NAME_MAX: Final = 300
CURSOR_MAX: Final = 400
LANGUAGE_PARAMETER: Final = "lang"

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
    status: Annotated[
        list[StatusChoice], Query(description="Statuses; `open` is new and in progress; `all` or none means all.")
    ] = [],  # noqa: B006
    rule_id: Name = "",
    rule: Annotated[str, Query(max_length=NAME_MAX, description="The page's word for `rule_id`.")] = "",
    host: Name = "",
    q: Text = "",
    since: Annotated[datetime | None, Query(description="Event time at or after; UTC unless it says.")] = None,
    until: Annotated[datetime | None, Query(description="Event time before; UTC unless it says.")] = None,
) -> AlertFilter:
    """Read the API's query string (FastAPI dependency).

    Raises:
        RequestValidationError: `rule` and `rule_id` ask for different rules.
    """
    if rule and rule_id and rule != rule_id:
        raise RequestValidationError([_fault("rule", "rule is the same as rule_id: give one of them")])
    return AlertFilter(
        tenants=tenant or None,
        levels=level or None,
        statuses=_statuses(status),
        rule_id=rule_id or rule or None,
        host=host or None,
        text=q.strip() or None,
        since=_in_utc(since),
        until=_in_utc(until),
    )


def _statuses(choices: list[StatusChoice]) -> frozenset[Status] | None:
    """The statuses that any of the words stands for; None means all."""
    wanted = [Question(status=choice).statuses for choice in choices]
    if not wanted or None in wanted:
        return None
    return frozenset[Status]().union(*(statuses for statuses in wanted if statuses is not None))


def only_known_parameters(request: Request) -> None:
    """Refuse a query parameter that the address does not have (FastAPI dependency).

    A filter with a typo would else ask for every alert, and a script would go on to close them.

    Raises:
        RequestValidationError: It names each.
    """
    route = request.scope["route"]
    known = _parameters(route.dependant) if isinstance(route, APIRoute) else set()
    strange = [name for name in request.query_params if name not in known and name != LANGUAGE_PARAMETER]
    if strange:
        there_are = ", ".join(sorted(known)) or "none"
        raise RequestValidationError(
            [_fault(name, f"there is no such parameter; there are: {there_are}") for name in strange]
        )


def _parameters(dependant: Dependant) -> set[str]:
    """The query parameters of a route and of what it depends on."""
    below = [_parameters(other) for other in dependant.dependencies]
    return {field.alias for field in dependant.query_params}.union(*below)


def _fault(name: str, message: str) -> dict[str, object]:
    return {"type": "value_error", "loc": ("query", name), "msg": message}


def _in_utc(value: datetime | None) -> datetime | None:
    if value is None or value.tzinfo is not None:
        return value
    return value.replace(tzinfo=UTC)


AskedFilter = Annotated[AlertFilter, Depends(api_filter)]
