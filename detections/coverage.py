"""Which rules can match what arrives here, and why the others cannot.

A rule that never fires looks the same whether nothing happened or nothing could be seen. The events that came say
which: by partial evaluation with the fields they had, and with the few values of event id, channel and provider among
them, a rule either keeps a chance or becomes false for ever. What is false for ever is blind, and the missing field or
value is named, since that is what a hospital has to audit or forward.

Chances are judged over all events of a log source together: no event need have had all the fields at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import polars as pl

from detections.atoms import Atom, Expression, atoms_of, fold
from detections.compile import CompiledRule
from detections.fields_needed import FieldGroups, missing_fields, needed_fields, without_fields
from detections.keywords import through_keywords
from detections.masks import column_masks, find_column, resolve_fields, text_column
from detections.reach import given_logsources
from ingest.envelope import DATASET, ORIGINAL, EventFrame
from ingest.logsource import LogSource

State: TypeAlias = Literal[
    "can_match",
    "source_never_seen",  # a format gives this log source, but nothing of it came
    "field_never_seen",
    "value_never_seen",  # events came, but none with the event id, channel or provider the rule asks for
    "no_format",  # no format gives this log source, and nothing of it came
]
"""What a rule can do on what was seen."""

STATES: Final[tuple[State, ...]] = (
    "can_match",
    "source_never_seen",
    "field_never_seen",
    "value_never_seen",
    "no_format",
)

TELLING_FIELDS: Final = ("EventID", "Channel", "Provider_Name")
"""Fields with few values, whose values are remembered."""

MAX_VALUES: Final = 1_000
"""Values of a telling field above which it is no longer remembered; nothing is then held against a rule for it."""

WINDOWS_DATASETS: Final = (
    *("windows.evtx", "windows.json", "windows.nxlog"),
    *("windows.winlogbeat", "windows.winlogbeat6", "windows.xml"),
)
"""The formats of Windows events, whatever forwarded them."""

DATASETS: Final[Mapping[LogSource, tuple[str, ...]]] = {
    LogSource("windows"): WINDOWS_DATASETS,
    LogSource("linux", None, "sysmon"): WINDOWS_DATASETS,
    LogSource("linux", None, "auditd"): ("linux.auditd",),
    LogSource("linux", None, "sshd"): ("linux.sshd",),
    LogSource("linux", None, "sudo"): ("linux.sudo",),
    LogSource("linux", "process_creation"): ("esxi.shell",),
    LogSource("linux"): ("linux.syslog",),
    LogSource("cisco", "firewall"): ("cisco.asa",),
    LogSource("cisco", None, "asa"): ("cisco.asa",),
    LogSource("cisco", None, "asa-command"): ("cisco.asa",),
    LogSource("cisco"): ("cisco.syslog",),
    LogSource("stormshield"): ("stormshield.sns",),
    LogSource("fortigate"): ("fortigate.syslog", "fortigate.cef"),
    LogSource("paloalto"): ("paloalto.panos", "cef"),
    LogSource("cef"): ("cef",),
    LogSource("leef"): ("leef",),
    LogSource("squid"): ("squid.access",),
    LogSource("openvpn"): ("openvpn",),
    LogSource("bind"): ("dns.bind",),
    LogSource("dnsmasq"): ("dns.dnsmasq",),
    LogSource(None, "webserver"): ("web.access",),
    LogSource("apache"): ("web.error",),
    LogSource("nginx"): ("web.error",),
    LogSource("veeam"): ("veeam.backup",),
    **{LogSource("esxi", None, name): (f"esxi.{name}",) for name in ("hostd", "shell", "vobd", "vpxa")},
    LogSource("aws", None, "cloudtrail"): ("aws.cloudtrail",),
    LogSource("atna", "audit"): ("atna", "fhir.auditevent"),
    LogSource("hl7"): ("hl7",),
    LogSource("mirth"): ("mirth",),
    LogSource("orthanc"): ("orthanc",),
}
"""Log source -> the formats (`event.dataset`) that read it and name its fields; the first line that fits counts."""


@dataclass(slots=True)
class SeenSource:
    """What came of one log source.

    Attributes:
        events: How many events.
        fields: Field in lower case -> its spelling; only fields that had a value at least once.
        datasets: Format -> events it read.
        values: Telling field in lower case -> its values, None among them; or None where they were too many.
    """

    events: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    datasets: Counter[str] = field(default_factory=Counter)
    values: dict[str, set[str | None] | None] = field(default_factory=dict)

    def add(self, events: pl.DataFrame) -> None:
        """Take note of some events."""
        if not events.height:
            return
        empty = events.null_count().row(0, named=True)
        filled = [name for name in events.columns if empty[name] < events.height and name != ORIGINAL]
        self.events += events.height
        self.fields |= {name.lower(): name for name in filled}
        for name, count in events.get_column(DATASET).value_counts().iter_rows():
            self.datasets[str(name)] += count
        names = resolve_fields(filled)
        for telling in TELLING_FIELDS:
            column = find_column(telling, names)
            seen = self.values.setdefault(telling.lower(), set())
            if seen is not None:
                seen |= {None} if column is None else set(text_column(events, column).unique().to_list())
                if len(seen) > MAX_VALUES:
                    self.values[telling.lower()] = None


class Seen:
    """What came, by log source."""

    def __init__(self) -> None:
        self.sources: dict[LogSource, SeenSource] = {}

    def add(self, frame: EventFrame) -> None:
        """Take note of a frame."""
        self.sources.setdefault(frame.logsource, SeenSource()).add(frame.events)

    @property
    def events(self) -> int:
        """All events seen."""
        return sum(source.events for source in self.sources.values())


@dataclass(frozen=True, slots=True)
class SourceCoverage:
    """A rule on one log source that was seen.

    Attributes:
        present: Of the fields the rule names, those that had a value there.
        missing: Groups of fields, of each of which at least one would have to come.
        values: Telling field -> what the rule asks of it, where no event had that.
        can_match: Whether nothing is missing.
    """

    logsource: LogSource
    events: int
    datasets: tuple[str, ...]
    present: tuple[str, ...]
    missing: FieldGroups
    values: Mapping[str, tuple[str, ...]]
    can_match: bool


@dataclass(frozen=True, slots=True)
class RuleCoverage:
    """A rule on all that was seen.

    Attributes:
        needed: Groups of fields that the rule needs whatever comes.
        sources: The log sources seen that the rule meets; those with the best chance first.
        reachable: Whether a format gives events of its log source.
        datasets: The formats that would give them; a JSON line may declare any log source of itself besides.
    """

    compiled: CompiledRule
    state: State
    needed: FieldGroups
    sources: tuple[SourceCoverage, ...]
    reachable: bool
    datasets: tuple[str, ...]


def coverage(rules: Sequence[CompiledRule], seen: Seen) -> tuple[RuleCoverage, ...]:
    """Say of each rule whether it can match what was seen, in the order of the rules."""
    given = given_logsources()
    return tuple(_rule_coverage(compiled, seen, given) for compiled in rules)


def datasets_of(source: LogSource, given: Collection[LogSource]) -> tuple[str, ...]:
    """The formats that give events which a rule of this log source meets."""
    found = dict.fromkeys(dataset for event in given if source.meets(event) for dataset in _datasets(event))
    return tuple(sorted(found))


def _datasets(event: LogSource) -> tuple[str, ...]:
    return next((datasets for reads, datasets in DATASETS.items() if reads.meets(event)), ())


def _rule_coverage(compiled: CompiledRule, seen: Seen, given: Collection[LogSource]) -> RuleCoverage:
    wanted = compiled.rule.logsource
    sources = sorted(_sources(compiled, seen), key=lambda item: (not item.can_match, len(item.missing), -item.events))
    reachable = any(wanted.meets(event) for event in given)
    if not sources:
        state: State = "source_never_seen" if reachable else "no_format"
    elif sources[0].can_match:
        state = "can_match"
    else:
        state = "field_never_seen" if sources[0].missing else "value_never_seen"
    return RuleCoverage(
        compiled=compiled,
        state=state,
        needed=needed_fields(compiled.expression),
        sources=tuple(sources),
        reachable=reachable,
        datasets=datasets_of(wanted, given),
    )


def _sources(compiled: CompiledRule, seen: Seen) -> Iterator[SourceCoverage]:
    """The rule on each log source it meets. Lines of no known format are met by what keywords alone make true."""
    for source, came in seen.sources.items():
        if source.unknown:
            expression = through_keywords(compiled.expression)
            if expression is not False:
                yield _on_source(source, came, expression)
        elif compiled.rule.logsource.meets(source):
            yield _on_source(source, came, compiled.expression)


def _on_source(source: LogSource, came: SeenSource, expression: Expression) -> SourceCoverage:
    named = dict.fromkeys(name for atom in atoms_of(expression) for name in atom.fields)
    missing = missing_fields(expression, came.fields)
    values = {} if missing else _values_missing(expression, came)
    return SourceCoverage(
        logsource=source,
        events=came.events,
        datasets=tuple(sorted(came.datasets)),
        present=tuple(name for name in named if name.lower() in came.fields),
        missing=missing,
        values=values,
        can_match=not missing and not values,
    )


def _values_missing(expression: Expression, came: SeenSource) -> dict[str, tuple[str, ...]]:
    """What an expression asks of telling fields, if no event had it; nothing if it keeps a chance."""
    absent = {name.lower() for atom in atoms_of(expression) for name in atom.fields} - came.fields.keys()
    left = without_fields(expression, absent)
    by_field = {name: known for name in TELLING_FIELDS if (known := _known(left, name, came.values.get(name.lower())))}
    together = {atom: truth for known in by_field.values() for atom, truth in known.items()}
    if fold(left, together.get) is not False:
        return {}
    alone = {name: known for name, known in by_field.items() if fold(left, known.get) is False}
    return {
        name: tuple(dict.fromkeys(atom.text or atom.value for atom, truth in known.items() if not truth))
        for name, known in (alone or by_field).items()
    }


def _known(expression: Expression, name: str, values: set[str | None] | None) -> dict[Atom, bool]:
    """Atoms on a telling field that are false on every value seen, or true on every one."""
    if not values:
        return {}
    atoms = [atom for atom in dict.fromkeys(atoms_of(expression)) if _is_on(atom, name)]
    if not atoms:
        return {}
    ordered = sorted(values, key=lambda value: (value is not None, value or ""))
    masks = column_masks(pl.Series(ordered, dtype=pl.String), atoms)
    known: dict[Atom, bool] = {}
    for atom, mask in masks.items():
        if isinstance(mask, bool):
            known[atom] = mask
        elif not mask.any():
            known[atom] = False
        elif mask.all():
            known[atom] = True
    return known


def _is_on(atom: Atom, name: str) -> bool:
    return tuple(field.lower() for field in atom.fields) == (name.lower(),)
