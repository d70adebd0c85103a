"""The adapters as they stand on disk, for a process that goes on while they change.

As `ingest.registry.RegistryWatch`: no thread, its owner looks as often as it likes; a change that is broken is not
taken up, the last good definitions hold, and the log says why, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

import structlog

from ingest.adapters import AdapterError, read_adapters
from ingest.formats.adapter import AdapterDefinition

LOOK_SECONDS: Final = 1.0

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))


class AdapterWatch:
    """Gives the definitions by the names that sources are pinned to.

    Args:
        folder: Of the adapters; it need not be there.
        known: The definitions as they were read before; None to read them now.
        seconds: How often `look` looks at the files.

    Attributes:
        current: Name -> definition.

    Raises:
        AdapterError: They are broken at the start, when there are no good ones to hold on to.
    """

    def __init__(
        self, folder: Path, known: Mapping[str, AdapterDefinition] | None = None, seconds: float = LOOK_SECONDS
    ) -> None:
        self._folder = folder
        self._seconds = seconds
        self._looked: float | None = None
        self._stamps = None if known is not None else _stamps(folder)  # unknown which files `known` was read from
        self.current: Mapping[str, AdapterDefinition] = _read(folder) if known is None else known

    def look(self, now: float) -> None:
        """Read the definitions anew if a file changed.

        Args:
            now: Any clock that goes forward, in seconds.
        """
        if self._looked is not None and 0 <= now - self._looked < self._seconds:
            return
        self._looked = now
        stamps = _stamps(self._folder)
        if stamps == self._stamps or (self._stamps is None and not stamps):
            return
        first, self._stamps = self._stamps is None, stamps
        try:
            self.current = _read(self._folder)
        except AdapterError as error:
            _log.error("changed adapters are not taken up", error=str(error))
            return
        if not first:
            _log.info("adapters taken up", adapters=len(self.current))


def _read(folder: Path) -> Mapping[str, AdapterDefinition]:
    return {adapter.dataset: adapter for adapter in read_adapters(folder)}


def _stamps(folder: Path) -> frozenset[tuple[str, int, int, int]]:
    """File, time of its last change, size and inode: an editor that renames may keep the first two."""
    found = set()
    for path in folder.glob("*.toml"):
        try:
            status = path.stat()
        except FileNotFoundError:  # gone since it was listed
            continue
        found.add((path.name, status.st_mtime_ns, status.st_size, status.st_ino))
    return frozenset(found)
