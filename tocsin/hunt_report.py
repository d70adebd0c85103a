r"""What a hunt prints: matches on stdout, all else on stderr.

For machines, one JSON object a line and nothing else. For people, a table of the rules that matched, worst first. Both
hold text that an attacker wrote. The table shows control characters as escapes; in JSON they are escaped as `\uNNNN`,
which every reader of JSON turns back into what the event holds, and which no terminal obeys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, Protocol, TextIO, TypedDict, cast

import orjson
import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from detections.correlation_gaps import Gap
from detections.correlation_set import CorrelationSet
from detections.plan import Plan
from detections.rule import RulePack
from ingest.event_source import SourceProblem
from ingest.visible import visible
from tocsin.hunt_lines import match_lines
from tocsin.languages import LEVELS, N_, counted, gettext, number

if TYPE_CHECKING:
    from tocsin.hunt import HuntTally

LEVEL_STYLES: Final = {
    "critical": "bold white on red",
    "high": "bold red",
    "medium": "yellow",
    "low": "cyan",
    "informational": "dim",
}
"""Level, worst first -> how the table shows it."""

PROBLEMS: Final[Mapping[str, str]] = {
    "skipped": N_("skipped: {problem}"),
    "damaged": N_("damaged: {problem}"),
    "unreadable": N_("unreadable: {problem}"),
}
"""Kind of a problem -> the line that names it."""

EXAMPLES: Final = 3
"""Matches of a rule that the table shows."""

VALUE_CHARACTERS: Final = 200
"""Characters of a value that the table shows."""

NAMED_SKIPS: Final = 5
"""Files left alone that are named; more are only counted."""

NAMED_GAPS: Final = 5
"""Fields that correlations miss which are named; more are only counted."""

WIDTH: Final = 160
"""Columns of the table where stdout is not a terminal."""


class HuntMatch(TypedDict):
    """A row of `MATCH_SCHEMA` with its source, as far as it is printed."""

    source: str
    rule_id: str
    rule_title: str
    level: str
    event_id: str
    timestamp: datetime
    host: str | None
    matched: str


class MatchPrinter(Protocol):
    """Where matches go."""

    def matches(self, matches: pl.DataFrame) -> None:
        """Take some matches: `MATCH_SCHEMA` and `source`."""
        ...

    def end(self) -> None:
        """There are no more."""
        ...


class MatchLines:
    """Matches as lines of JSON, as they come."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def matches(self, matches: pl.DataFrame) -> None:
        """Print some matches."""
        self._out.writelines(f"{line}\n" for line in match_lines(matches))
        self._out.flush()

    def end(self) -> None:
        """All are printed already."""


@dataclass(slots=True)
class _Seen:
    """What the table keeps of the matches of one rule, however many they are."""

    title: str
    level: str
    count: int = 0
    hosts: Counter[str] = field(default_factory=Counter)
    first: datetime | None = None
    last: datetime | None = None
    examples: list[HuntMatch] = field(default_factory=list)

    def add(self, match: HuntMatch) -> None:
        self.count += 1
        self.hosts[match["host"] or "?"] += 1
        at = match["timestamp"]
        self.first = at if self.first is None else min(self.first, at)
        self.last = at if self.last is None else max(self.last, at)
        if len(self.examples) < EXAMPLES:
            self.examples.append(match)


class MatchTable:
    """Matches as a table by rule, printed at the end."""

    def __init__(self, out: TextIO) -> None:
        self._console = Console(file=out, width=None if out.isatty() else WIDTH, highlight=False, emoji=False)
        self._seen: dict[str, _Seen] = {}

    def matches(self, matches: pl.DataFrame) -> None:
        """Count matches, and keep a few of each rule."""
        for match in cast("list[HuntMatch]", matches.select(list(HuntMatch.__annotations__)).to_dicts()):
            self._seen.setdefault(match["rule_id"], _Seen(match["rule_title"], match["level"])).add(match)

    def end(self) -> None:
        """Print the table."""
        if not self._seen:
            return
        table = Table(show_lines=True, expand=True)
        table.add_column(gettext("Level"), ratio=4, overflow="fold")
        table.add_column(gettext("Matches"), ratio=3, overflow="fold", justify="right")
        table.add_column(gettext("Rule"), ratio=16, overflow="fold")
        table.add_column(gettext("Hosts and time (UTC)"), ratio=10, overflow="fold")
        table.add_column(gettext("For example"), ratio=28, overflow="fold")
        for rule_id, seen in sorted(
            self._seen.items(), key=lambda item: (LEVELS.index(item[1].level), -item[1].count, item[1].title)
        ):
            table.add_row(
                Text(gettext(seen.level), style=LEVEL_STYLES[seen.level]),
                str(seen.count),
                Text.assemble(visible(seen.title), "\n", (rule_id, "dim")),
                Text(_hosts_and_time(seen)),
                Text("\n").join(_example(match) for match in seen.examples),
            )
        self._console.print(table)


def _hosts_and_time(seen: _Seen) -> str:
    named = ", ".join(visible(host) for host, _ in seen.hosts.most_common(EXAMPLES))
    if len(seen.hosts) > EXAMPLES:
        named = counted("{hosts} and {n} more", len(seen.hosts) - EXAMPLES, hosts=named)
    times = {at.strftime("%Y-%m-%d %H:%M:%S") for at in (seen.first, seen.last) if at is not None}
    return f"{named}\n" + "\n".join(sorted(times))


def _example(match: HuntMatch) -> Text:
    values = cast("dict[str, object]", orjson.loads(match["matched"]))
    text = Text(visible(_short_id(match["event_id"])), style="dim")
    for name, value in values.items():
        shown = visible(str(value))
        cut = shown if len(shown) <= VALUE_CHARACTERS else f"{shown[:VALUE_CHARACTERS]}…"
        text.append(f"\n{visible(name)}: ", style="bold not dim").append(cut, style="not bold not dim")
    return text


def _short_id(event_id: str) -> str:
    """An event id without the folders of its file: the member of an archive, or the name."""
    return PurePosixPath(event_id.rsplit("!", 1)[-1]).name


class HuntPrinter:
    """The one voice of a hunt.

    Args:
        err: Where everything but matches goes.
        out: Where matches go.
    """

    def __init__(self, err: TextIO, out: MatchPrinter) -> None:
        self._err = err
        self._out = out
        self._skipped: list[SourceProblem] = []

    def rules(self, pack: RulePack, plan: Plan, correlations: CorrelationSet, *, show_refused: bool) -> None:
        """Say what was loaded, and what does not run."""
        refused, unsupported = [*pack.refused, *plan.refused, *correlations.refused], pack.unsupported
        counts = (
            counted("{n} rules run", len(plan.rules)),
            *([counted("{n} correlations", len(correlations.rules))] if correlations.rules else ()),
            counted("{n} refused", len(refused)),
            counted("{n} not run here yet", len(unsupported)),
        )
        self._say(", ".join(counts))
        if show_refused:
            for refusal in [*refused, *unsupported]:
                self._say(f"  {refusal}")
        elif refused or unsupported:
            self._say("  " + gettext("(--show-refused names them)"))

    def item(self, item: pl.DataFrame | SourceProblem, tally: HuntTally) -> None:
        """Print matches, or what could not be read."""
        if isinstance(item, pl.DataFrame):
            self._out.matches(item)
            if self._err.isatty():
                self._err.write(f"\r{_progress(tally)}\x1b[K\r")
                self._err.flush()
        elif item.kind == "skipped":
            self._skipped.append(item)
        else:
            self._name(item)

    def end(self, tally: HuntTally, seconds: float, scanned: Sequence[str] = ()) -> None:
        """Print what is still to print, and the sums; `scanned` is what of the lake was read."""
        self._out.end()
        for problem in self._skipped[:NAMED_SKIPS]:
            self._name(problem)
        if len(self._skipped) > NAMED_SKIPS:
            more = len(self._skipped) - NAMED_SKIPS
            self._say(counted("skipped: {n} more files that are not event files", more))
        for line in (*summary(tally, seconds), *scanned):
            self._say(line)

    def _name(self, problem: SourceProblem) -> None:
        self._say(gettext(PROBLEMS[problem.kind]).format(problem=problem))

    def _say(self, line: str) -> None:
        erase: Callable[[str], str] = (lambda text: f"\r\x1b[K{text}") if self._err.isatty() else str
        self._err.write(f"{erase(visible(line))}\n")


def _progress(tally: HuntTally) -> str:
    events = counted("{n} events", tally.events, grouped=True)
    matches = counted("{n} matches", tally.matches, grouped=True)
    return f"{events}, {matches}"


def summary(tally: HuntTally, seconds: float) -> list[str]:
    """The sums of a hunt, in lines."""
    lines = [
        gettext("{events}: {understood}, {unknown}, {remarked}").format(
            events=counted("{n} events", tally.events, grouped=True),
            understood=counted("{n} understood", tally.events - tally.unknown - tally.lost, grouped=True),
            unknown=counted("{n} of no known format", tally.unknown, grouped=True),
            remarked=counted("{n} with a remark", tally.remarked, grouped=True),
        ),
        gettext("{matches} in {seconds} s ({rate} events/s)").format(
            matches=counted("{n} matches", tally.matches, grouped=True),
            seconds=number(seconds, 1),
            rate=number(tally.events / max(seconds, 1e-9)),
        ),
    ]
    if tally.timeless:
        lines.append(
            counted(
                "{n} events without a time of their own: they have the time of receipt", tally.timeless, grouped=True
            )
        )
    if tally.correlations:
        lines.append(counted("{n} of the matches are correlations", tally.correlations, grouped=True))
    if tally.silenced:
        lines.append(
            counted(
                "{n} matches are not shown: their rules are only material for correlations",
                tally.silenced,
                grouped=True,
            )
        )
    if tally.uncorrelated:
        lines.append(
            counted(
                "{n} times a match could not be correlated, for want of a field to group by or a number to count",
                tally.uncorrelated,
                grouped=True,
            )
        )
        lines += _gap_lines(tally.gaps)
    if tally.forgotten:
        lines.append(
            counted(
                "{n} events or groups were more than correlations keep: some correlations may be missing",
                tally.forgotten,
                grouped=True,
            )
        )
    if tally.correlated_timeless:
        lines.append(
            counted(
                "{n} matches that correlations looked at have no time of their own: those received together count as "
                "having happened at once",
                tally.correlated_timeless,
                grouped=True,
            )
        )
    damage = [_damage(kind, count) for kind, count in sorted(tally.problems.items()) if kind != "skipped"]
    if damage:
        lines.append(gettext("not all could be read: {damage} (named above)").format(damage=", ".join(damage)))
    if tally.lost:
        lines.append(
            counted(
                "{n} events were read but not parsed: this is a defect of Tocsin, please report it",
                tally.lost,
                grouped=True,
            )
        )
    if tally.unmatched:
        lines.append(
            counted(
                "{n} events could not be tried by the rules: this is a defect of Tocsin, please report it",
                tally.unmatched,
                grouped=True,
            )
        )
    return lines


def _gap_lines(gaps: Sequence[Gap]) -> list[str]:
    lines = [f"  {_gap(gap)}" for gap in gaps[:NAMED_GAPS]]
    if len(gaps) > NAMED_GAPS:
        lines.append("  " + counted("and {n} more such fields", len(gaps) - NAMED_GAPS, grouped=True))
    return lines


def _gap(gap: Gap) -> str:
    lacking, named = number(gap.lacking), {"title": gap.title, "field": gap.field}
    if gap.lacking < gap.matches and gap.number:
        return counted(
            "correlation '{title}': no number in field '{field}' in {lacking} of {n} matches",
            gap.matches,
            grouped=True,
            lacking=lacking,
            **named,
        )
    if gap.lacking < gap.matches:
        return counted(
            "correlation '{title}': no field '{field}' in {lacking} of {n} matches",
            gap.matches,
            grouped=True,
            lacking=lacking,
            **named,
        )
    if gap.number:
        return counted(
            "correlation '{title}': no number in field '{field}' in any of {n} matches",
            gap.matches,
            grouped=True,
            **named,
        )
    return counted(
        "correlation '{title}': no field '{field}' in any of {n} matches", gap.matches, grouped=True, **named
    )


def _damage(kind: str, count: int) -> str:
    return counted("{n} damaged", count) if kind == "damaged" else counted("{n} unreadable", count)
