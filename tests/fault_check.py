"""What must hold when all is through: nothing lost, nothing twice, nothing invented, and the alerts of the script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

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
    by_sender: Counter[str] = Counter()
    summary = lake.query(
        f"""SELECT sender, hospital, count(*), min(number), max(number), sum(fresh), sum(copies)
            FROM ({_BY_LINE}) WHERE fresh > 0 GROUP BY ALL"""  # noqa: S608
    )
    for sender, hospital, lines, low, high, _, _ in summary.iter_rows():
        if hospital in plain:
            continue
        known = scripts.get(sender)
        if known is None or known[0].hospital != hospital or low < 0 or high >= known[1]:
            found.invented.append(f"{lines} lines of {sender!r} at {hospital!r}, {low} to {high}")
        else:
            by_sender[sender] += lines
    for sender, (script, lines) in scripts.items():
        if by_sender[sender] != lines:
            found.lost += _gaps(lake, script, lines)
    odd = lake.query(f"SELECT * FROM ({_BY_LINE}) WHERE fresh > 1 ORDER BY ALL")  # noqa: S608
    for sender, hospital, number, copies, fresh in odd.iter_rows():
        if hospital not in plain:
            found.duplicated.append(f"{sender} line {number}: {fresh} times ({copies - fresh} marked beside)")
    [(again,)] = lake.query(f"SELECT count(*) FROM ({_LINES}) WHERE again").iter_rows()  # noqa: S608
    found.counts |= {"lines wanted": sum(lines for _, lines in scripts.values()), "marked as sent again": again}


def _gaps(lake: Lake, script: Script, lines: int) -> list[str]:
    """Lines that are missing, as ranges."""
    there = lake.query(
        f"""SELECT number, sum(fresh) FROM ({_BY_LINE})
            WHERE sender = '{script.name}' GROUP BY ALL"""  # noqa: S608
    )
    fresh = {number for number, times in there.iter_rows() if times}
    marked = {number for number, times in there.iter_rows() if not times}
    return [
        f"{script.name} line {number}{' (only as sent again)' if number in marked else ''}"
        for number in range(lines)
        if number not in fresh
    ]


def check_alerts(lake: Lake, store: AlertStore, scripts: Iterable[tuple[Script, int]], found: Findings) -> None:
    """The alerts are those of the script: none missing, none more, none twice; the journal of decisions holds."""
    rows = store.database.select("SELECT id, rule_title, tenant, event_ids FROM alerts")
    behind = {str(one): list(events) for one, _, _, events in rows}  # type: ignore[call-overload]
    events = {event for ids in behind.values() for event in ids if event not in behind}
    numbers = _numbers(lake, sorted(events))
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


def _numbers(lake: Lake, events: Sequence[str]) -> dict[str, int]:
    """Event id -> number of the line."""
    found: dict[str, int] = {}
    for start in range(0, len(events), 5_000):
        ids = ", ".join(f"'{event}'" for event in events[start : start + 5_000])
        found |= dict(lake.query(f"SELECT id, number FROM ({_LINES}) WHERE id IN ({ids})").iter_rows())  # noqa: S608
    return found


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
