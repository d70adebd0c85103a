"""What is known of the sources, kept up to date while the process runs.

The registry may change at any time (`tocsin hospital`, an editor); what is parsed from then on is read by it: hospitals
with their time zones and pinned formats, and the adapters by which a hospital describes its own logs. A change that is
broken is not taken up, and said; what was good before holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import structlog

from ingest.adapters import AdapterError, adapter_formats, read_adapters
from ingest.readings import Readings
from ingest.registry import RegistryWatch

LOOK_SECONDS: Final = 1.0

log = cast("structlog.stdlib.BoundLogger", structlog.get_logger())

Stamps = frozenset[tuple[str, int, int]]
"""File, time of its last change (ns), size."""


class KnownSources:
    """Gives the readings of the sources as the registry has them now.

    Args:
        folder: The registry; it need not be there.
        failing: Told why a change of the registry is not taken up; None once it is mended.
        clock: Seconds that go forward.

    Raises:
        RegistryError: The registry is broken at the start.
        AdapterError: An adapter is.
    """

    def __init__(
        self,
        folder: Path,
        failing: Callable[[str | None], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch = RegistryWatch(folder, LOOK_SECONDS, failing)
        self._failing = failing
        self._clock = clock
        self._adapters = folder / "adapters"
        self._stamps = _stamps(self._adapters)
        self._looked = clock()
        self._readings = Readings(self._watch.current, adapter_formats(read_adapters(self._adapters)))

    def __call__(self) -> Readings:
        """The readings for the next batch."""
        now = self._clock()
        if self._watch.look(now):
            self._readings = Readings(self._watch.current, self._readings.formats)
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._look_at_adapters()
        return self._readings

    def _look_at_adapters(self) -> None:
        stamps = _stamps(self._adapters)
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            formats = adapter_formats(read_adapters(self._adapters))
        except AdapterError as error:
            log.warning("changed adapters are not taken up", error=str(error))
            self._failing(str(error))
            return
        self._readings = Readings(self._watch.current, formats)
        log.info("adapters taken up", adapters=len(formats))
        self._failing(None)


def _stamps(folder: Path) -> Stamps:
    try:
        files = [(path.name, path.stat()) for path in sorted(folder.glob("*.toml"))]
    except OSError:  # went away between two looks: the next one sees what is there
        return frozenset()
    return frozenset((name, status.st_mtime_ns, status.st_size) for name, status in files)
