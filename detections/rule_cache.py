r"""Compiled rules on disk, so that a start need not parse and compile what it did before.

A cache file is text: a line that says what it is, a line that seals it, and JSON. Nothing in it can run. Its name is
made from everything but the rules that decides what compiling gives: the code, its libraries, the placeholders and the
pipeline, and from the paths, so that two sets of rules do not push each other out. The rules are in it by the SHA-256
of their files' content, so one that is stale in part is used for the rest.

    tocsin rules 1\n
    SHA-256 of the name and the JSON, in hexadecimal\n
    {"atoms": [...], "files": {SHA-256 of a rule file: [readings, outcomes]}}

A cache can be missing, damaged, cut short, of another version or of another user: it is then made anew, and nothing
else happens. The seal finds accidents, not forgery, for which the same rights are needed as for changing the rules: a
file that others may write, or that another user owns, is not read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import stat
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final, cast

import orjson
import structlog

import ingest.logsource
from detections.compile import Placeholders
from detections.expression_codec import AtomTable, CodecError, Plain, decode_atoms
from detections.load import uncollected
from detections.plan_load import KnownRules
from detections.reading_codec import encode_file

log = structlog.get_logger()

FORMAT: Final = b"tocsin rules 1\n"
SUFFIX: Final = ".rules"
MAX_BYTES: Final = 1 << 29
FILES_KEPT: Final = 16
"""Cache files in the folder; of more, those that were not used for the longest time are removed."""

ABANDONED_SECONDS: Final = 3600.0
"""Age from which what is half written is taken for that of a process that was killed."""

_LIBRARIES: Final = ("pysigma", "PyYAML", "polars", "orjson")
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class RuleCache:
    """A folder of compiled rules.

    Args:
        folder: Made when something is to be kept, for its owner alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, name: str) -> KnownRules:
        """What is kept under a name (`cache_name`); nothing if there is nothing that can be used."""
        path = self.folder / f"{name}{SUFFIX}"
        data = _read(path)
        if data is None:
            return KnownRules()
        try:
            with uncollected():
                return decode_rules(data, name)
        except CodecError as error:
            log.warning("compiled rules not used", file=str(path), reason=str(error))
            return KnownRules()

    def save(self, name: str, known: KnownRules) -> None:
        """Keep rules under a name, unless they are just what was loaded. What cannot be written is only a warning."""
        if not known.changed:
            return
        try:
            with uncollected():
                data = encode_rules(known, name)
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(self.folder / f"{name}{SUFFIX}", data)
            self._prune()
        except (OSError, CodecError) as error:
            log.warning("compiled rules not kept", folder=str(self.folder), reason=str(error))

    def _prune(self) -> None:
        files = sorted(self.folder.glob(f"*{SUFFIX}"), key=_age)
        abandoned = [path for path in self.folder.glob("*.part") if _age(path) < time.time() - ABANDONED_SECONDS]
        for path in (*files[:-FILES_KEPT], *abandoned):
            path.unlink(missing_ok=True)


def cache_name(paths: Sequence[Path], placeholders: Placeholders, pipeline: str) -> str:
    """The name under which the rules of some paths are kept.

    Args:
        paths: As given to `load_plan`.
        placeholders: The values that `expand` needs.
        pipeline: What tells pipelines apart: all their content.
    """
    values = {name: list(found) for name, found in placeholders.items()}
    parts = [
        code_digest(),
        pipeline,
        orjson.dumps(values, default=str).decode(),
        *(os.path.realpath(path) for path in paths),
    ]
    return hashlib.sha256("\x00".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


@cache
def code_digest() -> str:
    """SHA-256 of all that decides, beside the rules, what compiling gives: this package and the libraries it uses."""
    digest = hashlib.sha256(FORMAT)
    for text in (platform.python_version(), *map(version, _LIBRARIES)):
        digest.update(f"{text}\x00".encode())
    for path in [*sorted(Path(__file__).parent.glob("*.py")), Path(ingest.logsource.__file__)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def encode_rules(known: KnownRules, name: str) -> bytes:
    """A cache file.

    Raises:
        CodecError: A rule cannot be written.
    """
    table = AtomTable()
    files: dict[str, Plain] = {}
    for content, file in known.files.items():
        with contextlib.suppress(CodecError):  # a filter: read anew each time
            files[content] = encode_file(file, table)
    try:
        payload = orjson.dumps({"atoms": table.rows, "files": files})
    except orjson.JSONEncodeError as error:
        raise CodecError(f"a rule cannot be written: {error}") from error
    return FORMAT + _seal(name, payload) + b"\n" + payload


def decode_rules(data: bytes, name: str) -> KnownRules:
    """What a cache file holds.

    Raises:
        CodecError: It is not what `encode_rules` wrote under this name.
    """
    if not data.startswith(FORMAT):
        raise CodecError("of another version, or no compiled rules")
    seal, _, payload = data[len(FORMAT) :].partition(b"\n")
    if seal != _seal(name, payload):
        raise CodecError("damaged")
    try:
        plain: Plain = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise CodecError(f"damaged: {error}") from error
    if not isinstance(plain, dict) or not isinstance(plain.get("files"), dict):
        raise CodecError("no compiled rules")
    atoms = decode_atoms(plain.get("atoms"))
    files = cast("dict[str, Plain]", plain["files"])
    return KnownRules(encoded=files, atoms=atoms)


def _seal(name: str, payload: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + payload).hexdigest().encode()


def _read(path: Path) -> bytes | None:
    """A cache file's content, if there is one that can be trusted."""
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode) or state.st_size > MAX_BYTES:
                reason = "not an ordinary file"
            elif state.st_uid != os.geteuid() or state.st_mode & _OTHERS_WRITE:
                reason = "another user owns it or may write it"
            else:
                with contextlib.suppress(OSError):  # on what can only be read
                    os.utime(file.fileno())  # used now: see FILES_KEPT
                return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or str(error)
    log.warning("compiled rules not used", file=str(path), reason=reason)
    return None


def _write(path: Path, data: bytes) -> None:
    """Put a file in its place at once: who reads sees the old or the new one, whole."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:  # mode 0600
        part = Path(file.name)
        try:
            file.write(data)
            file.flush()
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has removed it
        return 0.0
