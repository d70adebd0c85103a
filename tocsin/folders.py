"""Folders that the settings name: made when they are not there, and tried before anything counts on them.

What is made here is for its owner and group (0750, less what the umask takes): it holds the logs of hospitals. A folder
that is there keeps the mode that somebody gave it.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from tocsin.settings import SettingsError

MODE: Final = 0o750


def make_folder(folder: Path, key: str) -> None:
    """Make a folder, or say which setting names a place where nothing can be written.

    Raises:
        SettingsError: Nothing can be written there.
    """
    try:
        _make(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(f"{key}: nothing can be written in {folder}: {error.strerror}") from error


def make_private(folder: Path) -> None:
    """Make a folder, where that is possible, before others make it with the mode of their own."""
    with suppress(OSError):
        _make(folder)


def _make(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):  # `parents=True` would give those above the default mode
        path.mkdir(mode=MODE, exist_ok=True)
