"""Scenarios as values: a hospital that does not exist, the stages of an attack on it, and ordinary life around them.

Values only: `exercise_read` makes them from a file, `exercise_lines` makes lines of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

Value: TypeAlias = str | tuple[str, ...] | tuple[Mapping[str, str], ...]
"""What a placeholder stands for: one text, one of several, or one of several records (`${people.login}`)."""


class ExerciseError(Exception):
    """Root of what exercises raise."""


class ScenarioError(ExerciseError):
    """A scenario file cannot be played; the message names file, key and cause."""

    def __init__(self, path: Path, key: str, reason: str) -> None:
        super().__init__(f"{path}: {key}: {reason}" if key else f"{path}: {reason}")
        self.path = path
        self.key = key
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Text:
    """A text for people, in both languages of the console."""

    fr: str
    en: str

    def __str__(self) -> str:
        """The English text, for terminals."""
        return self.en


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of the hospital. `name` is its short name, `address` its address inside."""

    key: str
    name: str
    address: str


@dataclass(frozen=True, slots=True)
class WindowsBody:
    """A Windows event as NXLog sends it: `kind` is `Channel/EventID` in `exercise_windows.KINDS`."""

    kind: str
    fields: Mapping[str, str]
    message: str | None = None


@dataclass(frozen=True, slots=True)
class SyslogBody:
    """A line of a Linux host: syslog facility and severity are numbers of RFC 5424, section 6.2.1."""

    program: str
    text: str
    facility: int = 10
    severity: int = 6


@dataclass(frozen=True, slots=True)
class RawBody:
    """A whole line as it stands, made wrong on purpose: `flaw` says how."""

    text: str
    flaw: str
    encoding: str = "utf-8"


Body: TypeAlias = WindowsBody | SyslogBody | RawBody


@dataclass(frozen=True, slots=True)
class Event:
    """What happens on one of `hosts`: `after` seconds into its stage or the scenario, `times` times, each `every` s."""

    key: str
    hosts: tuple[str, ...]
    body: Body
    after: float = 0.0
    times: int = 1
    every: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of the attack.

    Attributes:
        offset: Seconds from the start of the scenario.
        required: Whether a run that misses this stage has failed.
        expects: Ids of the rules that should fire on it; a rule is expected by one stage only, so that its alert says
            which stage was seen.
    """

    id: str
    name: Text
    offset: float
    required: bool
    expects: tuple[str, ...]
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Noise:
    """Something ordinary that happens again and again, on average every `every` seconds on one of the event's hosts."""

    name: str
    every: float
    event: Event


@dataclass(frozen=True, slots=True)
class Scenario:
    """An attack on a hospital that does not exist, amid its ordinary life.

    Attributes:
        id: The file's name without suffix: `tocsin exercise run ID`.
        source: Where the course of events is documented, or that it is generic.
        duration: How long ordinary life lasts; every stage lies within.
    """

    id: str
    path: Path
    title: Text
    summary: Text
    source: str
    hospital: str
    domain: str
    netbios: str
    duration: timedelta
    hosts: Mapping[str, Host]
    values: Mapping[str, Value]
    stages: tuple[Stage, ...]
    noise: tuple[Noise, ...]
    flawed: tuple[Event, ...]
