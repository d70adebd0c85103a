"""Who protects patients in the collector: for each hospital its keys, its vault, and the adapters of its sources.

Batches of listeners marked `patient_data` pass here on their way from memory to the spool and the bus, in a worker
thread. What cannot be protected does not go on:

- no keys: a listener bound to such a hospital does not open; where certificates or addresses say whose the lines are,
  its senders are refused at the door, and keep what they have. Keys that are made later are taken up;
- the vault cannot be written, or the keys went away after the door: a `PatientDataError`, and the batch is tried again
  (`ingest.protection`); the hospital's senders are then made to wait, and no other's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import structlog

from ingest.adapter_watch import AdapterWatch
from ingest.batching import Batch
from ingest.formats.adapter import PREFIX, AdapterDefinition
from ingest.hospital import Hospital, Hospitals
from ingest.hospital_keys import KeysError, keys_path, read_keys
from ingest.listeners import ListenError, ListenerSettings
from ingest.patient_data import AdapterOf, PatientData, PatientStats
from ingest.patient_nodes import UnreadableError
from ingest.readings import source_of
from ingest.vault import VaultError, VaultFile, vault_path

_Stamp = tuple[int, int] | None

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))


@dataclass(frozen=True, slots=True)
class _Held:
    stamp: tuple[int, int]
    vault: VaultFile
    data: PatientData


class PatientGuard:
    """Pseudonyms for the batches of all hospitals. One object serves one thread at a time.

    Args:
        registry: Folder of the registry, with the keys.
        vaults: Folder of the vaults.
        hospitals: Gives the registry as it stands.
        adapters: Adapters by the names that sources are pinned to, as they are now; None to read them from the
            registry, where changes are looked for in any case.
    """

    def __init__(
        self,
        registry: Path,
        vaults: Path,
        hospitals: Callable[[], Hospitals] = Hospitals,
        adapters: Mapping[str, AdapterDefinition] | None = None,
    ) -> None:
        self._registry = registry
        self._vaults = vaults
        self._hospitals = hospitals
        self._adapters = AdapterWatch(registry / "adapters", adapters)
        self._held: dict[str, _Held] = {}
        self._stats: dict[str, PatientStats] = {}
        self._keys_seen: dict[str, tuple[_Stamp, str]] = {}  # hospital -> its file, and what is wrong with it
        self._keyless: frozenset[str] = frozenset()

    def check(self, listeners: Iterable[ListenerSettings], hospitals: Hospitals) -> None:
        """Refuse to start where a hospital's lines could not be protected, and say who will be refused.

        Raises:
            ListenError: Names the listener, the hospital, and what to do.
        """
        for listener in listeners:
            for hospital in _who_may_send(listener, hospitals):
                try:
                    self._of(hospital)
                except KeysError as error:
                    if hospital == listener.tenant:
                        raise ListenError(f"listener {listener.name!r}: patient_data: {error}") from error
                except VaultError as error:
                    _log.error("patients' data cannot be protected", hospital=hospital, error=str(error))

    def keyless(self, listeners: Iterable[ListenerSettings], hospitals: Hospitals) -> frozenset[str]:
        """Hospitals that could send patients' data and have no keys that can be read. Also called in other threads."""
        faults: dict[str, str] = {}
        for hospital in {one for listener in listeners for one in _who_may_send(listener, hospitals)}:
            if hospital not in self._held and (fault := self._fault(hospital)):
                faults[hospital] = fault
        for hospital in sorted(faults.keys() - self._keyless):
            _log.error("patients' data is refused", hospital=hospital, reason=faults[hospital])
        for hospital in sorted(self._keyless - faults.keys()):
            _log.info("patients' data is no longer refused", hospital=hospital)
        self._keyless = frozenset(faults)
        return self._keyless

    def _fault(self, hospital: str) -> str:
        """What is wrong with the keys of a hospital; empty if nothing."""
        stamp = self._stamp(hospital)
        seen = self._keys_seen.get(hospital)
        if seen is None or seen[0] != stamp or stamp is None:
            try:
                read_keys(self._registry, hospital)
                fault = ""
            except KeysError as error:
                fault = str(error)
            seen = self._keys_seen[hospital] = (stamp, fault)
        return seen[1]

    def protect(self, batch: Batch) -> Batch:
        """The batch as it may leave; itself if its listener is not marked `patient_data`.

        Raises:
            VaultError: What the pseudonyms stand for could not be written; the batch may not leave.
            KeysError: There are no keys; the same.
        """
        if not batch.patient_data:
            return batch
        data = self._of(batch.tenant)
        before = data.stats.sealed
        lines, marks = data.protect_marked(batch.lines, batch.marks, self._adapters_of(batch))
        if data.stats.sealed.bit_length() > before.bit_length():  # a flood of them must not become a flood of logs
            counts = {"sealed": data.stats.sealed, "lines": data.stats.lines}
            _log.warning("lines sealed", hospital=batch.tenant, **counts, reasons=dict(data.stats.reasons))
        return replace(batch, lines=lines, marks=marks)

    def _of(self, hospital: str) -> PatientData:
        """The keys in use, read again when the file has changed.

        Raises:
            KeysError: There are none.
            VaultError: Their vault cannot be opened.
        """
        held = self._held.get(hospital)
        stamp = self._stamp(hospital)
        if held is not None and stamp in (held.stamp, None):
            return held.data
        try:
            keys = read_keys(self._registry, hospital)
        except KeysError as error:
            if held is None:
                raise
            _log.error("the keys in use stay", hospital=hospital, reason=str(error))
            return held.data
        vault = VaultFile(vault_path(self._vaults, keys.current), keys.current)
        data = PatientData(keys.current, vault, seal_unknown=keys.seal_unknown)
        data.stats = self._stats.setdefault(hospital, data.stats)
        if held is not None:
            held.vault.close()
        self._held[hospital] = _Held(stamp or (0, 0), vault, data)
        _log.info("keys for patients' data taken up", hospital=hospital, keys=keys.current.id)
        return data

    def _stamp(self, hospital: str) -> _Stamp:
        try:
            found = keys_path(self._registry, hospital).stat()
        except (OSError, KeysError):
            return None
        return found.st_mtime_ns, found.st_ino

    def _adapters_of(self, batch: Batch) -> AdapterOf | None:
        hospital = self._hospitals().by_id.get(batch.tenant)
        if hospital is None or not any((source.format or "").startswith(PREFIX) for source in hospital.sources):
            return None
        self._adapters.look(time.monotonic())
        return _adapter_of(hospital, batch.peer, self._adapters.current)

    def stats(self) -> dict[str, PatientStats]:
        """Hospital -> what was done so far."""
        return {hospital: replace(stats, reasons=dict(stats.reasons)) for hospital, stats in dict(self._stats).items()}

    def close(self) -> None:
        """Close the vaults, and log what was done."""
        for hospital, stats in self._stats.items():
            _log.info("patients' data", hospital=hospital, **asdict(stats))
        for held in self._held.values():
            held.vault.close()
        self._held.clear()


def _adapter_of(hospital: Hospital, peer: str, adapters: Mapping[str, AdapterDefinition]) -> AdapterOf:
    def find(host: str | None) -> AdapterDefinition | None:
        source = source_of(hospital, peer, host)
        name = (source.format or "") if source is not None else ""
        if name.startswith(PREFIX) and name not in adapters:
            raise UnreadableError("the adapter of its source is not there")
        return adapters.get(name)

    return find


def _who_may_send(listener: ListenerSettings, hospitals: Hospitals) -> list[str]:
    if not listener.patient_data:
        return []
    if listener.tenant:
        return [listener.tenant]
    if listener.by_address:
        return [hospital.id for hospital in hospitals.by_id.values() if hospital.networks]
    return [
        hospital.id
        for hospital in hospitals.by_id.values()
        if any(certificate.revoked is None for certificate in hospital.certificates)
    ]
