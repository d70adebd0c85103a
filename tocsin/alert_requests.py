"""What is asked of the process that holds the alert store, by files in a folder beside the store.

One process may open the store's file, and that is the console's: whoever wants a backup of a running store must ask it.
A file needs no port, no password and no signal that carries no words: who may write into this folder (the user who runs
the console, and root) may read the store's file anyway.

    alerts.duckdb.requests/      made by the process that holds the store
        4f2a.ask                 {"what": "backup", "folder": "/var/backups/tocsin"}
        4f2a.taken               the same, once the holder works on it
        4f2a.answer              {"said": [...]} or {"error": "..."}; who asked removes it
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final
from uuid import uuid4

import orjson

from storage.errors import StoreError

TAKE_SECONDS: Final = 15.0
"""How long a holder may take to notice a request."""

ANSWER_SECONDS: Final = 3600.0
POLL_SECONDS: Final = 0.1
_ASK, _TAKEN, _ANSWER = ".ask", ".taken", ".answer"


class What(StrEnum):
    """What can be asked."""

    BACKUP = "backup"
    EXPORT = "export"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, and the folder to write to."""

    what: What
    folder: str = ""


def requests_folder(store: Path) -> Path:
    """Where requests for this store lie."""
    return store.with_name(store.name + ".requests")


def ask(
    store: Path,
    request: Request,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    take_seconds: float = TAKE_SECONDS,
) -> list[str]:
    """Ask the process that holds the store, and wait for its answer: lines for people.

    Raises:
        StoreError: It does not answer, or could not do it.
    """
    folder, name = requests_folder(store), uuid4().hex
    asked, taken, answer = (folder / (name + suffix) for suffix in (_ASK, _TAKEN, _ANSWER))
    try:
        _write(asked, {"what": request.what.value, "folder": request.folder})
        begun = clock()
        while not answer.exists():
            if asked.exists() and clock() - begun > take_seconds:
                asked.unlink(missing_ok=True)
                raise StoreError(f"alert store {store}: the process that holds it takes no requests in {folder}")
            if clock() - begun > ANSWER_SECONDS:
                raise StoreError(f"alert store {store}: the process that holds it does not answer")
            sleep(POLL_SECONDS)
        said = orjson.loads(answer.read_bytes())
        answer.unlink(missing_ok=True)
        taken.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"alert store {store}: the process that holds it cannot be asked: {error}") from error
    if "error" in said:
        raise StoreError(str(said["error"]))
    return [str(line) for line in said["said"]]


def answer_requests(store: Path, do: Callable[[Request], list[str]]) -> int:
    """Do what is asked, oldest first, one after the other; how many requests there were.

    Raises:
        OSError: The folder cannot be made, read or written.
    """
    folder = requests_folder(store)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = sorted(folder.glob(f"*{_ASK}"), key=lambda path: path.stat().st_mtime)
    for asked in found:
        taken = asked.with_suffix(_TAKEN)
        asked.rename(taken)
        try:
            answer: dict[str, object] = {"said": do(_read(taken))}
        except StoreError as error:
            answer = {"error": str(error)}
        _write(asked.with_suffix(_ANSWER), answer)
    return len(found)


def _read(path: Path) -> Request:
    try:
        asked = orjson.loads(path.read_bytes())
        return Request(What(asked["what"]), str(asked["folder"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: not a request: {error}") from error


def _write(path: Path, said: dict[str, object]) -> None:
    """Whole or not at all, and readable to whoever runs the other side."""
    partial = path.with_name(f".{path.name}")
    partial.write_bytes(orjson.dumps(said))
    partial.chmod(0o644)
    partial.rename(path)
