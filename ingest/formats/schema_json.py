"""JSON of schemas that many products share: Zeek, ECS, OCSF. Sent here by shape, gathered until they become pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ingest.formats import ecs_json, ocsf_json, zeek_json
from ingest.formats.columns import plain_name
from ingest.formats.piece import EnvelopeNames, Piece, spellings_of
from ingest.formats.renamed import MOST, Renames, with_sigma_names
from ingest.formats.shapes import Alike, Shape, frames_of
from ingest.logsource import LogSource

NAMES: Final[dict[str, EnvelopeNames]] = {
    zeek_json.DATASET: zeek_json.NAMES,
    ecs_json.DATASET: ecs_json.NAMES,
    ocsf_json.DATASET: ocsf_json.NAMES,
}
"""Dataset -> which of its fields fill the envelope."""


class SchemaEvents:
    """Events of a shared schema by their log source."""

    __slots__ = ("_names", "_shapes")

    def __init__(self) -> None:
        self._shapes: dict[tuple[str, LogSource], list[Shape]] = {}
        self._names: dict[tuple[str, LogSource], Renames] = {}

    def take(self, same: Alike, flat: Callable[[Alike], list[Shape]]) -> bool:
        """Lay events into place if their keys are those of a schema; whether they are.

        Args:
            same: Events with the same keys.
            flat: Makes columns of events, nested objects as dotted names.
        """
        keys = same.keys
        if zeek_json.is_zeek(keys):
            for logsource, part in zeek_json.by_service(same):
                self._add(zeek_json.DATASET, logsource, {}, flat(part))
        elif ocsf_json.is_ocsf(keys):
            for logsource, names, part in ocsf_json.by_class(same):
                self._add(ocsf_json.DATASET, logsource, names, flat(part))
        elif ecs_json.is_ecs(keys):
            for logsource, names, part in ecs_json.by_dataset(same):
                self._add(ecs_json.DATASET, logsource, names, flat(part))
        else:
            return False
        return True

    def _add(self, dataset: str, logsource: LogSource, names: Renames, shapes: list[Shape]) -> None:
        self._shapes.setdefault((dataset, logsource), []).extend(shapes)
        self._names.setdefault((dataset, logsource), names)

    def pieces(self) -> list[Piece]:
        """One piece a log source and dataset, with the names that its rules use beside the schema's own."""
        return [
            Piece(logsource, dataset, rows, with_sigma_names(frame, self._names[dataset, logsource]), NAMES[dataset])
            for (dataset, logsource), shapes in self._shapes.items()
            for rows, frame in frames_of(shapes, plain_name, self._spellings(dataset, logsource), MOST)
        ]

    def _spellings(self, dataset: str, logsource: LogSource) -> dict[str, str]:
        names = self._names[dataset, logsource]
        sources = (source for sources in names.values() for source in sources)
        return spellings_of(NAMES[dataset], (*names, *sources))
