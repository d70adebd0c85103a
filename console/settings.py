"""Settings of the console, checked when they are made, so that a wrong one stops the start and not a request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from console.errors import SettingsError

LANGUAGES: Final = ("fr", "en")
"""Languages of the pages; each has its catalog in `console/locales`."""

PAGE_SIZE_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """How the console looks and whom it answers.

    Attributes:
        title: Name of the centre, shown beside the product's.
        allowed_hosts: Host names the console answers to (`Host` header); `*.example.org` covers subdomains. A page
            from elsewhere cannot reach the console by pointing its own name at this address (DNS rebinding).
        default_language: Language where neither the analyst nor the browser asks for one: `fr` or `en`.
        timezone: IANA name of the zone in which pages show times; the API always speaks UTC.
        page_size: Alerts on one page of the queue.
        refresh: How often an open queue asks whether anything changed.
        silent_after: A hospital that sent nothing for this long is marked as silent.
        default_analyst: Name written into the journal for who has given none.
    """

    title: str = "SOC"
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    default_language: str = "fr"
    timezone: str = "Europe/Paris"
    page_size: int = 50
    refresh: timedelta = timedelta(milliseconds=2500)
    silent_after: timedelta = timedelta(minutes=15)
    default_analyst: str = "analyst"

    def __post_init__(self) -> None:
        if self.default_language not in LANGUAGES:
            raise SettingsError(f"default_language is {self.default_language!r}; it must be one of {list(LANGUAGES)}")
        if not 1 <= self.page_size <= PAGE_SIZE_MAX:
            raise SettingsError(f"page_size is {self.page_size}; it must lie between 1 and {PAGE_SIZE_MAX}")
        if self.refresh < timedelta(milliseconds=250):
            raise SettingsError(f"refresh is {self.refresh}; it must be at least a quarter of a second")
        for pattern in self.allowed_hosts:
            if not pattern or ("*" in pattern and pattern != "*" and not pattern.startswith("*.")):
                raise SettingsError(f"allowed_hosts has {pattern!r}; give a host name, *.domain or *")
        self.zone()

    def zone(self) -> ZoneInfo:
        """The time zone of the pages.

        Raises:
            SettingsError: The name is unknown on this machine.
        """
        try:
            return ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise SettingsError(f"timezone is {self.timezone!r}, which this machine does not know: {error}") from error
