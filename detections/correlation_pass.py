"""Correlations over what is there already: a hunt, or the events of a rule's test.

Files are read in any order and their events lie in any order within them. So the matches that correlations look at are
put aside, and go to the engine at the end, sorted by time: the same engine as in live detection, without lateness.
Memory: these matches, with their events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

import polars as pl

from detections.correlation import Correlation
from detections.correlation_gaps import Gap, gaps_of
from detections.correlation_rule import CorrelationRule
from detections.correlator import Correlator, Counters

SLICE: Final = 50_000
"""Matches given to the engine at once: what it holds of each is much larger than the match."""

SOURCE: Final = "source"


class CorrelationPass:
    """One pass of correlations over all matches of a hunt.

    Args:
        rules: The correlations.
        needed: Ids of the rules whose matches they look at.
    """

    def __init__(self, rules: Sequence[CorrelationRule], needed: Sequence[str]) -> None:
        self._rules = rules
        self._correlator = Correlator(rules, lateness=timedelta())
        self._needed = sorted(needed)
        self._frames: list[pl.DataFrame] = []
        self._gaps: list[Gap] = []
        self._timeless = 0

    @property
    def counters(self) -> Counters:
        """What was not correlated, after `fired`."""
        return self._correlator.counters

    @property
    def gaps(self) -> list[Gap]:
        """Which fields were wanting where something was not correlated, worst first, after `fired`."""
        return self._gaps

    @property
    def timeless(self) -> int:
        """Matches taken whose events have no time of their own, but that of their receipt."""
        return self._timeless

    def add(self, matches: pl.DataFrame) -> None:
        """Put matches aside: `MATCH_SCHEMA`, and `source` where there is one."""
        looked_at = matches.filter(pl.col("rule_id").is_in(self._needed))
        if looked_at.height:
            self._timeless += int((looked_at["timestamp"] == looked_at["received"]).sum())
            tenant = pl.col("tenant").fill_null("")  # files say of no event whose it is
            self._frames.append(looked_at.with_columns(tenant, pl.lit(None, pl.String).alias("original")))

    def fired(self) -> Iterator[tuple[Correlation, str, str]]:
        """Each correlation that fires, with the id of its last event and that event's source ("" if not known)."""
        if not self._frames:
            return
        matches = pl.concat(self._frames)
        self._frames = []
        in_time = matches.sort(pl.min_horizontal("timestamp", "received"), maintain_order=True)
        fired: list[Correlation] = []
        for part in in_time.iter_slices(SLICE):
            fired += self._correlator.feed(part)
        fired += self._correlator.end()
        self._gaps = gaps_of(self._rules, self.counters, matches, fired)
        last: dict[str, str] = {}
        for correlation in fired:  # one that rests on others comes after them
            last[correlation.id] = last.get(correlation.event_ids[-1], correlation.event_ids[-1])
        sources: dict[str, str] = {}
        if SOURCE in matches.columns:
            shown = matches.filter(pl.col("event_id").is_in(sorted(set(last.values()))))
            sources = dict(shown.select("event_id", SOURCE).iter_rows())
        for correlation in fired:
            event_id = last[correlation.id]
            yield correlation, event_id, sources.get(event_id) or ""
