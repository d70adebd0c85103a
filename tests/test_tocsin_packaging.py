"""What is installed is what was written: the wheel is complete, and its names are ours."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = {"ingest", "detections", "storage", "console", "tocsin", "sigma"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_packages_and_all_their_files(wheel: Path, require: Callable[[bool, str], None]) -> None:
    require(shutil.which("git") is not None, "git is not installed")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == PACKAGES
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *sorted(PACKAGES)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    expected = {name for name in tracked if name and (REPOSITORY / name).exists()}
    assert expected <= names
    assert {name for name in names if name.endswith((".html", ".css", ".js", ".po"))}


def test_sigma_stays_a_namespace_that_pysigma_shares(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "sigma/backends/polars/__init__.py" in names
    assert "sigma/__init__.py" not in names
    assert "sigma/backends/__init__.py" not in names


def test_the_installed_names_are_ours(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)  # which is what installing a pure wheel comes to
    question = (
        "import importlib.metadata, json, ingest, console.languages, sigma.backends.polars, sigma.rule;"
        "owners = importlib.metadata.packages_distributions();"
        "print(json.dumps([ingest.__file__, owners['ingest'], owners['console']]))"
    )
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", question],
        env={"PYTHONPATH": str(site)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    place, ingest, console = json.loads(answer.stdout)
    assert Path(place).is_relative_to(site)
    assert set(ingest) == set(console) == {"tocsin"}
