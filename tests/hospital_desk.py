"""A desk where hospitals are enrolled: a data folder, and the command line as people use it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from ingest.hospital import Hospital
from ingest.registry import read_registry
from tocsin.cli import tocsin
from tocsin.foreseen import FORESEEN
from tocsin.languages import speak

Require = Callable[[bool, str], None]
SYSLOG_NG = Path(os.environ.get("TOCSIN_CACHE", str(Path.home() / ".cache" / "tocsin"))) / "syslog-ng" / "syslog-ng"
REPOSITORY = Path(__file__).resolve().parent.parent


class Desk:
    """Where a hospital is enrolled: a data folder and the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = folder / "data" / "registry"
        self.flags: list[str] = []

    def run(self, *arguments: str, fails: bool = False) -> str:
        """What a command says, on both streams."""
        group = () if arguments[0] != "hospital" or arguments[1] != "source" else (arguments[2],)
        words = 2 + len(group)
        setting = [f"--set=data_dir={self.folder / 'data'}", *(f"--set={flag}" for flag in self.flags)]
        result = CliRunner().invoke(tocsin, [*arguments[:words], *setting, *arguments[words:]])
        if isinstance(result.exception, FORESEEN):
            assert fails, result.exception
            return f"tocsin: {result.exception}"
        assert (result.exit_code != 0) is fails, result.output
        if result.exception is not None:
            assert isinstance(result.exception, SystemExit), repr(result.exception)
        return result.output

    def hospital(self, name: str) -> Hospital:
        return read_registry(self.registry).by_id[name]

    def enrol(self) -> Desk:
        """With an authority and a hospital."""
        self.run("authority", "init", "--host", "localhost", "--host", "127.0.0.1")
        self.run("hospital", "add", "CH de Kermor")
        return self


def make_desk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk that knows of no settings but its own, and speaks English."""
    monkeypatch.chdir(folder)
    for name in list(os.environ):
        if name.startswith("TOCSIN_") and name not in ("TOCSIN_REQUIRE", "TOCSIN_CACHE"):
            monkeypatch.delenv(name)
    speak("en")
    return Desk(folder)


def unpack(desk: Desk, *arguments: str) -> Path:
    """A bundle for the hospital, unpacked; the folder of its files."""
    desk.run("hospital", "bundle", "ch-de-kermor", "--to", "b.zip", *arguments)
    with zipfile.ZipFile("b.zip") as archive:
        archive.extractall(desk.folder / "b")
    (folder,) = (desk.folder / "b").iterdir()
    (folder / "test.sh").chmod(0o755)  # zipfile leaves modes behind; unzip would not
    return folder
