"""/metrics: what a process counts, as Prometheus reads it. Names carry units, and counters end in `_total`.

Each family is a row of a table: its name, its type, its help, its labels, and what gives its values from the vital
signs. Everything is read from memory, but for a few files of which the size or a date is looked at.

Labels are bounded: stages, topics, listeners and levels by the settings and the code; hospitals to `MAX_HOSPITALS`,
those beyond which count together as "other". Nothing that a sender can choose (a host, an address, a field) is a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ingest.visible import visible
from tocsin.certificate_dates import CertificateDates
from tocsin.chores import EXPIRY_WAITS, Chore, read_notes
from tocsin.health_report import file_bytes, troubles, unready
from tocsin.metrics_intake import intake_rows
from tocsin.metrics_rows import COUNTER, GAUGE, Row, Value, one
from tocsin.settings import Settings
from tocsin.tally import Flow, Histogram, Measure
from tocsin.vitals import Vitals

METRICS_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

MAX_HOSPITALS: Final = 1000
OTHER: Final = "other"

Source = Callable[[], Iterable[Value]]


class Exposition(Collector):
    """What /metrics answers of one process.

    Args:
        settings: Where its files are, and its bounds.
        vitals: The process.
    """

    def __init__(self, settings: Settings, vitals: Vitals) -> None:
        self._settings = settings
        self._vitals = vitals
        self._hospitals: dict[str, str] = {}
        self._certificates = CertificateDates(settings)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """The exposition, in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """All families that this process has something to say of."""
        for row in self._rows():
            values = list(row.values())
            if values:
                yield _family(row, self._bounded(row, values))
        yield from _histograms(self._vitals)

    def _rows(self) -> Iterator[Row]:
        vitals, settings = self._vitals, self._settings
        yield from _process_rows(vitals)
        yield from _stage_rows(vitals)
        yield from intake_rows(vitals, settings)
        yield from _flow_rows(vitals)
        yield from _bus_rows(vitals)
        yield from _rule_rows(vitals)
        yield from _store_rows(vitals, settings)
        yield from _chore_rows(settings)
        yield Row(
            "tocsin_certificate_not_after_timestamp_seconds",
            GAUGE,
            "When a certificate of this process expires, in seconds since 1970.",
            ("certificate",),
            lambda: [((name,), moment) for name, moment in self._certificates.not_after().items()],
        )

    def _bounded(self, row: Row, values: Sequence[Value]) -> Mapping[tuple[str, ...], float]:
        """Values by label, fit to be shown; those of hospitals beyond the bound added up, or the greatest of them."""
        place = row.labels.index("hospital") if "hospital" in row.labels else None
        found: dict[tuple[str, ...], float] = {}
        for labels, value in values:
            shown = [visible(label) for label in labels]
            if place is not None:
                shown[place] = self._hospital(labels[place])
            key = tuple(shown)
            before = found.get(key)
            found[key] = value if before is None else max(before, value) if row.greatest else before + value
        return found

    def _hospital(self, name: str) -> str:
        known = self._hospitals.get(name)
        if known is None and len(self._hospitals) < MAX_HOSPITALS:
            known = self._hospitals[name] = visible(name)
        return OTHER if known is None else known


def _family(row: Row, values: Mapping[tuple[str, ...], float]) -> Metric:
    family: CounterMetricFamily | GaugeMetricFamily
    if row.kind == COUNTER:
        family = CounterMetricFamily(row.name, row.help, labels=row.labels)
    else:
        family = GaugeMetricFamily(row.name, row.help, labels=row.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


# -- the tables ------------------------------------------------------------------------------------------------


def _process_rows(vitals: Vitals) -> Iterator[Row]:
    about = (version("tocsin"), vitals.role)
    yield Row(
        "tocsin_build_info", GAUGE, "The version, and what the process does.", ("version", "role"), lambda: [(about, 1)]
    )
    yield Row("tocsin_alive", GAUGE, "1 while every stage steps; see /healthz.", (), one(lambda: not troubles(vitals)))
    yield Row(
        "tocsin_ready", GAUGE, "1 while the process does its work; see /readyz.", (), one(lambda: not unready(vitals))
    )


def _stage_rows(vitals: Vitals) -> Iterator[Row]:
    stages = vitals.stages()
    of = ("stage",)
    lags = [((stage.name,), stage.lag) for stage in stages if stage.lag is not None]
    yield Row("tocsin_stage_lag_records", GAUGE, "Records that the stage has yet to read.", of, lambda: lags)
    yield Row(
        "tocsin_stage_lag_seconds",
        GAUGE,
        "How long the oldest record waits that the stage has yet to read, as far as this process saw.",
        of,
        lambda: [((stage.name,), stage.lag_seconds) for stage in stages if stage.lag is not None],
    )
    yield Row(
        "tocsin_stage_last_step_age_seconds",
        GAUGE,
        "Seconds since the stage ended a step.",
        of,
        lambda: [((stage.name,), stage.idle) for stage in stages],
    )
    yield Row(
        "tocsin_stage_stuck",
        GAUGE,
        "1 while the stage takes too long to begin or to step; /healthz then says so.",
        of,
        lambda: [((stage.name,), stage.stuck) for stage in stages],
    )
    yield Row(
        "tocsin_stage_failing",
        GAUGE,
        "1 while the stage pauses, since the bus, the lake or the store fails it.",
        of,
        lambda: [((stage.name,), stage.failing is not None) for stage in stages],
    )
    yield Row(
        "tocsin_stage_failures_total",
        COUNTER,
        "Times that the stage had to pause.",
        of,
        lambda: [((stage.name,), stage.failures) for stage in stages],
    )
    yield Row(
        "tocsin_stage_records_total",
        COUNTER,
        "Records that the stage has read.",
        of,
        lambda: [((stage.name,), stage.records) for stage in stages],
    )


@dataclass(frozen=True, slots=True)
class _FlowRow:
    name: str
    help: str
    flow: Flow


_FLOWS: Final = (
    _FlowRow("tocsin_matches_total", "Matches of rules that detect published.", Flow.MATCHES),
    _FlowRow("tocsin_alerts_published_total", "Alerts that correlate published.", Flow.ALERTS),
    _FlowRow("tocsin_alerts_correlated_total", "Alerts of correlations among those.", Flow.CORRELATIONS),
    _FlowRow("tocsin_matches_silenced_total", "Matches that are only material for correlations.", Flow.SILENCED),
    _FlowRow("tocsin_matches_late_total", "Matches that came too late to be correlated.", Flow.LATE),
    _FlowRow(
        "tocsin_matches_uncorrelated_total",
        "Matches without the field to group by, or without the number to count.",
        Flow.UNCORRELATED,
    ),
    _FlowRow(
        "tocsin_correlation_forgotten_total",
        "Groups and events that correlations dropped to keep within their bounds.",
        Flow.FORGOTTEN,
    ),
    _FlowRow("tocsin_alerts_read_total", "Alerts that the store read, known ones included.", Flow.STORED),
    _FlowRow("tocsin_records_quarantined_total", "Bus records that could not be read.", Flow.QUARANTINED),
    _FlowRow("tocsin_lines_twice_total", "Lines left out: their batch was published twice.", Flow.TWICE),
    _FlowRow("tocsin_lines_again_total", "Lines that a sender sent again: kept, not matched again.", Flow.AGAIN),
    _FlowRow("tocsin_events_unmatched_total", "Events that rules could not be tried on, by a defect.", Flow.UNMATCHED),
    _FlowRow("tocsin_lake_flush_failures_total", "Flushes of the lake that failed.", Flow.UNFLUSHED),
)


def _flow_rows(vitals: Vitals) -> Iterator[Row]:
    tally = vitals.tally
    for row in _FLOWS:
        yield Row(row.name, COUNTER, row.help, (), one(partial(tally.passed, row.flow)))
    yield Row(
        "tocsin_alerts_total",
        COUNTER,
        "New alerts in the store, by level.",
        ("level",),
        lambda: [((level,), number) for level, number in tally.levels.items()],
    )
    yield Row("tocsin_correlation_groups", GAUGE, "Groups that correlations hold.", (), one(lambda: tally.groups))


def _bus_rows(vitals: Vitals) -> Iterator[Row]:
    if vitals.bus is None:
        return
    counts = vitals.bus.counts()
    for done, volumes in (("published", counts.published), ("read", counts.read)):
        records = [((topic,), float(volume.records)) for topic, volume in volumes.items()]
        size = [((topic,), float(volume.bytes)) for topic, volume in volumes.items()]
        yield Row(f"tocsin_bus_{done}_records_total", COUNTER, f"Records {done}.", ("topic",), partial(_as_is, records))
        yield Row(
            f"tocsin_bus_{done}_bytes_total", COUNTER, f"Bytes {done}, uncompressed.", ("topic",), partial(_as_is, size)
        )
    for name, text, number in (
        ("publish_errors", "Publishes that failed.", counts.publish_errors),
        ("commits", "Positions stored.", counts.commits),
        ("commit_errors", "Commits that failed.", counts.commit_errors),
        ("rebalances", "Times that partitions came or were taken.", counts.rebalances),
        ("partitions_assigned", "Partitions that came.", counts.assigned),
        ("partitions_revoked", "Partitions given up in good order.", counts.revoked),
        ("partitions_lost", "Partitions taken away while this member seemed dead.", counts.lost),
    ):
        yield Row(f"tocsin_bus_{name}_total", COUNTER, text, (), partial(_as_is, [((), float(number))]))


def _as_is(values: Iterable[Value]) -> Iterable[Value]:
    return values


def _rule_rows(vitals: Vitals) -> Iterator[Row]:
    watch = vitals.rules
    if watch is None or not watch.compiled:
        return
    rules = watch.current
    yield Row("tocsin_rules_running", GAUGE, "Rules that run.", (), one(lambda: len(rules.plan.rules)))
    yield Row("tocsin_rules_refused", GAUGE, "Rules that do not.", (), one(lambda: len(rules.refused)))
    yield Row(
        "tocsin_correlations_running", GAUGE, "Correlations that run.", (), one(lambda: len(rules.correlations.rules))
    )
    yield Row("tocsin_rules_load_seconds", GAUGE, "How long the last load took.", (), one(lambda: watch.seconds))


def _store_rows(vitals: Vitals, settings: Settings) -> Iterator[Row]:
    if vitals.store is not None:
        yield Row("tocsin_alert_store_bytes", GAUGE, "The alert store on disk.", (), one(lambda: file_bytes(settings)))


def _chore_rows(settings: Settings) -> Iterator[Row]:
    notes = read_notes(settings.data_dir)
    of = ("chore",)
    yield Row(
        "tocsin_chore_ok",
        GAUGE,
        "1 if the chore went well the last time.",
        of,
        lambda: [((chore,), note.ok) for chore, note in notes.items()],
    )
    yield Row(
        "tocsin_chore_last_success_timestamp_seconds",
        GAUGE,
        "When the chore last went well, in seconds since 1970; 0: never.",
        of,
        lambda: [
            ((chore,), 0.0 if note.succeeded is None else note.succeeded.timestamp()) for chore, note in notes.items()
        ],
    )
    maintained = notes.get(Chore.MAINTAIN)
    waits = [] if maintained is None else [((), maintained.figures.get(EXPIRY_WAITS, 0.0))]
    text = "1 if what is over stays in the lake, because the time is in doubt."
    yield Row("tocsin_lake_expiry_waiting", GAUGE, text, (), partial(_as_is, waits))
    for name in ("files", "bytes"):
        counted = sorted((note for note in notes.values() if name in note.figures), key=lambda note: note.at)
        found = [((), counted[-1].figures[name])] if counted else []
        text = f"{name.capitalize()} of the lake, as the last chore counted them."
        yield Row(f"tocsin_lake_{name}", GAUGE, text, (), partial(_as_is, found))


def _histograms(vitals: Vitals) -> Iterator[Metric]:
    tally = vitals.tally
    for name, text, measure in (
        ("tocsin_lake_flush_seconds", "Seconds that a flush of the lake took.", Measure.FLUSH_SECONDS),
        ("tocsin_lake_flush_rows", "Events in a flush of the lake.", Measure.FLUSH_ROWS),
    ):
        family = HistogramMetricFamily(name, text)
        _add(family, [], tally.histogram(measure))
        yield family
    family = HistogramMetricFamily(
        "tocsin_alert_latency_seconds",
        "From the last line received to the alert stored, by whether one rule or a correlation raised it.",
        labels=["kind"],
    )
    _add(family, ["rule"], tally.histogram(Measure.ALERT_SECONDS))
    _add(family, ["correlation"], tally.histogram(Measure.CORRELATION_SECONDS))
    yield family


def _add(family: HistogramMetricFamily, labels: Sequence[str], seen: Histogram) -> None:
    buckets, running = [], 0
    for bound, number in zip((*map(str, map(float, seen.bounds)), "+Inf"), seen.numbers, strict=True):
        running += number
        buckets.append((bound, float(running)))
    family.add_metric(labels, buckets, seen.sum)
