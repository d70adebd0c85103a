"""What a decision needs before the store is asked: a note where a colleague will later ask "why"."""

from __future__ import annotations

from typing import Final

from console.languages import N_
from storage.alert import Status

NOTE_MAX: Final = 4000
NOTE_REQUIRED: Final = frozenset({Status.FALSE_POSITIVE, Status.CLOSED})
"""Statuses that take an alert out of sight: nobody looks at it again, so the reason must be written."""


def clean_note(note: str) -> str:
    """The note without surrounding blanks; forms send CRLF line ends (HTML, "form submission"), the journal has LF."""
    return note.replace("\r\n", "\n").replace("\r", "\n").strip()


def note_fault(status: Status, note: str) -> str | None:
    """Why this note will not do (a message id), or None."""
    if len(note) > NOTE_MAX:
        return N_("The note is too long: at most 4,000 characters.")
    if status in NOTE_REQUIRED and not note:
        return N_("Write a note: a colleague must be able to see why this alert was set aside.")
    return None
