"""The pages: the queue, an alert, and the form that decides. Everything works without JavaScript."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from console.analyst import ANALYST_COOKIE, analyst_cookie, clean_analyst, current_analyst
from console.asking import AskedQuestion, Question
from console.context import Console, TheConsole
from console.deciding import NOTE_MAX, NOTE_REQUIRED, clean_note, note_fault
from console.languages import N_
from console.problems import NO_ALERT
from console.rendering import COOKIE_SECONDS
from console.watching import change_token, ever_matching
from console.wording import LEVEL_NAMES, STATUS_NAMES
from storage.alert import Alert, Status
from storage.alert_queue import AlertFilter, AlertRow
from storage.errors import DecisionConflict

router = APIRouter(include_in_schema=False)

RELATED_WINDOW: Final = timedelta(hours=24)
RELATED_MAX: Final = 8
ORIGINAL_MAX: Final = 64 * 1024  # characters of a raw line shown; a browser lays out more only with pain
EVENT_IDS_MAX: Final = 100
CONFLICT: Final = N_(
    "Somebody changed this alert after you opened it, so your decision was not written. "
    "Read the journal, then decide again; your note is still here."
)


@router.get("/")
def queue(
    request: Request, console: TheConsole, asked: AskedQuestion, analyst: Annotated[str, Depends(current_analyst)]
) -> Response:
    """The queue: worst first, then newest."""
    chosen = asked.filter(console.clock())
    # The token is taken before the rows: what comes in between is then shown twice, not missed.
    token = change_token(console)
    page = console.store.queue(chosen, limit=console.settings.page_size, cursor=asked.cursor or None)
    context = {
        **frame(console, analyst),
        "asked": asked,
        "rows": page.items,
        "total": page.total,
        "searched": page.searched,
        "next_address": asked.but(cursor=page.next_cursor) if page.next_cursor else None,
        "tenants": sorted({*console.store.tenants(), *asked.tenant}),
        "levels": tuple(LEVEL_NAMES),
        "statuses": tuple(STATUS_NAMES),
        "token": token,
        "ever": ever_matching(console, chosen),
        "by_level": console.store.counts(replace(chosen, levels=None)).by_level,
        "note_required": NOTE_REQUIRED,
    }
    return console.rendering.page(request, "queue.html", context)


@router.get("/alerts/{alert_id}")
def alert(
    request: Request, console: TheConsole, alert_id: str, analyst: Annotated[str, Depends(current_analyst)]
) -> Response:
    """One alert: why it fired, on what, and what was decided."""
    row = console.store.get(alert_id)
    if row is None:
        raise HTTPException(404, NO_ALERT)
    return _alert_page(request, console, row, _Draft(analyst=analyst))


@router.post("/alerts/{alert_id}")
def decide(
    request: Request,
    console: TheConsole,
    alert_id: str,
    status: Annotated[Status, Form()],
    seen: Annotated[int, Form(ge=0)],
    remembered: Annotated[str, Depends(current_analyst)],
    note: Annotated[str, Form()] = "",
    analyst: Annotated[str, Form()] = "",
) -> Response:
    """Write a decision; what cannot be written comes back with the form as it was filled in."""
    author = clean_analyst(analyst) or remembered
    draft = _Draft(author, status, clean_note(note), note_fault(status, clean_note(note)))
    if draft.fault is None:
        try:
            console.store.decide(alert_id, status, draft.note, author, expected_seq=seen)
        except DecisionConflict:
            draft = _Draft(author, status, draft.note, CONFLICT)
    row = console.store.get(alert_id)
    if row is None:
        raise HTTPException(404, NO_ALERT)
    if draft.fault is not None:
        response = _alert_page(request, console, row, draft, 409 if draft.fault == CONFLICT else 400)
    else:
        response = RedirectResponse(f"/alerts/{row.alert.id}#journal", 303)
    _remember(request, response, author)
    return response


@router.post("/analyst")
def name_analyst(request: Request, analyst: Annotated[str, Form()] = "") -> Response:
    """Remember the analyst's name in this browser, and go back to the page it was given on."""
    came_from = urlsplit(request.headers.get("referer", ""))
    # Only the path is taken, and "//host" would be another host: the answer cannot lead away from the console.
    back = "/" + came_from.path.lstrip("/\\") + (f"?{came_from.query}" if came_from.query else "")
    response = RedirectResponse(back, 303)
    name = clean_analyst(analyst)
    if name:
        _remember(request, response, name)
    return response


def _remember(request: Request, response: Response, name: str) -> None:
    response.set_cookie(
        ANALYST_COOKIE,
        analyst_cookie(name),
        max_age=COOKIE_SECONDS,
        samesite="lax",
        httponly=True,
        secure=request.url.scheme == "https",
    )


@router.get("/pulse")
def pulse(request: Request, console: TheConsole, analyst: Annotated[str, Depends(current_analyst)]) -> Response:
    """The header strip alone, for open pages that refresh it."""
    return console.rendering.page(request, "pulse.html", frame(console, analyst))


@dataclass(frozen=True, slots=True)
class _Draft:
    """What stands in the decision form."""

    analyst: str
    status: Status | None = None
    note: str = ""
    fault: str | None = None


def frame(console: Console, analyst: str) -> dict[str, object]:
    """What the layout shows on every page (for the other modules of pages too)."""
    taken = console.taken_pulse()
    silent = taken.silent_hospitals(console.clock(), console.settings.silent_after) if taken else frozenset()
    return {
        "pulse": taken,
        "pulse_expected": console.pulse is not None,
        "silent_hospitals": silent,
        "analyst": analyst,
        "note_max": NOTE_MAX,
    }


def _alert_page(request: Request, console: Console, row: AlertRow, draft: _Draft, status_code: int = 200) -> Response:
    shown = row.alert
    context = {
        **frame(console, draft.analyst),
        "row": row,
        "alert": shown,
        "rule": console.rule_text(shown.rule_id),
        "draft": draft,
        "fault": console.rendering.say(request, draft.fault) if draft.fault else None,
        "original": shown.original[:ORIGINAL_MAX],
        "original_left": max(0, len(shown.original) - ORIGINAL_MAX),
        "event_ids": shown.event_ids[:EVENT_IDS_MAX],
        "matched_fields": {name.casefold() for name in shown.matched},
        "journal": list(console.store.journal(shown.id)),
        "statuses": tuple(STATUS_NAMES),
        "note_required": NOTE_REQUIRED,
        "host_address": Question(tenant=(shown.tenant,), host=shown.host or "", status="all").but(),
        "rule_address": Question(rule=shown.rule_id, status="all").but(),
        "same_host": _related(console, shown, AlertFilter(tenants=(shown.tenant,), host=shown.host))
        if shown.host
        else [],
        "same_rule": _related(console, shown, AlertFilter(rule_id=shown.rule_id)),
    }
    return console.rendering.page(request, "alert.html", context, status_code)


def _related(console: Console, shown: Alert, asked: AlertFilter) -> list[AlertRow]:
    """Other alerts within a day of this one, in event time: an exercise or a late upload has related alerts too."""
    window = replace(asked, since=shown.timestamp - RELATED_WINDOW, until=shown.timestamp + RELATED_WINDOW)
    found = console.store.queue(window, limit=RELATED_MAX + 1, cursor=None).items
    return [row for row in found if row.alert.id != shown.id][:RELATED_MAX]
