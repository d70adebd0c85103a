"""The JSON API: the queue, one alert, its journal and decisions, and the pulse. Described at /api/openapi.json."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, HTTPException, Query

from console.analyst import current_analyst
from console.asking import AskedFilter, AskedQuestion, Cursor, only_known_parameters
from console.context import TheConsole
from console.deciding import clean_note, note_fault
from console.languages import N_
from console.models import (
    AlertDetailModel,
    AlertModel,
    AlertPageModel,
    ChangesModel,
    DecideModel,
    DecisionModel,
    HealthModel,
    ProblemModel,
    PulseModel,
)
from console.problems import HEALTH_PATH, NO_ALERT
from console.settings import PAGE_SIZE_MAX
from console.watching import change_token, ever_matching
from storage.errors import StoreError

router = APIRouter(prefix="/api", tags=["alerts"], dependencies=[Depends(only_known_parameters)])
health = APIRouter(tags=["health"])

_NOT_FOUND: Final = {"model": ProblemModel, "description": "No alert has this id."}
_CONFLICT: Final = {"model": ProblemModel, "description": "The alert no longer has the expected status."}
_SICK: Final = {"model": ProblemModel, "description": "The alert store cannot be read."}
_INVALID: Final = {"model": ProblemModel, "description": "A value is not accepted; `errors` says which."}


@router.get("/alerts", responses={422: _INVALID})
def list_alerts(
    console: TheConsole,
    asked: AskedFilter,
    limit: Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX)] = 100,
    cursor: Cursor = "",
) -> AlertPageModel:
    """Alerts that match every filter given, worst first, then newest."""
    page = console.store.queue(asked, limit=limit, cursor=cursor or None)
    return AlertPageModel(
        items=[AlertModel.of(row) for row in page.items],
        total=page.total,
        next_cursor=page.next_cursor,
        searched=page.searched,
    )


@router.get("/alerts/{alert_id}", responses={404: _NOT_FOUND})
def get_alert(console: TheConsole, alert_id: str) -> AlertDetailModel:
    """One alert with its evidence."""
    row = console.store.get(alert_id)
    if row is None:
        raise HTTPException(404, NO_ALERT)
    return AlertDetailModel.detailed(row, console.rule_text(row.alert.rule_id))


@router.get("/alerts/{alert_id}/journal", responses={404: _NOT_FOUND})
def get_journal(console: TheConsole, alert_id: str) -> list[DecisionModel]:
    """Every decision on an alert, oldest first."""
    if console.store.get(alert_id) is None:
        raise HTTPException(404, NO_ALERT)
    return [DecisionModel.of(decision) for decision in console.store.journal(alert_id)]


@router.post(
    "/alerts/{alert_id}/decisions",
    status_code=201,
    responses={404: _NOT_FOUND, 409: _CONFLICT, 422: _INVALID},
)
def decide(
    console: TheConsole, alert_id: str, body: DecideModel, author: Annotated[str, Depends(current_analyst)]
) -> DecisionModel:
    """Append a decision to an alert's journal; its status becomes the alert's."""
    note = clean_note(body.note)
    fault = note_fault(body.status, note)
    if fault:
        raise HTTPException(422, fault)
    return DecisionModel.of(console.store.decide(alert_id, body.status, note, author, expected=body.expected))


@router.get("/changes", responses={422: _INVALID})
def get_changes(
    console: TheConsole, asked: AskedQuestion, token: Annotated[str, Query(max_length=200)] = ""
) -> ChangesModel:
    """Whether alerts or decisions were added since `token`; asked by open queue pages, so it is cheap when not."""
    current = change_token(console)
    if current == token:
        return ChangesModel(token=current, changed=False, ever=None)
    return ChangesModel(token=current, changed=True, ever=ever_matching(console, asked.filter(console.clock())))


@router.get("/pulse")
def get_pulse(console: TheConsole) -> PulseModel:
    """State of the system itself: what came in from whom, and which rules run."""
    pulse = console.taken_pulse()
    if pulse is None:
        return PulseModel()
    return PulseModel.of(pulse, pulse.silent_hospitals(console.clock(), console.settings.silent_after))


@router.get("/hospitals")
def get_hospitals(console: TheConsole) -> list[str]:
    """Hospitals that have alerts."""
    return sorted(console.store.tenants())


@health.get(HEALTH_PATH, responses={503: _SICK})
def get_health(console: TheConsole) -> HealthModel:
    """Whether the console answers and its store can be read: the latest decision is looked up in it."""
    try:
        console.store.journal_head()
    except StoreError as error:
        raise HTTPException(503, N_("The alert store cannot be read; the console's log says why.")) from error
    return HealthModel(status="ok")
