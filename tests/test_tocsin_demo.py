"""Both scenarios, played through everything on this machine, as `make demo-headless` does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.mark.timeout(120)
@pytest.mark.parametrize("scenario", ["brest-2023", "ransomware-night"])
def test_the_attack_is_found_and_no_line_is_missing(scenario: str, tmp_path: Path) -> None:
    rules = f'rules=["{REPOSITORY / "rules"}"]'
    result = subprocess.run(
        [*(sys.executable, "-m", "tocsin", "demo", "--headless"), "--scenario", scenario, "--set", rules],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert "The attack was found." in result.stdout
    assert "quarantined" not in result.stderr
    assert list((tmp_path / ".demo").glob("run-*")) == []
