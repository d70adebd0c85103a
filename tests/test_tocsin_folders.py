from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tocsin.folders import make_folder, make_private
from tocsin.settings import SettingsError


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_is_not_for_everybody(tmp_path: Path) -> None:
    make_folder(tmp_path / "data" / "lake", "lake.path")
    assert (mode(tmp_path / "data"), mode(tmp_path / "data" / "lake")) == (0o750, 0o750)
    os.umask(0o077)
    make_private(tmp_path / "closer")
    assert mode(tmp_path / "closer") == 0o700


def test_what_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    make_folder(tmp_path / "data", "data_dir")
    assert mode(tmp_path / "data") == 0o755


def test_a_place_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"data_dir: nothing can be written in .*file"):
        make_folder(tmp_path / "file", "data_dir")
    make_private(tmp_path / "file" / "below")  # whoever needs it says so later
