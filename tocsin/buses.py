"""The bus that the settings name: opened, with all topics there."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Final

import structlog

from ingest.bus import TOPIC_ALERTS, TOPIC_MATCHES, TOPIC_RAW, TOPIC_SOURCES, TOPICS, Bus, BusError
from ingest.bus_embedded import EmbeddedBus
from ingest.bus_kafka import KafkaBus, KafkaSettings
from tocsin.correlate_stage import CORRELATE_GROUP
from tocsin.crew import Crew
from tocsin.folders import make_folder
from tocsin.settings import Settings
from tocsin.settings_sections import BusSection, TopicDaysSection
from tocsin.source_stage import SOURCES_GROUP
from tocsin.stages import DETECT_GROUP, STORE_GROUP

log = structlog.get_logger()

BUS_RETRY_SECONDS: Final = 5.0

RETENTION_SECONDS: Final = 600.0
"""Seconds between two looks at what the embedded bus need not keep any longer."""

ENDING_SECONDS: Final = 8.0
"""Seconds that a process which was asked to end gives a bus that is away. Together with an answer it waits for already
(bus.request_timeout) and what else it has to close, it ends well within the 90 s that systemd gives it."""

READERS: Final = {
    TOPIC_RAW: (DETECT_GROUP,),
    TOPIC_MATCHES: (CORRELATE_GROUP,),
    TOPIC_ALERTS: (STORE_GROUP,),
    TOPIC_SOURCES: (SOURCES_GROUP,),
}
"""Topic -> the groups that must have read a record before it goes."""


def open_bus(settings: Settings) -> Bus:
    """The bus that the settings name, with all topics there.

    Raises:
        BusError: It cannot be reached or opened.
    """
    bus = bus_of(settings)
    try:
        bus.ensure_topics(TOPICS)
    except BusError:
        bus.close()
        raise
    return bus


def bus_of(settings: Settings) -> Bus:
    """The bus that the settings name. Kafka is not asked for anything yet.

    Raises:
        BusError: The file of the embedded bus cannot be opened.
        SettingsError: Nothing can be written in its folder.
    """
    section = settings.bus
    if section.kind == "kafka":
        return KafkaBus(kafka_settings(section))
    make_folder(settings.bus_path.parent, "bus.path" if section.path else "data_dir")
    return EmbeddedBus(settings.bus_path)


def open_bus_later(settings: Settings, crew: Crew) -> Bus:
    """The bus for who can do without it for now: a collector with a spool listens also while the bus is away."""
    bus = bus_of(settings)

    def ensure(stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                return bus.ensure_topics(TOPICS)
            except BusError as error:
                log.error("the bus is away: lines wait on disk", error=str(error))  # noqa: TRY400 - foreseen
                stop.wait(BUS_RETRY_SECONDS)
        return None

    crew.start(ensure)
    return bus


def start_retention(settings: Settings, bus: Bus, crew: Crew) -> None:
    """Have the embedded bus let go, now and then, of what is old and read; Kafka's brokers do it themselves."""
    if not isinstance(bus, EmbeddedBus):
        return
    days = retention_days(settings.bus.retention_days)

    def retain(stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                for done in bus.retain(days, READERS):
                    if done.held:
                        log.warning("old records stay: not read yet", **asdict(done))
            except BusError as error:
                log.error("the bus cannot let go of old records", error=str(error))  # noqa: TRY400 - foreseen
            stop.wait(RETENTION_SECONDS)

    crew.start(retain)


def kafka_settings(section: BusSection) -> KafkaSettings:
    """What the section says of Kafka."""
    return KafkaSettings(
        bootstrap_servers=section.bootstrap_servers,
        client_id=section.client_id,
        partitions=section.partitions,
        replication_factor=section.replication_factor,
        min_insync_replicas=section.min_insync_replicas,
        retention_days=retention_days(section.retention_days),
        compression=section.compression,
        security_protocol=section.security_protocol,
        sasl_mechanism=section.sasl_mechanism,
        username=section.username,
        password=section.password,
        ssl_cafile=section.ssl_cafile,
        ssl_certfile=section.ssl_certfile,
        ssl_keyfile=section.ssl_keyfile,
        request_timeout=section.request_timeout,
        delivery_timeout=section.delivery_timeout,
        session_timeout=section.session_timeout,
    )


def retention_days(section: TopicDaysSection) -> dict[str, float]:
    """Topic -> how many days the bus keeps what was put on it."""
    return {topic: float(getattr(section, topic.removeprefix("tocsin."))) for topic in TOPICS}
