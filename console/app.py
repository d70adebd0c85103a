"""The application: routes, guards and pages put together around a store.

Layers, outermost first: security headers, known host, body limit, HEAD as GET; then, on every route, the check where a
change comes from. FastAPI's own documentation pages load scripts from a CDN, which the Content-Security-Policy forbids
and a hospital network does not reach: only /api/openapi.json is served.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fastapi import Depends, FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from console import api, pages, problems, source_api, sources_page
from console.context import Console
from console.guard import BodyLimit, HeadAsGet, SecurityHeaders, same_origin
from console.known_host import KnownHost
from console.pulse import Pulse
from console.rendering import Rendering
from console.rule_text import Rules
from console.settings import ConsoleSettings
from console.source_view import SourceBook
from storage.alerts import AlertStore

STATIC: Final = Path(__file__).parent / "static"
API_VERSION: Final = "1"


def _utc_now() -> datetime:
    return datetime.now(UTC)


def create_app(
    store: AlertStore,
    *,
    settings: ConsoleSettings,
    pulse: Pulse | None = None,
    clock: Callable[[], datetime] = _utc_now,
    rules: Rules | None = None,
    sources: SourceBook | None = None,
) -> FastAPI:
    """The console over an open store; the store stays the caller's to close.

    Args:
        store: Alerts and decisions.
        settings: How the console looks and whom it answers.
        pulse: Supplies the state of the system for the header strip; without it there is no strip.
        clock: The time now, UTC.
        rules: Supplies what a rule says of itself, by rule id; without it alert pages show the title alone.
        sources: Supplies what each hospital sends; without it the sources page says that it is not known.

    Raises:
        ConsoleError: A catalog of translations cannot be read.
    """
    app = FastAPI(
        title="Tocsin",
        summary="Alerts of a regional SOC, and what its analysts decide about them.",
        version=API_VERSION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        dependencies=[Depends(same_origin)],
    )
    app.state.console = Console(store, settings, Rendering(settings, clock), pulse, clock, rules, sources)
    app.include_router(api.router)
    app.include_router(api.health)
    app.include_router(source_api.router)
    app.include_router(pages.router)
    app.include_router(sources_page.router)
    app.mount("/static", RevalidatedFiles(directory=STATIC), name="static")
    problems.install(app)
    app.add_middleware(HeadAsGet)
    app.add_middleware(BodyLimit)
    app.add_middleware(KnownHost, allowed_hosts=settings.allowed_hosts)
    app.add_middleware(SecurityHeaders)
    return app


class RevalidatedFiles(StaticFiles):
    """Static files a browser may keep, but asks about (ETag) before each use: an update is seen at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or 304 where the browser's copy is still right."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response
