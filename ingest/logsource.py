"""Sigma log sources: what an event is, and which rules may meet it.

Sigma names a source by (product, category, service). An event frame carries exactly one such triple, the most specific
one its format knows. A rule names only what it cares about: it meets a frame when each part it names is equal to,
or wider than, the frame's. "Wider" is needed because SigmaHQ has umbrella names: `registry_event` stands for every
registry category, and `auth` for what Linux writes to auth.log, whichever daemon wrote it.
Source: Sigma specification, "Log Source"; SigmaHQ `documentation/logsource-guides`.
"""

from __future__ import annotations

from dataclasses import dataclass

WIDER_CATEGORIES: dict[str, tuple[str, ...]] = {
    "registry_add": ("registry_event",),
    "registry_delete": ("registry_event",),
    "registry_rename": ("registry_event",),
    "registry_set": ("registry_event",),
}
"""Category of an event -> the umbrella categories that rules use for it."""

WIDER_SERVICES: dict[str, tuple[str, ...]] = {
    "sshd": ("auth",),
    "sudo": ("auth",),
    "asa-command": ("asa", "aaa"),  # commands on a Cisco ASA
}
"""Service of an event -> the umbrella services that rules use for it."""


@dataclass(frozen=True, slots=True)
class LogSource:
    """A Sigma log source; `None` means "not known" on an event and "any" in a rule."""

    product: str | None = None
    category: str | None = None
    service: str | None = None

    def meets(self, event: LogSource) -> bool:
        """Whether a rule of this log source may see events of log source `event`."""
        return (
            self.product in (None, event.product)
            and (
                self.category in (None, event.category)
                or self.category in WIDER_CATEGORIES.get(event.category or "", ())
            )
            and (self.service in (None, event.service) or self.service in WIDER_SERVICES.get(event.service or "", ()))
        )

    @property
    def unknown(self) -> bool:
        """Whether nothing is known of the source: a line that no format understood."""
        return self.product is None and self.category is None and self.service is None

    def __str__(self) -> str:
        """`product/category/service`, with `_` for a part that is not known."""
        return "/".join(part or "_" for part in (self.product, self.category, self.service))


UNKNOWN = LogSource()
"""The log source of lines that no format understood."""
