from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from console.app import create_app
from console.pulse import HospitalPulse, SystemPulse
from console.serve import RunningConsole, serve
from console.settings import ConsoleSettings
from storage.alert import Alert, Level, Status
from storage.alerts import AlertStore

START = datetime.now(UTC)
HOSTILE = (
    "<script>document.title='owned'</script>\"><img src=x onerror=\"document.title='owned'\">\x1b[2J\x00\u202efdp.exe"
)
PATIENCE = 15.0


def an_alert(number: int, **changes: object) -> Alert:
    alert = Alert(
        id=f"{number:032x}",
        rule_id="r1",
        rule_title=f"Rule {number}",
        level=Level.HIGH,
        tenant="chu-brest",
        timestamp=START - timedelta(minutes=number),
        received=START - timedelta(minutes=number),
        logsource="windows/_/security",
        host="SRV-AD-01",
        matched={"LogonType": "10"},
        event={"LogonType": "10"},
        original="a raw line",
    )
    return replace(alert, **changes)  # type: ignore[arg-type]


HOSTILE_ALERT = an_alert(
    1,
    rule_title=HOSTILE,
    tenant=HOSTILE,
    host=HOSTILE,
    user=HOSTILE,
    matched={HOSTILE: HOSTILE},
    event={HOSTILE: HOSTILE},
    original=HOSTILE,
    tags=(HOSTILE,),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AlertStore]:
    with AlertStore(tmp_path / "alerts.duckdb") as opened:
        opened.record([an_alert(0), HOSTILE_ALERT, *(an_alert(number) for number in range(2, 40))], {})
        yield opened


@pytest.fixture
def running(store: AlertStore) -> Iterator[RunningConsole]:
    pulse = SystemPulse(START, (HospitalPulse("chu-brest", 5, 5, 0, 0, START),), 3)
    settings = ConsoleSettings(refresh=timedelta(milliseconds=300))
    with serve(create_app(store, settings=settings, pulse=lambda: pulse), port=0) as served:
        yield served


@pytest.fixture
def page(chromium: webdriver.Chrome, running: RunningConsole) -> Iterator[webdriver.Chrome]:
    chromium.get("about:blank")
    chromium.get_log("browser")  # type: ignore[no-untyped-call]  # what a page of another test asked of its closed server
    chromium.get(f"{running.url}/?lang=en")
    yield chromium
    # Also what the Content-Security-Policy blocks is an entry in this log.
    entries = chromium.get_log("browser")  # type: ignore[no-untyped-call]
    chromium.get("about:blank")
    chromium.delete_all_cookies()
    assert [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")] == []


T = TypeVar("T")


def wait_for(found: Callable[[], T]) -> T:
    """What `found` gives as soon as it is true; rows may be replaced while they are looked at."""
    end = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(StaleElementReferenceException):
            if result := found():
                return result
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def press(page: webdriver.Chrome, keys: str) -> None:
    page.switch_to.active_element.send_keys(keys)


def row(page: webdriver.Chrome, number: int) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, f'tr[data-alert="{number:032x}"]')


def focused_alert(page: webdriver.Chrome) -> str:
    return str(page.execute_script("return document.activeElement.closest('tr')?.dataset.alert ?? ''"))


def scroll(page: webdriver.Chrome, script: str) -> int:
    return int(page.execute_script(script))


def test_an_analyst_works_the_queue_with_keys(page: webdriver.Chrome, store: AlertStore) -> None:
    press(page, "j")
    assert focused_alert(page) == f"{0:032x}"
    press(page, "j")
    press(page, "j")
    press(page, "k")
    press(page, "k")
    assert focused_alert(page) == f"{0:032x}"

    press(page, "a")
    wait_for(lambda: "In progress" in row(page, 0).text)
    assert focused_alert(page) == f"{0:032x}", "the place is kept"

    press(page, Keys.ENTER)
    wait_for(lambda: page.current_url.endswith(f"/alerts/{0:032x}"))
    press(page, "f")
    assert page.switch_to.active_element.get_attribute("id") == "note"
    press(page, "Pentest until Friday <b>")
    press(page, Keys.CONTROL + Keys.ENTER)
    wait_for(lambda: page.current_url.endswith("#journal"))
    assert page.find_element(By.CSS_SELECTOR, ".title .status").text == "False positive"
    assert "Pentest until Friday <b>" in page.find_element(By.ID, "journal").text
    assert [entry.status for entry in store.journal(f"{0:032x}")] == [Status.IN_PROGRESS, Status.FALSE_POSITIVE]

    page.find_element(By.TAG_NAME, "h1").click()
    press(page, "u")
    wait_for(lambda: page.find_elements(By.ID, "results"))
    assert not page.find_elements(By.CSS_SELECTOR, f'tr[data-alert="{0:032x}"]'), "no longer open"


def test_closing_from_the_queue_asks_for_a_note(page: webdriver.Chrome, store: AlertStore) -> None:
    press(page, "j")
    press(page, "x")
    wait_for(lambda: page.find_element(By.ID, "decide").is_displayed())
    press(page, Keys.CONTROL + Keys.ENTER)
    assert page.find_element(By.ID, "decide").is_displayed(), "not without a note"
    press(page, "maintenance")
    press(page, Keys.CONTROL + Keys.ENTER)
    wait_for(lambda: not page.find_elements(By.CSS_SELECTOR, f'tr[data-alert="{0:032x}"]'))
    assert focused_alert(page) == f"{1:032x}", "the next one is at hand"
    assert "Closed" in page.find_element(By.ID, "said").text
    assert [(entry.status, entry.note) for entry in store.journal(f"{0:032x}")] == [(Status.CLOSED, "maintenance")]


def test_a_colleague_was_faster(page: webdriver.Chrome, store: AlertStore) -> None:
    press(page, "j")
    press(page, "t")
    wait_for(lambda: page.find_element(By.ID, "decide").is_displayed())
    press(page, "it is real")
    page.execute_script("document.querySelector('tr[data-alert]').dataset.status = 'closed'")
    press(page, Keys.CONTROL + Keys.ENTER)
    fault = wait_for(lambda: page.find_element(By.ID, "decide-fault").text)
    assert "This alert has changed since you opened it" in fault
    assert page.find_element(By.ID, "decide-note").get_attribute("value") == "it is real", "the note is kept"
    assert store.journal(f"{0:032x}") == []
    page.get_log("browser")  # type: ignore[no-untyped-call]  # the 409 is logged as a failed request


def test_new_alerts_come_by_themselves_and_never_move_what_is_read(page: webdriver.Chrome, store: AlertStore) -> None:
    store.record([an_alert(100, level=Level.CRITICAL, rule_title="Brand new")], {})
    wait_for(lambda: page.find_elements(By.CSS_SELECTOR, f'tr[data-alert="{100:032x}"]'))

    for _ in range(30):
        press(page, "j")
    here = focused_alert(page)
    at = scroll(page, "return window.scrollY")
    assert at > 60
    store.record([an_alert(101, level=Level.CRITICAL), an_alert(102, level=Level.CRITICAL)], {})
    store.decide(here, Status.IN_PROGRESS, "", "Yann")
    button = page.find_element(By.ID, "fresh-load")
    wait_for(lambda: button.text == "2 new alerts: show them")
    wait_for(lambda: "In progress" in page.find_element(By.CSS_SELECTOR, f'tr[data-alert="{here}"]').text)
    assert focused_alert(page) == here
    assert abs(scroll(page, "return window.scrollY") - at) < 60
    assert not page.find_elements(By.CSS_SELECTOR, f'tr[data-alert="{101:032x}"]')
    button.click()
    wait_for(lambda: page.find_elements(By.CSS_SELECTOR, f'tr[data-alert="{101:032x}"]'))
    assert not button.is_displayed()


def test_hostile_text_executes_nothing(page: webdriver.Chrome, running: RunningConsole) -> None:
    assert "<script>" in row(page, 1).text
    page.get(f"{running.url}/alerts/{1:032x}")
    time.sleep(0.3)
    assert page.title.startswith("<script>"), "shown as the title, and not run"
    assert "⟨ESC⟩[2J⟨NUL⟩⟨U+202E⟩fdp.exe" in page.find_element(By.CSS_SELECTOR, ".raw").text
    assert page.find_elements(By.CSS_SELECTOR, "main script, main img") == []


def test_it_works_without_javascript_and_on_a_narrow_screen(page: webdriver.Chrome, running: RunningConsole) -> None:
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        page.get(f"{running.url}/")
        layout = page.execute_cdp_cmd("Page.getLayoutMetrics", {})
        assert layout["cssContentSize"]["width"] <= 400, json.dumps(layout)
        page.find_element(By.ID, "q").send_keys("Rule 7" + Keys.ENTER)
        wait_for(lambda: len(page.find_elements(By.CSS_SELECTOR, "tr[data-alert]")) == 1)
        page.find_element(By.CSS_SELECTOR, "a.open").click()
        wait_for(lambda: page.find_elements(By.ID, "decision"))
        layout = page.execute_cdp_cmd("Page.getLayoutMetrics", {})
        assert layout["cssContentSize"]["width"] <= 400, json.dumps(layout)
        tops = [page.find_element(By.CSS_SELECTOR, place).location["y"] for place in (".first", ".judge", ".rest")]
        assert tops == sorted(tops), "what happened and why, then the decision, then the raw line"
        page.find_element(By.CSS_SELECTOR, "input[value=true_positive]").click()
        page.find_element(By.CSS_SELECTOR, "#decision button").click()
        wait_for(lambda: page.current_url.endswith("#journal"))
        assert "True positive" in page.find_element(By.ID, "journal").text
    finally:
        page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
