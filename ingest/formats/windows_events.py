"""Windows events, whatever carried them: from (channel, event id, provider, fields) to pieces in Sigma's names.

All events of one log source share a frame, whatever their event ids: each frame costs the engine the same, however few
its events, and an empty cell costs next to nothing (up to a limit: `ingest.formats.shapes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from ingest.formats.columns import plain_name, texts_of
from ingest.formats.piece import EnvelopeNames, Piece, spellings_of
from ingest.formats.shapes import Alike, Shape, frames_of, split_by, transposed
from ingest.formats.windows_fields import DERIVED_FROM, derive
from ingest.formats.windows_logsource import REFINED_BY, windows_logsource
from ingest.logsource import LogSource

WINDOWS_NAMES: Final = EnvelopeNames(
    # NXLog's EventTime and some exports' TimeCreated are local time without a zone; UtcTime of Sysmon is UTC without
    # one; @timestamp is the event time from Winlogbeat, but the time of receipt when logstash took NXLog's events.
    time=(
        ("TimeCreated", False),
        ("EventTime", False),
        ("UtcTime", True),
        ("@timestamp", True),
        ("EventTime", True),
        ("TimeCreated", True),
    ),
    host=("Computer", "host.name"),
    user=("TargetUserName", "User", "SubjectUserName", "SourceUser", "UserName", "AccountName", "user.name"),
    source_ip=("IpAddress", "SourceIp", "SourceAddress", "ClientAddress", "source.ip"),
    destination_ip=("DestinationIp", "DestAddress", "DestinationAddress", "destination.ip"),
)

WINDOWS_SPELLINGS: Final = spellings_of(WINDOWS_NAMES, DERIVED_FROM)

FLAT_NAMES: Final[Mapping[str, str]] = {
    "Hostname": "Computer",
    "ProviderGuid": "Provider_Guid",
    "RecordNumber": "EventRecordID",
    "RecordID": "EventRecordID",
    "SourceName": "Provider_Name",
    "message": "Message",
}
"""Names of flat JSON (NXLog, OTRF) -> the names Sigma rules use."""


@lru_cache(maxsize=65536)
def windows_name(name: str) -> str:
    """EventData's name as Sigma rules write it: without spaces (`New Value` of Defender is `NewValue`)."""
    return plain_name(name.replace(" ", ""))


@lru_cache(maxsize=65536)
def flat_name(name: str) -> str:
    """A name of flat JSON as Sigma rules write it."""
    return FLAT_NAMES.get(name) or windows_name(name)


FLAT_DATASETS: Final = frozenset({"windows.nxlog", "windows.json"})
"""Datasets whose names are those of flat JSON."""


class WindowsEvents:
    """Windows events by their log source, until they become pieces."""

    __slots__ = ("_shapes",)

    def __init__(self) -> None:
        self._shapes: dict[tuple[str, LogSource], list[Shape]] = {}

    def add(self, dataset: str, same: Alike) -> None:
        """Lay events into place; they have `Channel` and `EventID` already, if they have them at all.

        `System.Channel` and the like stand where UserData has a field of that name (`ingest.formats.windows_json`).
        """
        for logsource, part in _by_logsource(dataset, same):
            self._shapes.setdefault((dataset, logsource), []).append(transposed(part))

    def pieces(self) -> list[Piece]:
        """One piece a log source and dataset, with the fields that rules expect and the carrier did not give."""
        return [
            Piece(logsource, dataset, rows, derive(frame, logsource), WINDOWS_NAMES)
            for (dataset, logsource), shapes in self._shapes.items()
            for rows, frame in frames_of(
                shapes, flat_name if dataset in FLAT_DATASETS else windows_name, WINDOWS_SPELLINGS
            )
        ]


def _by_logsource(dataset: str, same: Alike) -> list[tuple[LogSource, Alike]]:
    """The events by log source, decided once for each combination of channel, event id, provider, refining values.

    All as text: Python holds 1, 1.0 and True equal, so with raw values one event would choose the log source of
    another.
    """
    channels, numbers, providers = _system(same, "Channel"), _system(same, "EventID"), _providers(dataset, same)
    combinations = list(zip(channels, numbers, providers, *_refining(same, numbers), strict=True))
    chosen: dict[tuple[str | None, ...], LogSource] = {}
    for combination in dict.fromkeys(combinations):
        channel, event_id, provider, *refining = combination
        number = (event_id or "").strip()
        refined = dict(zip(REFINED_BY.values(), refining, strict=False)).get(REFINED_BY.get(number, ""))
        chosen[combination] = windows_logsource(channel, number, provider, refined)
    found = list(dict.fromkeys(chosen.values()))
    if len(found) == 1:
        return [(found[0], same)]
    places = {combination: found.index(logsource) for combination, logsource in chosen.items()}
    parts = split_by(same, [places[combination] for combination in combinations])
    return [(found[place], part) for place, part in parts.items()]


def _refining(same: Alike, numbers: Sequence[str | None]) -> list[Sequence[str | None]]:
    """The values of all fields that some event id's category depends on; none if there is no such event id."""
    if not any((number or "").strip() in REFINED_BY for number in set(numbers)):
        return []
    return [texts_of(same.values(name)) for name in REFINED_BY.values()]


def _system(same: Alike, name: str) -> Sequence[str | None]:
    own = f"System.{name}"
    return texts_of(same.values(own if own in same.events[0] else name))


def _providers(dataset: str, same: Alike) -> Sequence[str | None]:
    if dataset not in FLAT_DATASETS:
        return _system(same, "Provider_Name")
    if "SourceName" not in same.keys:
        return texts_of(same.values("Provider_Name"))
    if "Provider_Name" not in same.keys:
        return texts_of(same.values("SourceName"))
    pairs = zip(same.values("Provider_Name"), same.values("SourceName"), strict=True)
    return texts_of([name or other for name, other in pairs])
