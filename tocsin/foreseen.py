"""What may go wrong for a reason that a person can mend; everything else is a defect of Tocsin."""

from __future__ import annotations

from typing import Final

from console.errors import ConsoleError
from detections.rule import RuleError
from ingest.bus import BusError
from ingest.hospital_file import RegistryError
from ingest.listeners import CollectError
from storage.errors import StorageError
from tocsin.exercise_scenario import ExerciseError
from tocsin.settings import SettingsError

FORESEEN: Final = (
    BusError,
    CollectError,
    ConsoleError,
    ExerciseError,
    RegistryError,
    RuleError,
    SettingsError,
    StorageError,
)
"""The error roots of the stages: each message is one line that says what, where and why."""
