"""The processes' own log: structured, on stderr, text for people or JSON for machines.

Values may hold text that an attacker wrote, so control characters are shown as escapes and can neither move a cursor
nor forge a line. A record is one line, always: an exception becomes fields of it.

What libraries log through `logging` (the web server, the Kafka client, asyncio) goes the same way, and so does what
ends a thread or the process. The Kafka client says several lines of every attempt to connect, hundreds a minute while a
broker is away: of one kind a few are let through each minute, and the next says how many were not.

As JSON, a record is one object: `time` (RFC 3339), `level`, `event`, `process`, then what belongs to the event; of an
exception `error_type`, `error` and `traceback`.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, TextIO, cast

import structlog

from ingest.visible import visible

log = structlog.get_logger()

Event = MutableMapping[str, object]

FIRST: Final = ("time", "level", "event", "process")
"""Keys of a record that an event cannot give; they come first."""


REPEATS: Final = 5
"""Records a minute that the Kafka client may say of one kind."""


@dataclass(slots=True)
class _Process:
    """What this process is called in its log; empty until it is known."""

    name: str = ""
    form: str = "text"


_process: Final = _Process()


def _make_visible(_: object, __: str, event: Event) -> Event:
    return {key: _shown(key, value) for key, value in event.items()}


def _shown(key: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    lines = key == "traceback" and _process.form == "json"  # JSON escapes the line feeds between frames
    return visible(value, keep="\n" if lines else "")


def _explain(_: object, __: str, event: Event) -> Event:
    """An exception as fields."""
    error = event.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    elif error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["error_type"] = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        event["error"] = event.get("error") or str(error)
        event["traceback"] = "".join(traceback.format_exception(error)).rstrip("\n")
    return event


def _order(_: object, __: str, event: Event) -> Event:
    event["time"] = event.pop("timestamp", "")
    if _process.name:
        event["process"] = _process.name
    return {key: event[key] for key in FIRST if key in event} | {k: v for k, v in event.items() if k not in FIRST}


def _as_json(_: object, __: str, event: Event) -> str:
    return json.dumps(event, default=_plain)


def _plain(value: object) -> str:
    """A value for which JSON has no form; log text in it is made visible like any other."""
    return visible(str(value))


class _PresentStderr:
    """A stream that is stderr as it is now, not as it was when the log was set up."""

    def write(self, text: str) -> int:
        """See `TextIO`."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """See `TextIO`."""
        sys.stderr.flush()


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what stderr is now, not to what it was when the log was set up."""

    @property
    def stream(self) -> TextIO:
        """The stream."""
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """Not kept."""


class _Repeats(logging.Filter):
    """Lets through `REPEATS` records a minute of what the Kafka client says at one place of its code.

    What else libraries say passes: asyncio, for one, says all it has to say at one place.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}  # place -> end of its minute, records in it

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] != "kafka":
            return True
        place = (record.pathname, record.lineno)
        end, number = self._seen.get(place, (0.0, 0))
        now = time.monotonic()
        if now >= end:
            end, held_back, number = now + 60.0, number - REPEATS, 0
            if held_back > 0:
                record.msg = f"{record.getMessage()} (and {held_back} more like it before)"
                record.args = ()
        self._seen[place] = (end, number + 1)
        return number < REPEATS


def configure_logs(level: str, form: str) -> None:
    """Set up the log of this process, and that of the libraries in it.

    Args:
        level: As in logging, in lower case. Libraries are heard from warnings on, or from "info" on at "debug".
        form: "text" or "json".
    """
    _process.form = form
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _explain,
        _make_visible,
    ]
    final: list[structlog.typing.Processor] = (
        [_order, _as_json]
        if form == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)]
    )
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _PresentStderr())),
        cache_logger_on_first_use=False,
    )
    _hear_libraries(logging.INFO if level == "debug" else logging.WARNING, shared, final)


def _hear_libraries(
    level: int, shared: list[structlog.typing.Processor], final: list[structlog.typing.Processor]
) -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Stderr)]:
        root.removeHandler(handler)
    handler = _Stderr()
    handler.setLevel(level)
    if level > logging.INFO:
        handler.addFilter(_Repeats())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root.addHandler(handler)
    if root.level > level or root.level == logging.NOTSET:
        root.setLevel(level)


def name_process(name: str) -> None:
    """Say in the log what this process is, and log whatever ends a thread of it, or all of it, before that happens."""
    _process.name = name
    sys.excepthook = _process_ends
    threading.excepthook = _thread_ends
    logging.captureWarnings(capture=True)


def speaks_json() -> bool:
    """Whether this is a process whose log is read by machines: then its last words are JSON, too."""
    return bool(_process.name) and _process.form == "json"


def _process_ends(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("the process ends by an error", exc_info=(kind, error, trace))


def _thread_ends(ended: threading.ExceptHookArgs) -> None:
    name = ended.thread.name if ended.thread is not None else ""
    log.critical("a thread ends by an error", thread=name, exc_info=ended.exc_value)
