"""Which rules a format can feed: a rule of a log source that nothing here gives never fires, and nothing else says so.

Formats are tables, so the log sources they give are known without reading a line. What is missing here may still come:
a JSON line may declare any log source of itself, and keyword rules meet lines that no format read. A name that is close
to a known one is most likely a slip of the pen (`proces_creation`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Final

from detections.rule import Rule
from ingest.formats import auditd, cloudtrail, linux_syslog, sshd, sudo
from ingest.formats.device_table import LOGSOURCES as DEVICE_LOGSOURCES
from ingest.formats.hospital_table import LOGSOURCES as HOSPITAL_LOGSOURCES
from ingest.formats.system_table import LOGSOURCES as SYSTEM_LOGSOURCES
from ingest.formats.windows_logsource import (
    CATEGORIES,
    CHANNEL_SERVICES,
    PROVIDER_CHANNELS,
    REFINED_CATEGORIES,
    windows_logsource,
)
from ingest.logsource import WIDER_CATEGORIES, WIDER_SERVICES, LogSource

_CLOSE: Final = 0.72
"""Likeness (`difflib`) from which one name is taken for a slip of another."""


@dataclass(frozen=True, slots=True)
class Unreached:
    """Rules of one log source, or of one product, that no format gives.

    Attributes:
        logsource: What they have in common; only the product where formats know nothing of it.
        hint: The known name that was most likely meant, or None.
    """

    logsource: LogSource
    rules: tuple[Rule, ...]
    hint: str | None

    def __str__(self) -> str:
        """One line, whatever the number of rules."""
        meant = f" (did you mean {self.hint}?)" if self.hint else ""
        first = self.rules[0]
        which = f"{first.path}: {first.title}" if len(self.rules) == 1 else f"{len(self.rules)} rules, as {first.path}"
        return f"{which}: no format gives events of {self.logsource}{meant}; only JSON that declares it does"


@lru_cache(maxsize=1)
def given_logsources() -> frozenset[LogSource]:
    """Every log source that a format gives by itself."""
    channels = {*CHANNEL_SERVICES, *PROVIDER_CHANNELS.values()}
    linux = {"syslog", *linux_syslog.PROGRAM_SERVICES.values()}
    return frozenset(
        {
            *(windows_logsource(channel, "", None, None) for channel in channels),
            *(windows_logsource(channel, event_id, None, None) for channel, event_id in CATEGORIES),
            *(windows_logsource(channel, event_id, None, value) for channel, event_id, value in REFINED_CATEGORIES),
            *(LogSource("linux", None, service) for service in linux),
            *(LogSource("cisco", None, service) for service in ("syslog", *linux_syslog.CISCO_SERVICES.values())),
            *(auditd.LOGSOURCE, sshd.LOGSOURCE, sudo.LOGSOURCE, cloudtrail.LOGSOURCE),
            *(*HOSPITAL_LOGSOURCES, *DEVICE_LOGSOURCES, *SYSTEM_LOGSOURCES),
        }
    )


def unreached(rules: Iterable[Rule]) -> tuple[Unreached, ...]:
    """Rules that no format feeds, in groups, by the name of their log source."""
    given = given_logsources()
    products = {source.product for source in given}
    reached: dict[LogSource, bool] = {}
    groups: dict[LogSource, list[Rule]] = {}
    for rule in rules:
        source = rule.logsource
        if source not in reached:
            reached[source] = any(source.meets(event) for event in given)
        if not reached[source]:
            foreign = source.product is not None and source.product not in products
            groups.setdefault(LogSource(source.product) if foreign else source, []).append(rule)
    return tuple(Unreached(source, tuple(groups[source]), _hint(source)) for source in sorted(groups, key=str))


def _hint(source: LogSource) -> str | None:
    """The known name that the first unknown part of a log source is close to."""
    given = given_logsources()
    known = (
        (source.product, {event.product for event in given}),
        (source.category, {event.category for event in given}.union(*WIDER_CATEGORIES.values())),
        (source.service, {event.service for event in given}.union(*WIDER_SERVICES.values())),
    )
    for part, names in known:
        if part is not None and part not in names:
            close = get_close_matches(part, sorted(name for name in names if name), n=1, cutoff=_CLOSE)
            return close[0] if close else None
    return None
