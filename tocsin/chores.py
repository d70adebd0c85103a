"""What is done now and then, perhaps by a process that ends at once: when it was done last, and whether it went well.

A backup that failed a week ago must be seen by someone. So each chore leaves a note, a small JSON file in
`data_dir/chores`, and every process that sees the folder tells it on /metrics and /status. Notes are replaced whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

import structlog
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

log = structlog.get_logger()

FOLDER: Final = "chores"
NOTE_BYTES: Final = 64 * 1024
EXPIRY_WAITS: Final = "expiry_waits"
"""A figure of `Chore.MAINTAIN`: 1 if what is over stays in the lake, because the time is in doubt."""


class Chore(StrEnum):
    """What is noted."""

    BACKUP = "backup"  # of the alert store
    MAINTAIN = "maintain"  # of the lake: compaction and expiry
    VERIFY = "verify"  # of the lake, against its manifest


class Note(BaseModel):
    """How a chore went.

    Attributes:
        chore: Which one.
        at: When it ended, UTC.
        ok: Whether it did what it should.
        reason: Why not; or what it waits for, though it went well.
        succeeded: When it last went well; None if never.
        figures: What it counted: "files", "bytes", ...
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    chore: Chore
    at: AwareDatetime
    ok: bool
    reason: str = ""
    succeeded: AwareDatetime | None = None
    figures: Mapping[str, float] = {}


def note_chore(
    data_dir: Path,
    chore: Chore,
    *,
    ok: bool,
    reason: str = "",
    figures: Mapping[str, float] | None = None,
    at: datetime | None = None,
) -> None:
    """Leave a note of a chore that has ended. A note that cannot be written is logged, and stops nothing.

    Args:
        data_dir: As in the settings.
        chore: Which one.
        ok: Whether it did what it should.
        reason: Why not.
        figures: What it counted.
        at: When it ended; now if not said.
    """
    at = at or datetime.now(UTC)
    before = read_notes(data_dir).get(chore)
    succeeded = at if ok else None if before is None else before.succeeded
    note = Note(chore=chore, at=at, ok=ok, reason=reason[:500], succeeded=succeeded, figures=figures or {})
    folder = data_dir / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{chore}.{os.getpid()}.part"  # of a fixed name: what a full disk leaves is written over
        part.write_text(note.model_dump_json())
        part.chmod(0o644)  # a worker under another account may tell it too
        part.replace(folder / f"{chore}.json")
    except OSError as error:
        log.warning("the note of a chore cannot be written", chore=chore.value, folder=str(folder), error=str(error))


def noting(data_dir: Path, chore: Chore, failing: Callable[[str | None], None]) -> Callable[[str | None], None]:
    """What to call at the end of a chore, with the reason if it failed: it leaves a note, and passes the reason on."""

    def tell(reason: str | None) -> None:
        note_chore(data_dir, chore, ok=reason is None, reason=reason or "")
        failing(reason)

    return tell


def read_notes(data_dir: Path) -> dict[Chore, Note]:
    """The notes that are there; what is no note (half a file of another version) is left out."""
    found: dict[Chore, Note] = {}
    for chore in Chore:
        try:
            with (data_dir / FOLDER / f"{chore}.json").open("rb") as file:
                found[chore] = Note.model_validate_json(file.read(NOTE_BYTES))
        except (OSError, ValidationError):
            continue
    return found
