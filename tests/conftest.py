"""What tests share: real peers and real data, and the rule for when they are missing.

On a user's machine a test without its peer skips and says why. Under TOCSIN_REQUIRE=all (continuous integration) it
fails: a peer that silently went missing would otherwise turn the suite into a suite of nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

Require = Callable[[bool, str], None]


def require_peer(condition: bool, reason: str) -> None:
    """Go on if `condition`; else skip with the reason, or fail with it where everything is required."""
    if condition:
        return
    if os.environ.get("TOCSIN_REQUIRE") == "all":
        pytest.fail(f"TOCSIN_REQUIRE=all, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def require() -> Require:
    """`require(condition, reason)`: see the module docstring."""
    return require_peer


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real telemetry and SigmaHQ rules beside the checkout."""
    folder = Path(os.environ.get("TOCSIN_SHARED_DATA", str(REPOSITORY.parent / "shared" / "data")))
    require_peer(folder.is_dir(), f"real data is not at {folder}")
    return folder
