"""The processes' own log: structured, on stderr, text for people or JSON for machines.

Values may hold text that an attacker wrote, so control characters are shown as escapes and can neither move a cursor
nor forge a line.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping

import structlog

from ingest.visible import visible


def _make_visible(_: object, __: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    return {key: visible(value) if isinstance(value, str) else value for key, value in event.items()}


def configure_logs(level: str, form: str) -> None:
    """Set up structlog for this process: `level` as in logging, `form` is "text" or "json"."""
    final: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _make_visible,
            final,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
