"""The page of sources: a block a hospital, the worst first. No JavaScript."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from console.analyst import current_analyst
from console.asking import NAME_MAX
from console.context import TheConsole
from console.languages import N_
from console.pages import frame
from console.source_view import UNDERSTOOD_LEAST, State, Verdict

router = APIRouter(include_in_schema=False)

HOSPITALS_SHOWN: Final = 25
"""Hospitals on one page."""

SOURCES_SHOWN: Final = 20
"""Sources of a hospital on the page of all; alone it shows up to `SOURCES_ALONE`."""

SOURCES_ALONE: Final = 2000

STATE_NAMES: Final[Mapping[State, str]] = {
    State.SILENT: N_("fallen silent"),
    State.NEVER: N_("never seen"),
    State.NEW: N_("new"),
    State.OK: N_("ok"),
}

VERDICT_NAMES: Final[Mapping[Verdict, str]] = {
    Verdict.MISSING: N_("lines are missing"),
    Verdict.DELAYED: N_("lines wait for more than five minutes"),
    Verdict.CUT_OFF: N_("a collector that held lines is not heard of any more"),
    Verdict.SURPLUS: N_("balanced; a collector ended before it could say all that it took"),
    Verdict.UNSAID: N_("no collector says what it took"),
    Verdict.IN_FLIGHT: N_("the last lines are on their way"),
    Verdict.BALANCED: N_("balanced"),
}


@router.get("/sources")
def sources(
    request: Request,
    console: TheConsole,
    analyst: Annotated[str, Depends(current_analyst)],
    hospital: Annotated[str, Query(max_length=NAME_MAX)] = "",
    begin: Annotated[int, Query(alias="from", ge=0, le=100_000)] = 0,
) -> Response:
    """What each hospital sends, and what became of it."""
    view = console.sources.view(console.clock()) if console.sources is not None else None
    shown = [] if view is None else [seen for seen in view.hospitals if hospital in ("", seen.tenant)]
    context = {
        **frame(console, analyst),
        "view": view,
        "shown": shown,
        "asked": hospital,
        "from": min(begin, max(0, len(shown) - 1)),
        "size": HOSPITALS_SHOWN,
        "most": SOURCES_ALONE if hospital else SOURCES_SHOWN,
        "least": UNDERSTOOD_LEAST,
        "State": State,
        "Verdict": Verdict,
        "state_names": STATE_NAMES,
        "verdict_names": VERDICT_NAMES,
    }
    return console.rendering.page(request, "sources.html", context)
