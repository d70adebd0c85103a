"""The metrics of what comes in: hospitals, listeners, memory and disk of a collector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

from ingest.listeners import ListenerStats
from tocsin.metrics_rows import COUNTER, GAUGE, Row, Value, one
from tocsin.settings import Settings
from tocsin.vitals import Vitals

_HOSPITAL: Final = ("hospital",)
_LISTENER: Final = ("listener",)

_BY_LISTENER: Final[tuple[tuple[str, str, Callable[[ListenerStats], float]], ...]] = (
    ("tocsin_listener_lines_total", "Lines taken.", lambda seen: seen.frames),
    ("tocsin_listener_bytes_total", "Bytes received, framing included.", lambda seen: seen.bytes),
    ("tocsin_listener_connections_accepted_total", "Connections that may send.", lambda seen: seen.accepted),
    ("tocsin_listener_empty_total", "Frames with nothing in them.", lambda seen: seen.empty),
    ("tocsin_listener_skipped_bytes_total", "Bytes of over-long lines not kept.", lambda seen: seen.skipped),
)


def intake_rows(vitals: Vitals, settings: Settings) -> Iterator[Row]:
    """The families of what comes in, as far as this process sees it."""
    yield from _hospital_rows(vitals)
    yield from _listener_rows(vitals)
    yield from _waiting_rows(vitals, settings)


def _hospital_rows(vitals: Vitals) -> Iterator[Row]:
    hospitals = vitals.tally.hospitals
    yield Row(
        "tocsin_lines_received_total",
        COUNTER,
        "Lines that came from a hospital to a listener.",
        ("hospital", "listener"),
        vitals.channels.items,
    )
    for name, text in (
        ("stored", "Lines that detect has made durable in the lake."),
        ("understood", "Of those, the ones that a format understood."),
        ("marked", "Of those, the ones kept with a remark: cut, broken, or with a time that cannot be."),
    ):
        field = "received" if name == "stored" else name
        values: list[Value] = [((seen.tenant,), getattr(seen, field)) for seen in hospitals]
        yield Row(f"tocsin_lines_{name}_total", COUNTER, text, _HOSPITAL, partial(_as_is, values))
    yield Row(
        "tocsin_hospital_last_line_timestamp_seconds",
        GAUGE,
        "When the last line of a hospital came, in seconds since 1970; 0: none since the process began.",
        _HOSPITAL,
        lambda: [((name,), 0.0 if last is None else last.timestamp()) for name, last in vitals.heard().items()],
        greatest=True,
    )


def _as_is(values: Iterable[Value]) -> Iterable[Value]:
    return values


def _listener_rows(vitals: Vitals) -> Iterator[Row]:
    if vitals.collector is None:
        return
    listeners = vitals.collector.listeners.values()

    def each(number: Callable[[ListenerStats], float]) -> Iterable[Value]:
        return [((seen.name,), number(seen)) for seen in listeners]

    for name, text, number in _BY_LISTENER:
        yield Row(name, COUNTER, text, _LISTENER, partial(each, number))
    yield Row(
        "tocsin_listener_connections",
        GAUGE,
        "Connections open.",
        _LISTENER,
        partial(each, lambda seen: seen.connections),
    )
    yield Row(
        "tocsin_listener_refused_total",
        COUNTER,
        "Connections, and datagrams of senders, that were refused.",
        ("listener", "reason"),
        lambda: [((seen.name, reason), number) for seen in listeners for reason, number in seen.refusals.items()],
    )
    yield Row(
        "tocsin_listener_connections_closed_total",
        COUNTER,
        "Connections closed from here: silent, a frame that did not end, no longer allowed.",
        ("listener", "reason"),
        lambda: [
            ((seen.name, reason), number)
            for seen in listeners
            for reason, number in (("idle", seen.idled), ("stalled", seen.stalled), ("revoked", seen.revoked))
        ],
    )
    yield Row(
        "tocsin_datagrams_dropped_total",
        COUNTER,
        "Datagrams lost: by the kernel, whose buffer was full, or here, because too much waited for the bus.",
        ("listener", "by"),
        lambda: [
            ((seen.name, by), number)
            for seen in listeners
            if seen.transport == "udp"
            for by, number in (("kernel", seen.kernel_dropped), ("queue", seen.dropped))
        ],
    )


def _waiting_rows(vitals: Vitals, settings: Settings) -> Iterator[Row]:
    stats = vitals.collector
    if stats is None:
        return
    section = settings.collect
    yield Row("tocsin_collect_batches_total", COUNTER, "Batches on the bus.", (), one(lambda: stats.batches))
    yield Row("tocsin_collect_lines_total", COUNTER, "Lines known to be on the bus.", (), one(lambda: stats.lines))
    yield Row(
        "tocsin_collect_publish_failures_total", COUNTER, "Publishes done again.", (), one(lambda: stats.failures)
    )
    yield Row("tocsin_collect_waiting_bytes", GAUGE, "Memory of lines that wait.", (), one(lambda: stats.waiting_bytes))
    yield Row("tocsin_collect_waiting_limit_bytes", GAUGE, "The most it may be.", (), one(lambda: section.queue_bytes))
    yield Row(
        "tocsin_collect_paused_hospitals",
        GAUGE,
        "Hospitals whose senders are made to wait.",
        (),
        one(lambda: len(stats.paused_hospitals)),
    )
    spool = stats.spool
    if spool is None:
        return
    oldest = spool.oldest
    yield Row("tocsin_spool_bytes", GAUGE, "The spool on disk.", (), one(lambda: spool.bytes))
    yield Row("tocsin_spool_limit_bytes", GAUGE, "The most it may be.", (), one(lambda: section.spool.max_bytes))
    yield Row("tocsin_spool_records", GAUGE, "Batches that wait in the spool.", (), one(lambda: spool.records))
    yield Row(
        "tocsin_spool_oldest_age_seconds",
        GAUGE,
        "How long the oldest batch waits in the spool; 0: none waits.",
        (),
        one(lambda: 0.0 if oldest is None else max(0.0, (vitals.now() - oldest).total_seconds())),
    )
    yield Row("tocsin_spool_replayed_total", COUNTER, "Batches that left the spool.", (), one(lambda: spool.replayed))
    yield Row("tocsin_spool_damaged_total", COUNTER, "Stretches not readable.", (), one(lambda: spool.damaged))
    yield Row(
        "tocsin_spool_full_seconds_total", COUNTER, "How long it took no more.", (), one(lambda: spool.full_seconds)
    )
