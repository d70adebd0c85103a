"""The sources page and its API, on values that are made here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import polars as pl
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from console.app import create_app
from console.serve import RunningConsole, serve
from console.settings import ConsoleSettings
from console.source_view import SourceBook, State, Verdict, hospital_sources, verdict_of
from ingest.collector_report import ChannelCount, CollectorReport, ListenerCount
from ingest.hospital import ExpectedSource, Hospital, Hospitals
from ingest.source_counts import COUNTS_SCHEMA, OTHER
from storage.alert import alert_id
from storage.alerts import AlertStore
from storage.source import Balance, Scope, Silence, SourceName, SourceRow
from storage.source_store import SourceStore

NOW = datetime(2026, 3, 9, 12, 30, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=30)
HOSTILE = "<script>document.title='owned'</script>\x1b[2J\u202efdp.exe"
BREST = Hospital("chu-brest", "CHU de Brest", sources=(ExpectedSource("pare-feu", address="192.0.2.1"),))
HOSPITALS = Hospitals.of([BREST, Hospital("ch-morlaix", "CH de Morlaix")])


def a_row(host: str = "srv", number: int = 1, **changes: object) -> SourceRow:
    name = SourceName("chu-brest", "192.0.2.9", host, "linux")
    row = SourceRow(number, name, 100, 100, 0, 0, 1000, LONG_AGO, NOW)
    return replace(row, **changes)  # type: ignore[arg-type]


# The view


def test_the_worst_come_first() -> None:
    silent = a_row("silent")
    rows = [
        a_row("fine"),
        a_row("new", first_received=NOW - timedelta(hours=2)),
        silent,
        a_row("skewed", skew=-61.0),
        a_row("poor", understood=20),
    ]
    silence = Silence("a1", Scope.SOURCE, silent.name, silent.last_received, NOW)
    seen = hospital_sources("chu-brest", BREST, rows, [silence], NOW)
    assert [(line.name.host or line.known_as, line.state) for line in seen.sources] == [
        ("silent", State.SILENT),
        ("pare-feu", State.NEVER),
        ("new", State.NEW),
        ("skewed", State.OK),
        ("poor", State.OK),
        ("fine", State.OK),
    ]
    assert seen.sources[0].alert_id == "a1"


def test_lines_that_nothing_understood_count_with_their_host() -> None:
    unknown = SourceName("chu-brest", "192.0.2.9", "srv", "unknown")
    rows = [
        a_row(),
        a_row(number=2, name=unknown, lines=25, understood=0),
        a_row("mute", 3, name=replace(unknown, host="mute")),
    ]
    lines = {line.name: line for line in hospital_sources("chu-brest", None, rows, [], NOW).sources}
    assert set(lines) == {rows[0].name, rows[2].name}
    assert (lines[rows[0].name].lines, lines[rows[0].name].understood) == (125, 0.8)


def test_a_silent_hospital_makes_the_sources_silent_that_fell_silent_with_it() -> None:
    last = NOW - timedelta(hours=2)
    with_it, long_before = a_row("a", last_received=last), a_row("b", last_received=last - timedelta(days=1))
    whole = Silence("h", Scope.HOSPITAL, SourceName("chu-brest", "", "", ""), last, NOW)
    seen = hospital_sources("chu-brest", None, [with_it, long_before], [whole], NOW)
    assert (seen.state, seen.alert_id) == (State.SILENT, "h")
    assert {line.name.host: line.state for line in seen.sources} == {"a": State.SILENT, "b": State.OK}


@pytest.mark.parametrize(
    ("balance", "verdict"),
    [
        (Balance(), Verdict.BALANCED),
        (Balance(received=5, stored=5), Verdict.BALANCED),
        (Balance(received=5, stored=3, quarantined=2), Verdict.BALANCED),
        (Balance(received=5, stored=3), Verdict.IN_FLIGHT),
        (Balance(received=5, stored=3, overdue=2), Verdict.DELAYED),
        (Balance(received=9, stored=3, missing=2, cut_off=2, overdue=2), Verdict.MISSING),
        (Balance(received=9, stored=3, cut_off=2, overdue=2, surplus=1), Verdict.CUT_OFF),
        (Balance(received=5, stored=5, surplus=1), Verdict.SURPLUS),
        (Balance(received=6, stored=6, reported=False), Verdict.UNSAID),
        (Balance(received=6, stored=4, earlier=2), Verdict.BALANCED),
    ],
)
def test_verdicts(balance: Balance, verdict: Verdict) -> None:
    assert verdict_of(balance) is verdict


# The page


@pytest.fixture
def alerts(tmp_path: Path) -> Iterator[AlertStore]:
    with AlertStore(tmp_path / "alerts.duckdb") as opened:
        yield opened


def fill(alerts: AlertStore) -> SourceBook:
    """A hospital with a source of each kind, one of them with a hostile name, and lines that are missing."""
    store = SourceStore(alerts.database)
    hour = NOW.replace(minute=0)
    base: dict[str, object] = {
        "partition": 0,
        "run": "a",
        "tenant": "chu-brest",
        "address": "192.0.2.9",
        "family": "linux",
        "hour": hour,
        "lines": 600,
        "understood": 500,
        "marked": 3,
        "again": 4,
        "quarantined": 0,
        "bytes": 6000,
        "minutes": 1,
        "first_event": NOW,
        "last_event": NOW,
        "last_received": NOW,
        "dated": 600,
        "skew": 75.25,
    }
    hosts = ["srv-1", HOSTILE, "a" * 255]
    rows = [{**base, "offset": at, "host": host} for at, host in enumerate(hosts)]
    rows.append({**base, "offset": 9, "address": OTHER, "host": OTHER, "family": OTHER})
    channel = ChannelCount("", "chu-brest", "192.0.2.9", 5000, 1, 5000)
    listener = ListenerCount("udp", "chu-brest", 5, 7, {HOSTILE: 2})
    then = NOW - timedelta(minutes=10)
    report = CollectorReport("a", then, channels=(channel,), listeners=(listener,), spool_bytes=4096, spool_oldest=then)
    store.record([pl.DataFrame(rows, schema=COUNTS_SCHEMA)], [report], {}, then)
    name = SourceName("chu-brest", "192.0.2.9", HOSTILE, "linux")
    store.silence(Silence(alert_id("r", "chu-brest", "x"), Scope.SOURCE, name, NOW, NOW))
    return SourceBook(store, lambda: HOSPITALS, lambda: 0)


def get(alerts: AlertStore, path: str, book: SourceBook | None, language: str = "en") -> httpx.Response:
    app = create_app(alerts, settings=ConsoleSettings(), clock=lambda: NOW, sources=book)

    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(path, headers={"accept-language": language})

    return asyncio.run(once())


def test_the_page_says_what_there_is(alerts: AlertStore) -> None:
    page = get(alerts, "/sources", fill(alerts))
    assert page.status_code == 200
    for expected in (
        "CHU de Brest",
        "CH de Morlaix",
        "nothing has come yet",
        "<b>5,000</b> received",
        "<b>2,400</b> stored",
        "of which 16 were sent again",
        "lines wait for more than five minutes (2,600)",
        "7 datagrams dropped by the kernel",
        "5 datagrams dropped because too much was waiting",
        "4,096 bytes wait on a collector",
        "1 silent source",
        "1 source never seen",
        "pare-feu",
        "All other sources of this hospital",
        "83.3%",
        "75.2 s",
    ):
        assert expected in page.text, expected
    assert page.text.index("CHU de Brest</a>") < page.text.index("CH de Morlaix</a>"), "the silent one comes first"
    assert "default-src 'self'" in page.headers["content-security-policy"]


def test_the_page_in_french(alerts: AlertStore) -> None:
    page = get(alerts, "/sources", fill(alerts), "fr").text
    for expected in ("reçues", "conservées", "jamais vue", "s’est tue", "il y a", "83,3"):
        assert expected in page, expected


def test_what_attackers_wrote_is_shown_and_never_obeyed(alerts: AlertStore) -> None:
    page = get(alerts, "/sources", fill(alerts)).text
    assert "<script>document" not in page
    assert "&lt;script&gt;document" in page
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_one_hospital_alone(alerts: AlertStore) -> None:
    page = get(alerts, "/sources?hospital=ch-morlaix", fill(alerts)).text
    assert "srv-1" not in page
    assert 'value="ch-morlaix" selected' in page
    assert "No hospital has sent anything yet" in get(alerts, "/sources?hospital=nowhere", fill(alerts)).text


def test_where_nothing_is_known_it_says_so(alerts: AlertStore) -> None:
    assert "What the hospitals send is not known here" in get(alerts, "/sources", None).text
    assert get(alerts, "/api/sources", None).status_code == 404


def test_the_api_says_the_same(alerts: AlertStore) -> None:
    answer = get(alerts, "/api/sources?hospital=chu-brest", fill(alerts)).json()
    (found,) = answer["hospitals"]
    assert found["balance"]["received"] == found["balance"]["stored"] + found["balance"]["outstanding"] == 5000
    assert found["balance"]["verdict"] == "delayed"
    assert {source["state"] for source in found["sources"]} == {"silent", "never", "new"}
    assert found["drops"]["kernel"] == 7
    assert get(alerts, "/api/sources?hospitl=x", fill(alerts)).status_code == 422


# The browser


@pytest.fixture
def running(alerts: AlertStore) -> Iterator[RunningConsole]:
    app = create_app(alerts, settings=ConsoleSettings(), clock=lambda: NOW, sources=fill(alerts))
    with serve(app, port=0) as served:
        yield served


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_a_desk_and_a_telephone(chromium: webdriver.Chrome, running: RunningConsole, width: int) -> None:
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    try:
        chromium.get("about:blank")
        chromium.get_log("browser")  # type: ignore[no-untyped-call]  # of another test's page and its closed server
        chromium.get(f"{running.url}/sources?lang=fr")
        assert chromium.title == "Sources · Tocsin"
        assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
        rows = chromium.find_elements(By.CSS_SELECTOR, ".origin tbody tr")
        assert len(rows) == 5
        assert "s’est tue" in rows[0].text
        link = chromium.find_element(By.CSS_SELECTOR, ".places a[href='/']")
        assert link.is_displayed()
        entries = chromium.get_log("browser")  # type: ignore[no-untyped-call]
        assert [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")] == []
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        chromium.get("about:blank")
        chromium.delete_all_cookies()
