"""What the senders of the fault runs say, and which alerts must follow from it: both are functions of a line's number.

A sender's line `n` has the event time `beginning + n * STEP`, whatever the clock says. Every `EVERY` lines an episode
begins: a few lines of one user, of a kind by turns, each of which must or must not fire a correlation. So what must be
found after any number of lines is known without running the product at all.

An alert is compared by rule, hospital and the numbers of the lines behind it: event ids hold offsets of the bus, and
these differ from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

STEP: Final = timedelta(milliseconds=50)
EVERY: Final = 200
SPARK: Final = 199
"""The line of each `EVERY` that the plain rule finds."""

PATTERN: Final = r"tocsinfault (\d+) (s\d+) "
"""Finds number and sender in a line."""


@dataclass(frozen=True, slots=True)
class Said:
    """A line of an episode: how many lines after its beginning, and what it says."""

    after: int
    step: str
    word: str = "none"


@dataclass(frozen=True, slots=True)
class Fires:
    """An alert that an episode must give.

    Attributes:
        rule: Title of the rule.
        evidence: Which of the episode's lines, by their place in it.
        unless: The line that prevents it; it fires where that line was not sent.
    """

    rule: str
    evidence: tuple[int, ...]
    unless: int | None = None


@dataclass(frozen=True, slots=True)
class Episode:
    """Lines of one user, and what must follow from them."""

    said: tuple[Said, ...]
    fires: tuple[Fires, ...] = ()


def _steps(step: str, *after: int) -> tuple[Said, ...]:
    return tuple(Said(place, step) for place in after)


def _words(*words: str) -> tuple[Said, ...]:
    return tuple(Said(30 * place, "door", word) for place, word in enumerate(words))


_MANY = Fires("many", (0, 1, 2, 3, 4))

EPISODES: Final[tuple[Episode, ...]] = (
    Episode(_steps("guess", 0, 30, 60, 90, 120, 150), (_MANY,)),
    Episode(_steps("guess", 0, 30, 60, 90)),
    Episode(_words("a", "b", "c"), (Fires("doors", (0, 1, 2)),)),
    Episode(_words("a", "b", "A", "B")),
    Episode((Said(0, "alarm"), Said(30, "cover")), (Fires("pair", (0, 1)),)),
    Episode((Said(0, "cover"), Said(30, "alarm")), (Fires("pair", (0, 1)),)),
    Episode((Said(0, "alarm"), Said(180, "cover"))),
    Episode((Said(0, "knock"), Said(30, "enter")), (Fires("order", (0, 1)),)),
    Episode((Said(0, "enter"), Said(30, "knock"))),
    Episode((Said(0, "leave"),), (Fires("gone", (0,)),)),
    Episode((Said(0, "leave"), Said(60, "back")), (Fires("gone", (0,), unless=1),)),
    Episode(
        (*_steps("guess", 0, 30, 60, 90, 120), Said(150, "seal")),
        (_MANY, Fires("seal", (5,)), Fires("chain", (0, 1, 2, 3, 4, 5))),
    ),
    Episode(_steps("guess", *range(0, 190, 10)), (_MANY,)),  # silent after it has fired
)
"""By turns; a sender begins with the one of its own number, so that hospitals do not go in step."""


@dataclass(frozen=True, slots=True)
class Script:
    """The lines of one sender.

    Attributes:
        sender: Its number.
        beginning: Event time of its first line.
    """

    sender: int
    beginning: datetime

    @property
    def name(self) -> str:
        """As its lines have it."""
        return f"s{self.sender}"

    @property
    def hospital(self) -> str:
        """The hospital it sends for."""
        return f"hospital-{self.sender}"

    def line(self, number: int) -> bytes:
        """The text of a line."""
        when = self.beginning + number * STEP
        start, after = divmod(number, EVERY)
        said = self._said(start, after)
        if after == SPARK:
            said = Said(SPARK, "spark")
        if said is None:
            return self._text(when, number, "quiet " + "x" * (number % 97))
        return self._text(when, number, f"step={said.step} user={self.name}u{start} word={said.word} for=drill")

    def closing(self, number: int) -> bytes:
        """One of the lines at the end: an hour later in event time, and without an alert."""
        return self._text(
            self.beginning + number * STEP + timedelta(hours=1), number, "step=alarm user=end word=none for=drill"
        )

    def _text(self, when: datetime, number: int, body: str) -> bytes:
        stamp = when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return f"<13>1 {stamp} h{self.sender} tocsinfault {number} {self.name} - {body}".encode()

    def _said(self, start: int, after: int) -> Said | None:
        return _PLACES[(start + self.sender) % len(EPISODES)].get(after)

    def alerts(self, lines: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """(rule, hospital, numbers of the lines behind it) of every alert that the lines before `lines` must give."""
        for start in range(-(-lines // EVERY)):
            first = start * EVERY
            if first + SPARK < lines:
                yield "spark", self.hospital, (first + SPARK,)
            episode = EPISODES[(start + self.sender) % len(EPISODES)]
            numbers = [first + said.after for said in episode.said]
            for fires in episode.fires:
                behind = tuple(numbers[place] for place in fires.evidence)
                prevented = fires.unless is not None and numbers[fires.unless] < lines
                if behind[-1] < lines and not prevented:
                    yield fires.rule, self.hospital, behind


_PLACES: Final = tuple({said.after: said for said in episode.said} for episode in EPISODES)

_BASE_RULE: Final = """\
title: {step}
id: 00000000-0000-4000-8000-{number:012d}
name: {step}
status: test
logsource:
    product: linux
    service: syslog
detection:
    selection:
        step: {step}
    condition: selection
level: low
"""

_CORRELATION: Final = """\
title: {title}
id: 00000000-0000-4000-9000-{number:012d}
name: {title}
status: test
correlation:
    type: {kind}
    rules: [{rules}]
    group-by: [user]
    timespan: {span}s
{condition}{generate}level: high
"""

_STEPS: Final = ("spark", "guess", "door", "alarm", "cover", "knock", "enter", "leave", "back", "seal")
_GTE: Final = "    condition:\n        gte: {}\n"
_CORRELATIONS: Final = (
    ("many", "event_count", "guess", 10, _GTE.format(5), ""),
    ("doors", "value_count", "door", 10, "    condition:\n        field: word\n        gte: 3\n", ""),
    ("pair", "temporal", "alarm, cover", 5, "", ""),
    ("order", "temporal_ordered", "knock, enter", 5, "", ""),
    ("gone", "temporal", "leave, back", 5, "    condition: leave and not back\n", ""),
    ("chain", "temporal_ordered", "many, seal", 20, "", "    generate: true\n"),  # so that both give alerts as well
)


def write_rules(folder: Path) -> None:
    """The rules that the lines are made for."""
    folder.mkdir()
    for number, step in enumerate(_STEPS):
        (folder / f"{step}.yml").write_text(_BASE_RULE.format(step=step, number=number))
    for number, (title, kind, rules, span, condition, generate) in enumerate(_CORRELATIONS):
        text = _CORRELATION.format(
            title=title, number=number, kind=kind, rules=rules, span=span, condition=condition, generate=generate
        )
        (folder / f"{title}.yml").write_text(text)
