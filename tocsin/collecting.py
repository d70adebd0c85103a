"""Collecting in a process: a collector made from the settings, and its life on an event loop of its own."""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, replace
from typing import Final, cast

import structlog

from ingest.adapters import AdapterError, read_adapters
from ingest.bus import Bus
from ingest.collect import Collector
from ingest.hospital import Hospitals
from ingest.listeners import ListenerSettings
from ingest.patient_guard import PatientGuard
from ingest.receipts import ReceiptSettings
from ingest.registry import RegistryError, RegistryWatch
from ingest.spool import SpoolSettings
from tocsin.settings import Settings, SettingsError
from tocsin.settings_sections import ListenerSection
from tocsin.source_stage import CollectorVoice

log = cast("structlog.stdlib.BoundLogger", structlog.get_logger())

DESCRIPTORS_BESIDE: Final = 256
"""File descriptors beside connections: the bus, the spool, the lake, the console."""

Failing = Callable[[str | None], None]
"""Told why something is not as it should be; None once it is."""


def registry_of(settings: Settings, failing: Failing) -> Callable[[], Hospitals]:
    """The hospitals as they stand whenever it is called.

    Raises:
        SettingsError: The registry is broken.
    """
    try:
        watch = RegistryWatch(settings.registry_path, failing=failing)
    except RegistryError as error:
        raise SettingsError(f"registry: {error}") from error

    def current() -> Hospitals:
        watch.look(time.monotonic())
        return watch.current

    return current


def collector_of(settings: Settings, bus: Bus, failing: Failing) -> Collector:
    """The collector that the settings describe, not yet listening.

    Raises:
        SettingsError: There is no listener, or the registry or an adapter is broken.
    """
    section = settings.collect
    if not section.listeners:
        raise SettingsError("collect.listeners: there is no listener, so nothing could arrive (see deploy/config.toml)")
    _raise_descriptor_limit(settings)
    return Collector(
        bus,
        [_listener(settings, listener) for listener in section.listeners],
        batch_lines=section.batch_lines,
        batch_bytes=section.batch_bytes,
        batch_seconds=section.batch_seconds,
        queue_bytes=section.queue_bytes,
        hospital_share=section.hospital_share,
        registry=registry_of(settings, failing),
        receipts=_receipts(settings),
        spool=SpoolSettings(settings.spool_path, section.spool.max_bytes) if section.spool.max_bytes else None,
        patients=_patients(settings, failing),
    )


def _patients(settings: Settings, failing: Failing) -> PatientGuard | None:
    """Who makes pseudonyms, if a listener asks for them.

    Raises:
        SettingsError: The adapters that say where patients are cannot be read.
    """
    if not any(listener.patient_data for listener in settings.collect.listeners):
        return None
    folder = settings.registry_path
    try:
        adapters = {adapter.dataset: adapter for adapter in read_adapters(folder / "adapters")}
    except AdapterError as error:
        raise SettingsError(str(error)) from error
    return PatientGuard(folder, settings.data_dir / "vault", registry_of(settings, failing), adapters)


def _listener(settings: Settings, section: ListenerSection) -> ListenerSettings:
    """A listener's settings, with the files of the registry's own authority where none are named."""
    listener = ListenerSettings(tenant=section.hospital, **section.model_dump(exclude={"hospital"}))
    if not listener.encrypted:
        return listener
    authority = settings.registry_path / "authority"
    return replace(
        listener,
        certificate=listener.certificate or authority / "server.pem",
        key=listener.key or authority / "server.key",
        client_ca=listener.client_ca or authority / "ca.pem",
    )


def _receipts(settings: Settings) -> ReceiptSettings | None:
    section, authority = settings.collect.receipts, settings.registry_path / "authority"
    if not section.enabled:
        return None
    files = (authority / "server.pem", authority / "server.key", authority / "ca.pem")
    return ReceiptSettings(section.host, section.port, *files)


def _raise_descriptor_limit(settings: Settings) -> None:
    """Have as many file descriptors as there may be connections, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sum(listener.max_connections for listener in settings.collect.listeners) + DESCRIPTORS_BESIDE
    granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and granted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
        soft = granted
    if soft != resource.RLIM_INFINITY and soft < wanted:
        log.warning("fewer file descriptors than connections allowed: some will be refused", limit=soft, wanted=wanted)


async def collect(
    collector: Collector,
    voice: CollectorVoice,
    stop: threading.Event,
    bound: Future[dict[str, tuple[str, int]]],
    seen: Callable[[Collector], None],
) -> None:
    """Listen until it is asked to stop, and say now and then what came.

    Args:
        collector: Not yet started.
        voice: Puts the collector's counts on the bus.
        stop: Set to end it; set by itself where the collector ends first.
        bound: Gets the addresses once all listeners are open.
        seen: Shown the collector every second, from its event loop.
    """
    await collector.start()
    seen(collector)
    bound.set_result(dict(collector.addresses))
    work = asyncio.create_task(collector.run())
    stopped = asyncio.create_task(asyncio.to_thread(stop.wait))
    while not (work.done() or stopped.done()):
        await asyncio.wait({work, stopped}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        seen(collector)
        voice.say_now_and_then(collector.stats())
    stop.set()
    try:
        await collector.stop()
    finally:
        await asyncio.to_thread(voice.say, collector.stats(), final=True)
    await work
    await stopped
    for stats in collector.stats().listeners.values():
        marked = {kind: number for kind, number in stats.marked.items() if number}
        log.info("collected", **{key: value for key, value in (asdict(stats) | {"marked": marked}).items() if value})
