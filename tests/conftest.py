"""What tests share: real peers and real data, and the rule for when they are missing.

On a user's machine a test without its peer skips and says why. Under TOCSIN_REQUIRE=all (continuous integration) it
fails: a peer that silently went missing would otherwise turn the suite into a suite of nothing.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from selenium import webdriver

if TYPE_CHECKING:
    from deploy.kafka.broker import KafkaBroker
    from deploy.s3.store import S3Store

REPOSITORY = Path(__file__).resolve().parent.parent

Require = Callable[[bool, str], None]


def require_peer(condition: bool, reason: str) -> None:
    """Go on if `condition`; else skip with the reason, or fail with it where everything is required."""
    if condition:
        return
    if os.environ.get("TOCSIN_REQUIRE") == "all":
        pytest.fail(f"TOCSIN_REQUIRE=all, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def rules_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of compiled rules of this run: that of the user who runs the tests is left alone."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    yield folder / "tocsin" / "rules-cache"
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(autouse=True)
def default_log() -> Iterator[None]:
    """A test that sets up the log as a process does leaves nothing of it to the next."""
    yield
    structlog.reset_defaults()


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


KAFKA_TIMEOUT = 300
"""Seconds for a test that may be the first to need the broker: Maven fetches 45 MB then."""

KAFKA_LEAVINGS = "ignore:unclosed <socket:ResourceWarning"
"""The client closes a connection that it is making only if it comes about: one that a closing client was making, or
that a dying broker never took, is left to the garbage collector (kafka-python 3)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "kafka_broker" not in getattr(item, "fixturenames", ()):
            continue
        item.add_marker(pytest.mark.filterwarnings(KAFKA_LEAVINGS))
        if all(item.get_closest_marker(name) is None for name in ("timeout", "soak")):
            item.add_marker(pytest.mark.timeout(KAFKA_TIMEOUT))


@pytest.fixture(autouse=True)
def kafka_leavings(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the Kafka client leaves to the garbage collector is collected within the test that may leave it."""
    yield
    if "kafka_broker" in request.fixturenames:
        gc.collect()


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A running Apache Kafka broker (deploy/kafka/broker.py), shared by all tests: use topics and groups of your own.

    A test that kills brokers makes one for itself: `type(kafka_broker)(tmp_path)`.
    """
    for program in ("java", "mvn"):
        require_peer(shutil.which(program) is not None, f"{program} is not on PATH, which the Kafka broker needs")
    spec = importlib.util.spec_from_file_location("deploy_kafka_broker", REPOSITORY / "deploy" / "kafka" / "broker.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    broker: KafkaBroker = module.KafkaBroker(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    """A running S3-compatible store (deploy/s3/store.py), shared by all tests: use prefixes of your own.

    A test that kills stores makes one for itself: `type(s3)(tmp_path)`.
    """
    spec = importlib.util.spec_from_file_location("deploy_s3_store", REPOSITORY / "deploy" / "s3" / "store.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    require_peer(module.built().is_file(), "the S3 store is not built: sh deploy/peers/install.sh")
    store: S3Store = module.S3Store(tmp_path_factory.mktemp("s3"))
    store.start()
    yield store
    store.stop()


CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    """A real Chromium, driven by selenium; its console log is kept, where blocked content would show."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    require_peer(browser is not None and driver is not None, "chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = str(browser)
    for flag in CHROMIUM_FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(driver)))
    yield page
    page.quit()
