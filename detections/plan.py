"""The plan: all rules, compiled for whatever event frames come.

A plan is immutable and may be shared by threads. Which rules are true for which events an engine finds: the fast one
(`detections.fast`), or the plain one (`detections.plain`), which is the yardstick of the other and gives the same
matches. The plan makes them into what travels on `tocsin.matches`.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Literal

import polars as pl
import structlog
from sigma.processing.pipeline import ProcessingPipeline

from detections.atoms import atoms_of
from detections.bounded_regex import BoundedRegex, bounded_regex
from detections.compile import CompiledRule, Placeholders, compile_rule
from detections.evidence import event_json
from detections.fast import FastEngine
from detections.match import MATCH_SCHEMA
from detections.plain import Engine, PlainEngine, RulesBySource
from detections.rule import Refusal, Rule
from ingest.envelope import (
    DESTINATION_IP,
    EVENT_ID,
    HOST,
    ORIGINAL,
    RECEIVED,
    SOURCE_IP,
    TENANT,
    TIMESTAMP,
    USER,
    EventFrame,
)
from ingest.logsource import LogSource

_CARRIED: Final = {
    EVENT_ID: "event_id",
    TENANT: "tenant",
    TIMESTAMP: "timestamp",
    RECEIVED: "received",
    HOST: "host",
    USER: "user",
    SOURCE_IP: "source_ip",
    DESTINATION_IP: "destination_ip",
}
"""Column of the envelope -> column of a match."""

EngineName = Literal["fast", "plain"]

DEFAULT_ENGINE: Final[EngineName] = "fast"


class Plan:
    """Compiled rules, ready for event frames.

    Attributes:
        rules: The rules that run, in the order given.
        refused: Those that do not compile, with reasons.
    """

    def __init__(
        self,
        rules: Sequence[CompiledRule],
        refused: Sequence[Refusal] = (),
        engine: EngineName = DEFAULT_ENGINE,
    ) -> None:
        self.rules = tuple(rules)
        self.refused = tuple(refused)
        self._heads = pl.DataFrame(
            {
                "rule_id": [compiled.rule.id for compiled in rules],
                "rule_title": [compiled.rule.title for compiled in rules],
                "level": [compiled.rule.level for compiled in rules],
                "tags": [list(compiled.rule.tags) for compiled in rules],
            },
            schema={name: MATCH_SCHEMA[name] for name in ("rule_id", "rule_title", "level", "tags")},
        )
        met = RulesBySource(self.rules).met
        self._plain = PlainEngine(self.rules, met)
        self._engine: Engine = self._plain if engine == "plain" else FastEngine(self.rules, met)
        self._bounded = {index: _bounded(compiled) for index, compiled in enumerate(rules) if compiled.slow}
        self._told: set[int] = set()

    @classmethod
    def build(
        cls,
        rules: Sequence[Rule],
        placeholders: Placeholders | None = None,
        pipeline: ProcessingPipeline | None = None,
        engine: EngineName = DEFAULT_ENGINE,
    ) -> Plan:
        """Compile rules; what does not compile is in `refused`."""
        results = [compile_rule(rule, placeholders, pipeline) for rule in rules]
        return cls(
            [result for result in results if isinstance(result, CompiledRule)],
            [result for result in results if isinstance(result, Refusal)],
            engine,
        )

    @property
    def ungated(self) -> tuple[CompiledRule, ...]:
        """Rules that ask for nothing positive: every event of their log source may match."""
        return tuple(compiled for compiled in self.rules if compiled.ungated)

    @property
    def slow(self) -> tuple[CompiledRule, ...]:
        """Rules that run row by row."""
        return tuple(compiled for compiled in self.rules if compiled.slow)

    @property
    def given_up(self) -> dict[str, int]:
        """Rule id -> values that its look-around did not decide in time, each counted as no match; this process."""
        counts = {self.rules[index].rule.id: _given_up(bounded) for index, bounded in self._bounded.items()}
        return {rule_id: count for rule_id, count in counts.items() if count}

    def blind(self, seen: Mapping[LogSource, Collection[str]]) -> tuple[CompiledRule, ...]:
        """Rules that cannot match what has been seen: their log source or the fields they need never came.

        Args:
            seen: Log source -> columns of the frames that came from it.
        """
        alive = {index for source, columns in seen.items() for index, _ in self._plain.alive(source, columns)}
        return tuple(compiled for index, compiled in enumerate(self.rules) if index not in alive)

    def match(self, frame: EventFrame, *, events_of: Collection[str] | None = None) -> pl.DataFrame:
        """Find which rules are true for which events.

        Args:
            frame: The events.
            events_of: Ids of the rules whose matches carry their whole event and raw line; None: all. Writing these
                out is most of the work where many events match, and a hunt shows neither.

        Returns:
            `MATCH_SCHEMA`: one row a (event, rule), by the order of the events, then of the rules.
        """
        hits = list(self._engine.hits(frame))
        if self._bounded:
            self._tell_given_up()
        if not hits:
            return pl.DataFrame(schema=MATCH_SCHEMA)
        return self._matches(frame, pl.concat(hits).sort("row", "rule"), events_of)

    def _tell_given_up(self) -> None:
        """Name, once each, the rules with values that were not decided in time: an attack may be among them."""
        # Always on stderr: a hunt, which sets up no log, writes its matches on stdout
        log = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
        for index, bounded in self._bounded.items():
            if index not in self._told and (count := _given_up(bounded)):
                self._told.add(index)
                rule, reason = self.rules[index].rule, self.rules[index].slow
                log.warning("regex not decided in time", rule=rule.title, rule_id=rule.id, values=count, reason=reason)

    def _matches(self, frame: EventFrame, hits: pl.DataFrame, events_of: Collection[str] | None) -> pl.DataFrame:
        """Hits to `MATCH_SCHEMA`."""
        rows = hits.get_column("row")
        columns = {
            **self._heads[hits.get_column("rule")].to_dict(),
            **frame.events.select(list(_CARRIED))[rows].rename(_CARRIED).to_dict(),
            "logsource": pl.repeat(str(frame.logsource), len(rows), dtype=pl.String, eager=True),
            "matched": hits.get_column("matched"),
            **self._whole_events(frame, hits, events_of),
        }
        return pl.DataFrame([columns[name].alias(name) for name in MATCH_SCHEMA])

    def _whole_events(
        self, frame: EventFrame, hits: pl.DataFrame, events_of: Collection[str] | None
    ) -> dict[str, pl.Series]:
        """`event` and `original` of each hit, null where they are not to be carried."""
        rows = hits.get_column("row")
        if events_of is not None:
            carried = [index for index, compiled in enumerate(self.rules) if compiled.rule.id in events_of]
            rows = rows.set(~hits.get_column("rule").is_in(carried), None)
        distinct = rows.drop_nulls().unique().sort()  # an event that many rules match is written out once
        events = frame.events[distinct]
        places = pl.select(pl.when(rows.is_not_null()).then(distinct.search_sorted(rows))).to_series()
        return {
            "event": pl.Series(event_json(events), dtype=pl.String).gather(places),
            "original": events.get_column(ORIGINAL).gather(places),
        }


def _bounded(compiled: CompiledRule) -> tuple[BoundedRegex, ...]:
    """The regexes of a rule that run within a bound of time."""
    return tuple({bounded_regex(atom.value) for atom in atoms_of(compiled.expression) if atom.operator == "re_slow"})


def _given_up(bounded: Iterable[BoundedRegex]) -> int:
    return sum(item.given_up for item in bounded)
