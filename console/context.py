"""What every request needs: the store, the settings, the pulse, the pages and a clock, in one value on the app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, cast

from fastapi import Depends, Request

from console.pulse import Pulse, SystemPulse
from console.rendering import Rendering
from console.rule_text import Rules, RuleText
from console.settings import ConsoleSettings
from console.source_view import SourceBook
from storage.alerts import AlertStore


@dataclass(frozen=True, slots=True)
class Console:
    """The parts of a running console."""

    store: AlertStore
    settings: ConsoleSettings
    rendering: Rendering
    pulse: Pulse | None
    clock: Callable[[], datetime]
    rules: Rules | None = None
    sources: SourceBook | None = None

    def taken_pulse(self) -> SystemPulse | None:
        """The pulse now, or None where nobody supplies one."""
        return self.pulse() if self.pulse else None

    def rule_text(self, rule_id: str) -> RuleText | None:
        """What a rule says of itself, or None where it is not known."""
        return self.rules(rule_id) if self.rules else None


def console_of(request: Request) -> Console:
    """The console this request came to (FastAPI dependency)."""
    return cast("Console", request.app.state.console)


TheConsole = Annotated[Console, Depends(console_of)]
