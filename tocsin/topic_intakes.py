"""Collecting from topics of a Kafka: the intakes that the settings name, each a stage with a connection of its own."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ingest.adapters import AdapterError, adapter_formats, read_adapters
from ingest.batching import Batch
from ingest.bus import TOPICS, Bus, BusError
from ingest.bus_kafka import KafkaBus
from ingest.bus_kafka_settings import KafkaSettings
from ingest.collector_report import CollectorReport, ListenerCount
from ingest.formats.adapter import PREFIX
from ingest.formats.table import FORMATS
from ingest.hospital_keys import KeysError, PatientDataError, read_keys
from ingest.patient_guard import PatientGuard
from ingest.publisher import unchanged
from ingest.topic_intake import TopicCounts, TopicIntake, TopicIntakeError, TopicSource
from tocsin.buses import kafka_settings
from tocsin.collecting import Failing, registry_of
from tocsin.settings import Settings, SettingsError
from tocsin.settings_sections import KafkaSourceSection
from tocsin.source_stage import REPORT_SECONDS

Told = Callable[[str, TopicCounts], None]
"""Told the name of a topic's section, and what was taken from it so far."""


def now_utc() -> datetime:
    """The clock of the machine."""
    return datetime.now(UTC)


class TopicVoice:
    """Says now and then, on `tocsin.sources`, that a topic is listened to: without that no silence is one.

    How much came is not said: what `detect` counts of the lines themselves is all there is to know, since what is not
    on the bus yet is still in the topic.
    """

    def __init__(
        self, bus: Bus, section: KafkaSourceSection, told: Told, clock: Callable[[], datetime] = now_utc
    ) -> None:
        self._bus = bus
        self._section = section
        self._told = told
        self._clock = clock
        self._run = secrets.token_hex(8)
        self._said: datetime | None = None

    def __call__(self, counts: TopicCounts) -> None:
        """A step went well."""
        self._told(self._section.name, counts)
        now = self._clock()
        if self._said is not None and timedelta(0) <= now - self._said < timedelta(seconds=REPORT_SECONDS):
            return
        self._said = now
        listener = ListenerCount(self._section.name, self._section.hospital)
        self._bus.publish([CollectorReport(self._run, now, listeners=(listener,)).message()])


def check_topics(settings: Settings) -> None:
    """Make sure that the topics to collect from make sense.

    Raises:
        SettingsError: Two have one name, a topic is Tocsin's own, a format does not exist, or a hospital has no keys
            for its patients' data.
    """
    sections = settings.collect.kafka
    names = [*(section.name for section in sections), *(listener.name for listener in settings.collect.listeners)]
    for section in sections:
        where = f"collect.kafka [{section.name}]"
        if names.count(section.name) > 1:
            raise SettingsError(f"{where}: two listeners or topics are named so")
        if section.topic in TOPICS:
            raise SettingsError(f"{where}: {section.topic} is Tocsin's own topic: its lines would go round")
        if section.format and section.format not in (known := _formats(settings)):
            raise SettingsError(f"{where}: format {section.format!r} is none of {', '.join(known)}")
        if not section.patient_data:
            continue
        if section.format.startswith(PREFIX):
            raise SettingsError(f"{where}: patient_data with an adapter as format: pin the adapter in the registry")
        try:
            read_keys(settings.registry_path, section.hospital)
        except KeysError as error:
            raise SettingsError(f"{where}: patient_data: {error}") from error


def _formats(settings: Settings) -> list[str]:
    try:
        adapters = adapter_formats(read_adapters(settings.registry_path / "adapters"))
    except AdapterError as error:
        raise SettingsError(f"registry: {error}") from error
    return sorted({*(form.name for form in FORMATS), *adapters})


def intake_of(
    settings: Settings, section: KafkaSourceSection, bus: Bus, failing: Failing, told: Told = lambda *_: None
) -> TopicIntake:
    """The intake of one topic, its group joined.

    Raises:
        BusError: The topic does not exist, or its cluster is away.
        TopicIntakeError: The topic is one of Tocsin's own.
    """
    cluster = cluster_of(settings, section)
    source = TopicSource(
        name=section.name,
        tenant=section.hospital,
        topic=section.topic,
        format=section.format,
        group=section.group,
        cluster=",".join(sorted(cluster.bootstrap_servers)),
        patient_data=section.patient_data,
    )
    origin = KafkaBus(cluster)
    try:
        return TopicIntake(
            source,
            origin,
            bus,
            _protection(settings, failing) if section.patient_data else unchanged,
            TopicVoice(bus, section, told),
        )
    except (BusError, TopicIntakeError):
        origin.close()
        raise


def cluster_of(settings: Settings, section: KafkaSourceSection) -> KafkaSettings:
    """How to reach the cluster of a topic: that of `[bus]`, unless the section names another."""
    ours = kafka_settings(settings.bus)
    if not section.bootstrap_servers:
        return ours
    return replace(
        ours,
        bootstrap_servers=section.bootstrap_servers,
        security_protocol=section.security_protocol,
        sasl_mechanism=section.sasl_mechanism,
        username=section.username,
        password=section.password,
        ssl_cafile=section.ssl_cafile,
        ssl_certfile=section.ssl_certfile,
        ssl_keyfile=section.ssl_keyfile,
    )


def _protection(settings: Settings, failing: Failing) -> Callable[[Batch], Batch]:
    """Pseudonyms, made on the intake's own thread; what cannot be protected stays where it is, and is tried again."""
    try:
        adapters = {adapter.dataset: adapter for adapter in read_adapters(settings.registry_path / "adapters")}
    except AdapterError as error:
        raise SettingsError(str(error)) from error
    hospitals = registry_of(settings, failing)
    guard = PatientGuard(settings.registry_path, settings.data_dir / "vault", hospitals, adapters)

    def protect(batch: Batch) -> Batch:
        try:
            return guard.protect(batch)
        except PatientDataError as error:
            # The stage is made anew after a pause, and reads on from what it committed
            raise BusError(f"patients' data cannot be protected, so nothing is taken: {error}") from error

    return protect
