"""What must hold when all is through: nothing lost, nothing twice, nothing invented, and the alerts of the script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import polars as pl

from fault_lines import PATTERN, Script
from ingest.bus import TOPIC_QUARANTINE, Bus, Position
from storage.alerts import AlertStore
from storage.lake import Lake

SHOWN: Final = 20

_LINES: Final = f"""
    SELECT regexp_extract("event.original", '{PATTERN}', 2) AS sender,
           TRY_CAST(regexp_extract("event.original", '{PATTERN}', 1) AS BIGINT) AS number,
           coalesce("error.message", '') LIKE '%sent again%' AS again,
           "event.id" AS id, "organization.id" AS hospital
    FROM events
"""  # noqa: S608 - constants
_BY_LINE: Final = f"""
    SELECT sender, hospital, number, count(*) AS copies, count(*) FILTER (NOT again) AS fresh
    FROM ({_LINES}) GROUP BY ALL
"""  # noqa: S608

AlertKey = tuple[str, str, tuple[int, ...]]
"""Rule, hospital, numbers of the lines behind it."""


@dataclass
class Findings:
    """What was found; the lists are empty where all is well.

    Attributes:
        lost: Lines that were answered and are not in the lake.
        duplicated: Lines in the lake more than once that are not marked as sent again.
        invented: What is in the lake and was never sent.
        missing: Alerts that should be.
        extra: Alerts that should not be.
        twice: Alerts stored twice.
        other: All else that does not hold.
        counts: Numbers worth knowing.
    """

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def problems(self) -> dict[str, int]:
        """What does not hold, and how often."""
        kinds = ("lost", "duplicated", "invented", "missing", "extra", "twice", "other")
        return {kind: len(found) for kind in kinds if (found := getattr(self, kind))}


def check_lines(lake: Lake, scripts: Mapping[str, tuple[Script, int]], plain: frozenset[str], found: Findings) -> None:
    """Each line of the scripts is in the lake, once but for those marked.

    Args:
        lake: The lake.
        scripts: Sender -> its script, and how many lines were answered.
        plain: Hospitals of those that sent without answers: checked elsewhere.
        found: Takes what is found.
    """
    [(rows, ids)] = lake.query('SELECT count(*), count(DISTINCT "event.id") FROM events').iter_rows()
    found.counts |= {"events in the lake": rows}
    if rows != ids:
        found.duplicated.append(f"{rows - ids} events have the id of another one")
    by_line = lake.query(f"SELECT * FROM ({_BY_LINE}) WHERE hospital NOT IN ({_listed(plain)})")  # noqa: S608
    numbers: dict[str, pl.Series] = {}
    for whose, lines in by_line.filter(pl.col("fresh") > 0).group_by("sender", "hospital"):
        sender, hospital = (str(one) for one in whose)
        script, wanted = scripts.get(sender, (None, 0))
        low, high = lines["number"].min(), lines["number"].max()
        if script is None or script.hospital != hospital or not 0 <= cast("int", low) <= cast("int", high) < wanted:
            found.invented.append(f"{lines.height} lines of {sender!r} at {hospital!r}, {low!r} to {high!r}")
        if script is not None and script.hospital == hospital:
            numbers[script.name] = lines["number"]
    marked = by_line.filter(pl.col("fresh") == 0)
    for sender, (script, wanted) in scripts.items():
        gone = pl.int_range(wanted, eager=True).to_frame("number")
        gone = gone.join(numbers.get(sender, pl.Series(dtype=pl.Int64)).to_frame("number"), on="number", how="anti")
        only = set(marked.filter(pl.col("sender") == sender)["number"])
        found.lost += [
            f"{script.name} line {number}{' (only as sent again)' if number in only else ''}"
            for number in gone["number"].sort()
        ]
    for sender, _, number, copies, fresh in by_line.filter(pl.col("fresh") > 1).sort(pl.all()).iter_rows():
        found.duplicated.append(f"{sender} line {number}: {fresh} times ({copies - fresh} marked beside)")
    again = int((by_line["copies"] - by_line["fresh"]).sum())
    found.counts |= {"lines wanted": sum(lines for _, lines in scripts.values()), "marked as sent again": again}


def _listed(names: Collection[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "''"


def check_alerts(lake: Lake, store: AlertStore, scripts: Iterable[tuple[Script, int]], found: Findings) -> None:
    """The alerts are those of the script: none missing, none more, none twice; the journal of decisions holds."""
    rows = store.database.select("SELECT id, rule_title, tenant, event_ids FROM alerts")
    behind = {str(one): list(events) for one, _, _, events in rows}  # type: ignore[call-overload]
    events = {event for ids in behind.values() for event in ids if event not in behind}
    numbers = _numbers(lake, events)
    got: Counter[AlertKey] = Counter()
    for one, rule, tenant, _ in rows:
        try:
            got[str(rule), str(tenant), _evidence(str(one), behind, numbers)] += 1
        except KeyError as error:
            found.other.append(f"alert {one} of {rule} rests on {error}, which is nowhere")
    wanted = {alert for script, lines in scripts for alert in script.alerts(lines)}
    found.missing += [str(alert) for alert in sorted(wanted - got.keys())]
    found.extra += [str(alert) for alert in sorted(got.keys() - wanted)]
    found.twice += [f"{alert}: {times} times" for alert, times in sorted(got.items()) if times > 1]
    found.counts |= {"alerts": len(rows), "alerts wanted": len(wanted)}
    broken = store.verify_journal()
    if broken is not None:
        found.other.append(f"the journal of decisions is broken: {broken}")


def _evidence(event: str, behind: Mapping[str, Sequence[str]], numbers: Mapping[str, int]) -> tuple[int, ...]:
    if event not in behind:
        return (numbers[event],)
    return tuple(sorted(number for one in behind[event] for number in _evidence(one, behind, numbers)))


def _numbers(lake: Lake, events: Collection[str]) -> dict[str, int]:
    """Event id -> number of the line, in one reading of all lines that are not of the quiet ones."""
    loud = lake.query(f"SELECT id, number FROM ({_LINES} WHERE \"event.original\" NOT LIKE '%- quiet %')")  # noqa: S608
    return {event: number for event, number in loud.iter_rows() if event in events}


def check_quarantine(bus: Bus, poison: Sequence[Position], doubtful: Sequence[bytes], found: Findings) -> None:
    """In quarantine is the poison and nothing else; a record may be there more than once, as delivery is."""
    seen: Counter[tuple[str, int, int]] = Counter()
    for partition, end in bus.ends([TOPIC_QUARANTINE]).items():
        for record in bus.read(partition, 0, end):
            place = (record.headers["topic"], int(record.headers["partition"]), int(record.headers["offset"]))
            if place not in {(one.topic, one.partition, one.offset) for one in poison} and record.value in doubtful:
                continue
            seen[place] += 1
    wanted = {(one.topic, one.partition, one.offset) for one in poison}
    found.other += [f"poison {place} is not in quarantine" for place in sorted(wanted - seen.keys())]
    found.other += [f"{place} is in quarantine and was no poison" for place in sorted(seen.keys() - wanted)]
    found.counts |= {"poison": len(wanted), "records in quarantine": sum(seen.values())}


def check_plain(lake: Lake, hospital: str, sent: set[int]) -> tuple[int, int, int]:
    """(lines in the lake, lines lost, lines there more than once) of one that sent without answers."""
    query = f"SELECT number, sum(copies) FROM ({_BY_LINE}) WHERE hospital = '{hospital}' GROUP BY ALL"  # noqa: S608
    there = {int(number): int(copies) for number, copies in lake.query(query).iter_rows()}
    return len(there), len(sent - there.keys()), sum(copies > 1 for copies in there.values())


def lake_at(folder: Path) -> Lake:
    """The lake of a region."""
    return Lake(folder / "disks" / "lake")
