from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from fastapi import FastAPI

from console.app import create_app
from console.errors import SettingsError
from console.pulse import HospitalPulse, SystemPulse
from console.rule_text import RuleText, linkable
from console.settings import ConsoleSettings
from storage.alert import Alert, Evidence, Level, Status
from storage.alert_queue import AlertRow
from storage.alerts import AlertStore

NOW = datetime(2026, 3, 9, 6, 30, tzinfo=UTC)
HERE = "http://127.0.0.1"
HOSTILE = {
    "markup": "<script>document.title='owned'</script>",
    "attribute": "\"><img src=x onerror=alert(1)>' onfocus=alert(1) autofocus='",
    "terminal": "\x1b]0;owned\x07\x1b[2J",
    "nul": "before\x00after",
    "override": "invoice\u202efdp.exe",
    "template": "{{ 7*7 }}{% raw %}%(n)s{n}",
    "long": "A" * 20_000,
}


def an_alert(number: int = 0, **changes: object) -> Alert:
    alert = Alert(
        id=f"{number:032x}",
        rule_id="5af54681-df95-4c26-854f-2565e13cfab0",
        rule_title="Suspicious RDP logon",
        level=Level.HIGH,
        tenant="chu-brest",
        timestamp=NOW - timedelta(minutes=number),
        received=NOW - timedelta(minutes=number) + timedelta(seconds=1),
        logsource="windows/_/security",
        host="SRV-AD-01",
        user="presta.imagerie",
        source_ip="203.0.113.9",
        destination_ip="10.29.0.5",
        event_ids=(f"tocsin.raw:0:{number}:0",),
        matched={"LogonType": "10", "IpAddress": "203.0.113.9"},
        event={"EventID": "4624", "LogonType": "10", "IpAddress": "203.0.113.9"},
        original=f'<13>1 line {number} {{"IpAddress":"203.0.113.9"}}',
        tags=("attack.t1021.001", "attack.lateral_movement"),
    )
    return replace(alert, **changes)  # type: ignore[arg-type]


def put(store: AlertStore, *alerts: Alert) -> None:
    store.record(list(alerts), {})


@dataclass
class Browser:
    """Asks the application as a browser on a page of it does; cookies are kept."""

    app: FastAPI
    runner: asyncio.Runner
    cookies: httpx.Cookies = field(default_factory=httpx.Cookies)
    headers: dict[str, str] = field(default_factory=lambda: {"accept-language": "en"})

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
        base: str = HERE,
    ) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=base, cookies=self.cookies) as client:
                answer = await client.request(method, path, headers=self.headers | (headers or {}), content=content)
                self.cookies = client.cookies
                return answer

        return self.runner.run(once())

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.ask("GET", path, headers=headers)

    def post_form(self, path: str, fields: dict[str, str], **headers: str) -> httpx.Response:
        sent = {"content-type": "application/x-www-form-urlencoded", "origin": HERE, **headers}
        return self.ask("POST", path, headers=sent, content=urlencode(fields).encode())

    def post_json(self, path: str, body: object, **headers: str) -> httpx.Response:
        sent = {"content-type": "application/json", **headers}
        return self.ask("POST", path, headers=sent, content=json.dumps(body).encode())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AlertStore]:
    opened = AlertStore(tmp_path / "alerts.duckdb")
    yield opened
    opened.close()


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture
def browser(store: AlertStore, runner: asyncio.Runner) -> Browser:
    return Browser(create_app(store, settings=ConsoleSettings(page_size=10), clock=lambda: NOW), runner)


def shown_ids(page: str) -> list[int]:
    return [int(found, 16) for found in re.findall(r'<tr data-alert="(\w+)"', page)]


# The queue.


def test_an_empty_queue_explains_itself(browser: Browser) -> None:
    page = browser.get("/")
    assert page.status_code == 200
    assert "No alert yet" in page.text
    assert "A quiet queue means something only if the hospitals are sending" in page.text


def test_worst_first_then_newest(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(3), an_alert(1), an_alert(2, level=Level.CRITICAL), an_alert(4, level=Level.LOW))
    assert shown_ids(browser.get("/").text) == [2, 1, 3, 4]


def test_a_row_tells_what_an_analyst_needs(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0))
    page = browser.get("/").text
    for expected in (
        '<span class="level high"><span class="shape" aria-hidden="true"></span>High</span>',
        'title="2026-03-09 06:30:00 UTC"',
        "07:30:00",  # Europe/Paris in winter
        "chu-brest",
        "Suspicious RDP logon",
        "LogonType: 10 · IpAddress: 203.0.113.9",
        '<span title="SRV-AD-01">SRV-AD-01</span>',
        '<span title="203.0.113.9">203.0.113.9</span><span title="10.29.0.5">→ 10.29.0.5</span>',
        "presta.imagerie",
        '<span class="status new">New</span>',
    ):
        assert expected in page


@pytest.mark.parametrize(
    ("host", "short"),
    [
        ("SRV-RDS01.kermor.example", "SRV-RDS01"),
        ("SRV-RDS01", "SRV-RDS01"),
        ("10.20.4.11", "10.20.4.11"),
        ("2001:db8::192.0.2.1", "2001:db8::192.0.2.1"),
        (".hidden", ".hidden"),
    ],
)
def test_a_row_shows_the_short_name_of_the_host(browser: Browser, store: AlertStore, host: str, short: str) -> None:
    put(store, an_alert(0, host=host))
    assert f'<span title="{host}">{short}</span>' in browser.get("/").text


def test_a_title_that_is_the_name_of_the_product_is_not_said_twice(store: AlertStore, runner: asyncio.Runner) -> None:
    for title, shown in (("Tocsin", "<b>Tocsin</b></a>"), ("SOC Ouest", "<b>Tocsin</b> <span>SOC Ouest</span></a>")):
        page = Browser(create_app(store, settings=ConsoleSettings(title=title)), runner).get("/").text
        assert shown in page


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", [0, 1, 3]),
        ("status=all", [0, 1, 2, 3]),
        ("status=closed", [2]),
        ("status=in_progress", [1]),
        ("tenant=ch-morlaix", [1]),
        ("tenant=ch-morlaix&tenant=chu-brest", [0, 1, 3]),
        ("level=low", [3]),
        ("level=low&level=high", [0, 1, 3]),
        ("q=line%203", [3]),
        ("q=no+such+thing", []),
        ("since=1h", [0, 1]),
        ("host=WEB-1", [3]),
        ("rule=another", [3]),
        ("q=&since=&host=&rule=", [0, 1, 3]),
    ],
)
def test_filters(browser: Browser, store: AlertStore, query: str, ids: list[int]) -> None:
    old = {"timestamp": NOW - timedelta(hours=2), "level": Level.LOW, "host": "WEB-1", "rule_id": "another"}
    put(store, an_alert(0), an_alert(1, tenant="ch-morlaix"), an_alert(2), an_alert(3, **old))
    store.decide(an_alert(1).id, Status.IN_PROGRESS, "", "Nolwenn")
    store.decide(an_alert(2).id, Status.CLOSED, "seen", "Nolwenn")
    page = browser.get(f"/?{query}").text
    assert shown_ids(page) == ids
    assert ids or "No alert matches these filters" in page


def test_a_text_that_is_not_sought_everywhere_is_said(tmp_path: Path, runner: asyncio.Runner) -> None:
    with AlertStore(tmp_path / "alerts.duckdb", searched=2) as store:
        put(store, *(an_alert(number) for number in range(3)))
        browser = Browser(create_app(store, settings=ConsoleSettings(), clock=lambda: NOW), runner)
        page = browser.get(f"/?q={an_alert(0).rule_title}").text
        assert "The text was sought in the newest 2 alerts only." in page
        assert browser.get(f"/api/alerts?q={an_alert(0).rule_title}").json()["searched"] == 2
        assert "The text was sought" not in browser.get("/").text


def test_pages_of_the_queue_follow_each_other(browser: Browser, store: AlertStore) -> None:
    put(store, *(an_alert(number) for number in range(25)))
    seen: list[int] = []
    path = "/?q=SRV-AD-01"
    for _ in range(3):
        page = browser.get(path).text
        seen += shown_ids(page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        path = following[1].replace("&amp;", "&") if following else ""
    assert seen == list(range(25))
    assert path == ""


def test_a_queue_that_is_dealt_with_says_so(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0))
    store.decide(an_alert(0).id, Status.CLOSED, "seen", "Nolwenn")
    assert "Every alert has been dealt with" in browser.get("/").text


def test_an_address_with_an_unknown_value_is_a_plain_400(browser: Browser) -> None:
    for query in ("level=terrible", "since=1y", "status=<b>", "cursor=nonsense", "q=" + "a" * 201):
        page = browser.get(f"/?{query}")
        assert page.status_code == 400, query
        assert "This request cannot be read" in page.text


# One alert.


def test_the_alert_page_shows_the_evidence(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0))
    page = browser.get(f"/alerts/{an_alert(0).id}").text
    assert '<tr class="hit"><th scope="row">IpAddress' in page
    assert "{&#34;IpAddress&#34;:&#34;<mark>203.0.113.9</mark>&#34;}" in page
    for expected in ("T1021.001", "lateral movement", "tocsin.raw:0:0:0", "10.29.0.5", "windows/_/security", "4624"):
        assert expected in page
    assert "Nobody has decided anything about this alert yet." in page


def test_the_page_of_a_correlation_lists_the_events_behind_it(browser: Browser, store: AlertStore) -> None:
    first, last = (
        Evidence(f"tocsin.raw:0:0:{n}", NOW - timedelta(minutes=9 - n), "Failed logon", f"SRV-{n}", "x.y", "192.0.2.9")
        for n in (0, 1)
    )
    told = replace(last, matched={"TargetUserName": "m.legoff", "Status": None}, user=None)
    correlation = an_alert(
        0,
        matched={"TargetUserName": "m.legoff", "event_count": "120", "timespan": "15m"},
        event_ids=tuple(f"tocsin.raw:0:0:{n}" for n in range(100)),
        evidence=(first, told),
    )
    put(store, correlation, an_alert(1))
    page = browser.get(f"/alerts/{correlation.id}").text
    table = page[page.index("2 events behind this alert") : page.index("Older events are named by their ids")]
    assert [host for host in ("SRV-0", "SRV-1") if host in table] == ["SRV-0", "SRV-1"]
    for expected in ("TargetUserName: m.legoff · Status: <em>absent</em>", "x.y · 192.0.2.9", "Failed logon"):
        assert expected in " ".join(table.split())
    assert table.count("<time") == 2
    french = browser.get(f"/alerts/{correlation.id}?lang=fr").text
    assert "2 événements à l’origine de cette alerte" in french
    assert "events behind this alert" not in browser.get(f"/alerts/{an_alert(1).id}").text
    answer = browser.get(f"/api/alerts/{correlation.id}").json()
    assert [piece["host"] for piece in answer["evidence"]] == ["SRV-0", "SRV-1"]
    assert answer["evidence"][1]["matched"] == {"TargetUserName": "m.legoff", "Status": None}


def test_related_alerts_are_of_the_same_host_or_rule_within_a_day(browser: Browser, store: AlertStore) -> None:
    put(
        store,
        an_alert(0, timestamp=NOW - timedelta(days=9)),
        an_alert(1, timestamp=NOW - timedelta(days=9, hours=3), rule_id="b", rule_title="Other rule, same host"),
        an_alert(2, timestamp=NOW - timedelta(days=8, hours=3), tenant="ch-morlaix", rule_title="Same rule elsewhere"),
        an_alert(3, timestamp=NOW - timedelta(days=9), tenant="ch-morlaix", rule_id="b", rule_title="Namesake host"),
        an_alert(4, timestamp=NOW - timedelta(days=7), rule_title="Too late"),
    )
    page = browser.get(f"/alerts/{an_alert(0).id}").text
    assert "Other rule, same host" in page
    assert "Same rule elsewhere" in page
    assert "Namesake host" not in page
    assert "Too late" not in page


def test_an_alert_that_is_not_there_is_a_plain_404(browser: Browser) -> None:
    for path in ("/alerts/none", "/alerts/..%2f..%2fetc", "/nothing"):
        page = browser.get(path)
        assert page.status_code == 404
        assert "There is nothing here" in page.text
    assert "There is no alert with this id" in browser.get("/alerts/none").text


def test_a_very_long_line_is_cut_on_the_page_and_whole_in_the_api(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0, original="B" * 70_000))
    page = browser.get(f"/alerts/{an_alert(0).id}").text
    assert page.count("B" * 65_536) == 1
    assert "4,464 more characters are not shown here" in page
    assert len(browser.get(f"/api/alerts/{an_alert(0).id}").json()["original"]) == 70_000


# Decisions by form.


def decision(status: str, note: str = "", seen: int = 0, analyst: str = "Nolwenn Le Goff") -> dict[str, str]:
    return {"status": status, "note": note, "seen": str(seen), "analyst": analyst}


def test_a_decision_is_journalled_with_its_author(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0))
    path = f"/alerts/{an_alert(0).id}"
    browser.get(path)
    answer = browser.post_form(path, decision("false_positive", "a pentest\r\nuntil Friday"))
    assert (answer.status_code, answer.headers["location"]) == (303, f"{path}#journal")
    [entry] = store.journal(an_alert(0).id)
    assert (entry.status, entry.note, entry.author) == (
        Status.FALSE_POSITIVE,
        "a pentest\nuntil Friday",
        "Nolwenn Le Goff",
    )
    page = browser.get(path).text
    assert '<span class="status false_positive">False positive</span> <b>Nolwenn Le Goff</b>' in page
    assert 'name="analyst" value="Nolwenn Le Goff"' in page, "the name is remembered"


@pytest.mark.parametrize("status", ["false_positive", "closed"])
def test_setting_aside_needs_a_note(browser: Browser, store: AlertStore, status: str) -> None:
    put(store, an_alert(0))
    path = f"/alerts/{an_alert(0).id}"
    browser.get(path)
    page = browser.post_form(path, decision(status, " \r\n "))
    assert page.status_code == 400
    assert "Write a note: a colleague must be able to see" in page.text
    assert re.search(rf'value="{status}" required checked', page.text), "the choice is still made"
    assert list(store.journal(an_alert(0).id)) == []


@pytest.mark.parametrize("status", ["in_progress", "true_positive", "new"])
def test_other_statuses_need_none(browser: Browser, store: AlertStore, status: str) -> None:
    put(store, an_alert(0))
    browser.get("/")
    assert browser.post_form(f"/alerts/{an_alert(0).id}", decision(status)).status_code == 303
    found = store.get(an_alert(0).id)
    assert found is not None
    assert found.status == status


def test_a_conflict_keeps_the_note_and_shows_the_journal(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0))
    path = f"/alerts/{an_alert(0).id}"
    browser.get(path)
    store.decide(an_alert(0).id, Status.TRUE_POSITIVE, "they are inside", "Yann")
    page = browser.post_form(path, decision("closed", "my long <note>"))
    assert page.status_code == 409
    assert "Somebody changed this alert after you opened it" in page.text
    assert "my long &lt;note&gt;</textarea>" in page.text
    assert "they are inside" in page.text
    assert 'name="seen" value="1"' in page.text
    assert len(list(store.journal(an_alert(0).id))) == 1


def test_a_note_has_a_limit(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0))
    path = f"/alerts/{an_alert(0).id}"
    browser.get(path)
    assert browser.post_form(path, decision("closed", "n" * 4000)).status_code == 303
    page = browser.post_form(path, decision("closed", "n" * 4001, seen=1))
    assert page.status_code == 400
    assert "at most 4,000 characters" in page.text
    assert browser.post_form(path, decision("closed", "n" * 70_000)).status_code == 413


def test_deciding_on_no_alert_or_nonsense(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0))
    browser.get("/")
    assert browser.post_form("/alerts/none", decision("true_positive")).status_code == 404
    assert browser.post_form(f"/alerts/{an_alert(0).id}", decision("great")).status_code == 400
    assert browser.post_form(f"/alerts/{an_alert(0).id}", {}).status_code == 400
    assert list(store.journal(an_alert(0).id)) == []


def test_the_analyst_is_named_once(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0))
    browser.get("/")
    answer = browser.post_form("/analyst", {"analyst": " Maël\u202e\n K. "}, referer=f"{HERE}/?status=all")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?status=all")
    browser.post_json(f"/api/alerts/{an_alert(0).id}/decisions", {"status": "in_progress"})
    assert [entry.author for entry in store.journal(an_alert(0).id)] == ["Maël K."]


@pytest.mark.parametrize("referer", ["http://evil.example//evil.example/x", "//evil.example", "/\\evil.example", ""])
def test_naming_the_analyst_never_leads_elsewhere(browser: Browser, referer: str) -> None:
    browser.get("/")
    location = browser.post_form("/analyst", {"analyst": "x"}, referer=referer).headers["location"]
    assert re.match(r"/(?![/\\])|/$", location)


# Where a change may come from.


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_change_from_elsewhere_is_refused(browser: Browser, store: AlertStore, headers: dict[str, str]) -> None:
    put(store, an_alert(0))
    browser.get("/")
    form = browser.post_form(f"/alerts/{an_alert(0).id}", decision("true_positive"), **headers)
    api = browser.post_json(f"/api/alerts/{an_alert(0).id}/decisions", {"status": "true_positive"}, **headers)
    assert (form.status_code, api.status_code) == (403, 403)
    assert "did not come from a page of this console" in form.text
    assert list(store.journal(an_alert(0).id)) == []


def test_a_form_needs_the_cookie_of_a_page_and_a_sign_of_its_origin(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0))
    path = f"/alerts/{an_alert(0).id}"
    assert browser.post_form(path, decision("true_positive")).status_code == 403, "no page was ever opened"
    cookie = browser.get("/").headers["set-cookie"]
    assert "SameSite=strict" in cookie
    assert "HttpOnly" in cookie
    bare = urlencode(decision("true_positive")).encode()
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert browser.ask("POST", path, headers=form, content=bare).status_code == 403, "neither Origin nor Fetch Metadata"
    assert browser.post_form(path, decision("true_positive")).status_code == 303


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_the_api_takes_only_json(browser: Browser, store: AlertStore, content_type: str) -> None:
    put(store, an_alert(0))
    path = f"/api/alerts/{an_alert(0).id}/decisions"
    answer = browser.ask("POST", path, headers={"content-type": content_type}, content=b'{"status": "true_positive"}')
    assert answer.status_code in (415, 422)
    assert list(store.journal(an_alert(0).id)) == []


def test_cookies_are_secure_over_tls(browser: Browser) -> None:
    for base, secure in ((HERE, False), ("https://127.0.0.1", True)):
        answer = browser.ask("GET", "/?lang=fr", base=base)
        assert [("Secure" in cookie) for cookie in answer.headers.get_list("set-cookie")] == [secure, secure]


# Headers.

CSP = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"


def assert_guarded(answer: httpx.Response) -> None:
    assert answer.headers["content-security-policy"] == CSP
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] in ("no-store", "no-cache")


def test_every_answer_carries_the_guards(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0))
    answers = [
        browser.get(path)
        for path in (
            "/",
            f"/alerts/{an_alert(0).id}",
            "/pulse",
            "/api/alerts",
            "/api/openapi.json",
            "/healthz",
            "/static/console.js",
            "/static/console.css",
            "/static/tocsin.svg",
            "/static/nothing",
            "/alerts/none",
            "/api/alerts/none",
            "/?level=x",
        )
    ]
    answers += [browser.ask("POST", "/"), browser.ask("GET", "/", headers={"host": "evil.example"})]
    assert {answer.status_code for answer in answers} == {200, 400, 404, 405}
    for answer in answers:
        assert_guarded(answer)
    assert answers[0].headers["cache-control"] == "no-store"


class BrokenStore(AlertStore):
    """A store that has lost its file."""

    def get(self, alert_id: str) -> AlertRow | None:
        raise RuntimeError(f"lost the secret file of {alert_id}")


@pytest.mark.parametrize(("path", "kind"), [("/alerts/x", "text/html"), ("/api/alerts/x", "application/problem+json")])
def test_a_crash_is_a_guarded_plain_answer(tmp_path: Path, runner: asyncio.Runner, path: str, kind: str) -> None:
    broken = BrokenStore(tmp_path / "alerts.duckdb")
    answer = Browser(create_app(broken, settings=ConsoleSettings()), runner).get(path)
    broken.close()
    assert answer.status_code == 500
    assert answer.headers["content-type"].startswith(kind)
    assert "The console made a mistake" in answer.text
    assert "the secret file" not in answer.text
    assert_guarded(answer)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example"])
def test_other_host_names_are_not_answered(browser: Browser, host: str) -> None:
    for path in ("/", "/api/alerts", "/healthz"):
        answer = browser.get(path, host=host)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
        assert "does not answer to this host name" in answer.json()["detail"]
        assert_guarded(answer)


def test_pages_hold_no_inline_script_or_style(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0))
    store.decide(an_alert(0).id, Status.IN_PROGRESS, "", "x")
    for path in ("/", f"/alerts/{an_alert(0).id}", "/nothing"):
        page = browser.get(path).text
        assert re.findall("<script.*?>", page) == ['<script src="/static/console.js" defer>']
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
        assert not re.search(r"https?://", page)


# Hostile text.


class Elements(HTMLParser):
    """What a browser would make of a page: attribute names, and what it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: set[str] = set()
        self.sources: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.attributes |= set(held)
        if tag in ("script", "img", "iframe", "object", "embed"):
            self.sources.add(held.get("src") or "inline")


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_shown_and_does_nothing(browser: Browser, store: AlertStore, kind: str) -> None:
    text = HOSTILE[kind]
    names = ("rule_id", "rule_title", "tenant", "logsource", "host", "user", "source_ip", "destination_ip", "original")
    evil = an_alert(
        0,
        **dict.fromkeys(names, text),
        event_ids=(text,),
        matched={text: text, "ParentImage": None},
        event={text: text},
        tags=(text, "attack." + text),
        evidence=(Evidence(text, NOW, text, text, text, text, {text: text}),),
    )
    put(store, evil)
    browser.get("/")
    browser.post_form("/analyst", {"analyst": text})
    store.decide(evil.id, Status.IN_PROGRESS, text, text)
    views = [browser.get("/"), browser.get(f"/alerts/{evil.id}"), browser.get("/?" + urlencode({"q": text[:200]}))]
    views.append(browser.get("/?" + urlencode({"tenant": text[:300], "host": text[:300], "rule": text[:300]})))
    for view in views:
        assert view.status_code == 200
        page = view.text
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)
        elements = Elements()
        elements.feed(page)
        assert elements.sources == {"/static/console.js", "/static/tocsin.svg"}
        assert not {name for name in elements.attributes if name.startswith("on") or name in ("style", "autofocus")}
        assert "49" not in re.sub(r"<time.*?</time>", "", page) or kind != "template"
    assert "<em>absent</em>" in views[1].text
    assert browser.get(f"/api/alerts/{evil.id}").json()["original"] == text


# Languages.


def test_french_is_the_default_and_the_switch_is_remembered(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0))
    browser.headers = {}
    page = browser.get("/")
    assert '<html lang="fr">' in page.text
    assert "Élevé" in page.text
    assert page.headers["content-language"] == "fr"
    assert "9 mars" in page.text
    english = browser.get("/?lang=en&status=all")
    assert '<html lang="en">' in english.text
    assert "Mar 9" in english.text
    switch = re.search(r'href="\?([^"]*)" hreflang="fr"', english.text)
    assert switch
    assert sorted(switch[1].split("&amp;")) == ["lang=fr", "status=all"], "the switch keeps the filters"
    assert '<html lang="en">' in browser.get("/").text
    assert "There is nothing here" in browser.get("/nothing").text


def test_problems_speak_the_language_asked_for(browser: Browser) -> None:
    assert browser.get("/api/alerts/none", **{"accept-language": "fr"}).json()["title"] == "Il n’y a rien ici"


# Pulse.


def test_the_strip_shows_the_pulse_and_who_is_silent(store: AlertStore, runner: asyncio.Runner) -> None:
    pulse = SystemPulse(
        NOW,
        (
            HospitalPulse("chu-brest", 1200, 1000, 150, 50, NOW - timedelta(seconds=5)),
            HospitalPulse("ch-morlaix", 34, 34, 0, 0, NOW - timedelta(hours=2)),
            HospitalPulse("ch-<b>x", 0),
        ),
        rules_loaded=312,
        rules_refused=4,
        lag=7,
    )
    browser = Browser(create_app(store, settings=ConsoleSettings(), pulse=lambda: pulse, clock=lambda: NOW), runner)
    for path in ("/", "/pulse"):
        page = browser.get(path).text
        assert "2 silent hospitals" in page
        assert "<b>1,234</b> events" in page
        assert "<b>312</b> rules" in page
        assert "ch-&lt;b&gt;x" in page
    answer = browser.get("/api/pulse").json()
    assert (answer["rules_loaded"], answer["rules_refused"], answer["lag"]) == (312, 4, 7)
    assert [(seen["tenant"], seen["silent"]) for seen in answer["hospitals"]] == [
        ("chu-brest", False),
        ("ch-morlaix", True),
        ("ch-<b>x", True),
    ]


def test_without_a_pulse_there_is_no_strip(browser: Browser) -> None:
    assert browser.get("/pulse").text.split() == ["<div", 'class="pulse"', 'id="pulse">', "</div>"]
    assert browser.get("/api/pulse").json() == {
        "at": None,
        "hospitals": [],
        "rules_loaded": None,
        "rules_refused": None,
        "lag": None,
        "quarantined": None,
        "failing": [],
        "dropped": None,
    }


FAILING = "detect: lake /srv/<lake>: cannot append"
SICK = SystemPulse(
    NOW,
    (HospitalPulse("chu-brest", 10, 10, 0, 0, NOW),),
    rules_loaded=3,
    quarantined=1200,
    failing=(FAILING,),
    dropped=1,
)


def with_pulse(store: AlertStore, runner: asyncio.Runner, pulse: SystemPulse | None) -> Browser:
    app = create_app(store, settings=ConsoleSettings(), pulse=lambda: pulse, clock=lambda: NOW)
    return Browser(app, runner)


def test_the_strip_says_what_goes_wrong(store: AlertStore, runner: asyncio.Runner) -> None:
    browser = with_pulse(store, runner, SICK)
    page = browser.get("/").text
    assert re.search(r'<span class="state bad">.*1 stage failing</span>', page)
    assert '<span class="bad"><b class="warn">1,200</b> unreadable records</span>' in page
    assert '<span class="bad"><b class="warn">1</b> datagram lost</span>' in page
    assert "detect: lake /srv/&lt;lake&gt;: cannot append" in page
    assert "1 étape en échec" in browser.get("/?lang=fr").text
    answer = browser.get("/api/pulse").json()
    assert (answer["quarantined"], answer["failing"], answer["dropped"]) == (1200, [FAILING], 1)


def test_a_healthy_strip_is_quiet(store: AlertStore, runner: asyncio.Runner) -> None:
    page = with_pulse(store, runner, replace(SICK, quarantined=0, failing=(), dropped=0)).get("/").text
    assert "1 hospital sending" in page
    for word in ("failing", "unreadable", "datagram", "warn"):
        assert word not in page.lower()


@pytest.mark.parametrize("pulse", [None, SystemPulse(NOW)])
def test_a_pulse_that_knows_nothing_says_so_instead_of_zero(
    store: AlertStore, runner: asyncio.Runner, pulse: SystemPulse | None
) -> None:
    browser = with_pulse(store, runner, pulse)
    strip = browser.get("/pulse").text
    assert "What the hospitals send is not known here" in strip
    assert "<b>0</b>" not in strip
    answer = browser.get("/api/pulse").json()
    assert (answer["hospitals"], answer["rules_loaded"], answer["rules_refused"]) == ([], None, None)


def test_no_rules_at_all_is_an_alarm_where_hospitals_send(store: AlertStore, runner: asyncio.Runner) -> None:
    browser = with_pulse(store, runner, replace(SICK, rules_loaded=0))
    assert '<b class="warn">0</b> rules' in browser.get("/").text


# What a rule says of itself.

RULE = RuleText(
    description="A logon over RDP from outside.\nCall the hospital first.",
    falsepositives=("The <imaging> vendor on Tuesdays", "Pentests"),
    references=("https://attack.mitre.org/?a=1&b=<2>", "javascript:alert(1)", "the handbook, page 7"),
    source="title: Suspicious RDP logon\nlevel: high\nx: '<b>\u202e'\n",
)


def test_the_alert_page_says_what_the_rule_means(store: AlertStore, runner: asyncio.Runner) -> None:
    put(store, an_alert(0), an_alert(1, rule_id="forgotten"))
    asked: list[str] = []

    def rules(rule_id: str) -> RuleText | None:
        asked.append(rule_id)
        return RULE if rule_id == an_alert(0).rule_id else None

    browser = Browser(create_app(store, settings=ConsoleSettings(), clock=lambda: NOW, rules=rules), runner)
    answer = browser.get(f"/alerts/{an_alert(0).id}")
    page = answer.text
    assert_guarded(answer)
    title, meaning = page.index("<h1>"), page.index("A logon over RDP from outside.\nCall the hospital first.</p>")
    assert title < meaning < page.index("What happened"), "the meaning stands under the title"
    decide = page.index("<h2>Decision</h2>")
    harmless = page.index("<li>The &lt;imaging&gt; vendor on Tuesdays</li><li>Pentests</li>")
    assert decide < harmless < page.index('id="decision"'), "what else looks the same stands by the decision"
    assert re.findall(r'<a href="(\w+:[^"]*)" rel="noreferrer noopener">', page) == [
        "https://attack.mitre.org/?a=1&amp;b=&lt;2&gt;"
    ]
    assert "<li>javascript:alert(1)</li>" in page
    assert "<li>the handbook, page 7</li>" in page
    source = re.search(r'<details class="source">.*?<pre[^>]*>(.*?)</pre>', page, re.DOTALL)
    assert source
    assert source[1].startswith("title: Suspicious RDP logon\nlevel: high\n")
    assert '&lt;b&gt;<span class="ctl">⟨U+202E⟩</span>' in source[1]
    assert "Faux positifs connus de cette règle" in browser.get(f"/alerts/{an_alert(0).id}?lang=fr").text

    assert browser.get(f"/api/alerts/{an_alert(0).id}").json()["rule"] == {
        "description": RULE.description,
        "falsepositives": list(RULE.falsepositives),
        "references": list(RULE.references),
        "source": RULE.source,
    }
    assert browser.get(f"/api/alerts/{an_alert(1).id}").json()["rule"] is None
    assert "The rule as it is written" not in browser.get(f"/alerts/{an_alert(1).id}?lang=en").text
    assert set(asked) == {an_alert(0).rule_id, "forgotten"}


def test_without_rules_the_alert_page_is_as_before(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0))
    assert browser.get(f"/api/alerts/{an_alert(0).id}").json()["rule"] is None
    assert "Known false positives" not in browser.get(f"/alerts/{an_alert(0).id}").text


@pytest.mark.parametrize(
    ("reference", "may_be_a_link"),
    [
        ("https://example.org/a?b#c", True),
        ("http://example.org", True),
        ("HTTPS://example.org", True),
        ("https:///no-host", False),
        ("https://[half", False),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("//example.org", False),
        ("see https://example.org", False),
        ("https://example.org/\u202egpj.exe", False),
        ("java\nscript:alert(1)", False),
        ("", False),
    ],
)
def test_only_addresses_of_pages_become_links(reference: str, may_be_a_link: bool) -> None:
    assert linkable(reference) is may_be_a_link


def test_what_happened_and_why_come_before_the_decision_and_the_raw_line_after(
    browser: Browser, store: AlertStore
) -> None:
    put(store, an_alert(0))
    page = browser.get(f"/alerts/{an_alert(0).id}").text
    places = [
        page.index(f"<h2>{title}</h2>") for title in ("What happened", "Why the rule fired", "Decision", "Raw line")
    ]
    assert places == sorted(places)


# The JSON API.


def test_api_refuses_parameters_it_does_not_have(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0))
    answer = browser.get("/api/alerts?hots=x&levle=high&limit=5")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert [fault["where"] for fault in answer.json()["errors"]] == ["query.hots", "query.levle"]
    assert "there are: cursor, host, level, limit" in answer.json()["errors"][0]["message"]
    for path in ("/api/pulse", "/api/hospitals", f"/api/alerts/{an_alert(0).id}", "/api/changes"):
        assert browser.get(f"{path}?foo=bar").json()["errors"][0]["where"] == "query.foo"
        assert browser.get(f"{path}?lang=fr").status_code == 200
    posted = browser.post_json(f"/api/alerts/{an_alert(0).id}/decisions?foo=bar", {"status": "in_progress"})
    assert posted.status_code == 422
    assert store.journal(an_alert(0).id) == []


def test_api_knows_the_words_of_the_page(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0), an_alert(1, rule_id="r1"), an_alert(2), an_alert(3))
    store.decide(an_alert(2).id, Status.IN_PROGRESS, "", "x")
    store.decide(an_alert(3).id, Status.CLOSED, "seen", "x")

    def found(query: str) -> set[int]:
        return {int(item["id"], 16) for item in browser.get(f"/api/alerts?{query}").json()["items"]}

    assert found("rule=r1") == found("rule_id=r1") == found("rule=r1&rule_id=r1") == {1}
    assert found("status=open") == {0, 1, 2}
    assert found("status=all") == found("") == found("status=closed&status=all") == {0, 1, 2, 3}
    assert found("status=open&status=closed") == {0, 1, 2, 3}
    assert found("status=in_progress&status=closed") == {2, 3}
    both = browser.get("/api/alerts?rule=r1&rule_id=r2")
    assert (both.status_code, both.json()["errors"][0]["where"]) == (422, "query.rule")


@pytest.mark.parametrize(
    "path",
    ["/", "/alerts/{id}", "/alerts/none", "/pulse", "/healthz", "/api/alerts", "/api/pulse", "/static/console.js"],
)
def test_head_is_get_without_the_body(browser: Browser, store: AlertStore, path: str) -> None:
    put(store, an_alert(0))
    path = path.format(id=an_alert(0).id)
    got, head = browser.get(path), browser.ask("HEAD", path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    for name in ("content-type", "content-length", "content-security-policy"):
        assert head.headers[name] == got.headers[name]


def test_head_writes_nothing(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0))
    assert browser.ask("HEAD", f"/api/alerts/{an_alert(0).id}/decisions").status_code == 405
    assert browser.ask("HEAD", "/analyst").status_code == 405


def test_api_alerts_filter_and_page(browser: Browser, store: AlertStore) -> None:
    put(store, *(an_alert(number) for number in range(7)), an_alert(50, tenant="ch-morlaix", level=Level.LOW))
    first = browser.get("/api/alerts?limit=5&tenant=chu-brest").json()
    assert first["total"] == 7
    following = {"limit": 5, "tenant": "chu-brest", "cursor": first["next_cursor"]}
    second = browser.get(f"/api/alerts?{urlencode(following)}")
    ids = [int(item["id"], 16) for item in first["items"] + second.json()["items"]]
    assert ids == list(range(7))
    assert second.json()["next_cursor"] is None
    item = first["items"][0]
    assert (item["level"], item["status"], item["timestamp"]) == ("high", "new", "2026-03-09T06:30:00Z")
    assert item["matched"] == {"LogonType": "10", "IpAddress": "203.0.113.9"}
    assert [item["tenant"] for item in browser.get("/api/alerts?level=low").json()["items"]] == ["ch-morlaix"]
    assert browser.get("/api/hospitals").json() == ["ch-morlaix", "chu-brest"]


def test_api_times_without_a_zone_are_utc(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0), an_alert(10))
    for since in ("2026-03-09T06:25:00", "2026-03-09T06:25:00Z", "2026-03-09T07:25:00%2B01:00"):
        assert browser.get(f"/api/alerts?since={since}").json()["total"] == 1
        assert browser.get(f"/api/alerts?until={since}").json()["total"] == 1


def test_api_decide_and_journal(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0))
    path = f"/api/alerts/{an_alert(0).id}"
    answer = browser.post_json(f"{path}/decisions", {"status": "in_progress", "expected": "new"})
    assert answer.status_code == 201
    assert answer.json()["author"] == "analyst"
    late = browser.post_json(f"{path}/decisions", {"status": "true_positive", "expected": "new"})
    assert late.status_code == 409
    assert late.headers["content-type"] == "application/problem+json"
    assert late.json()["title"] == "Somebody was faster"
    bare = browser.post_json(f"{path}/decisions", {"status": "closed", "note": "  "})
    assert (bare.status_code, bare.json()["detail"][:12]) == (422, "Write a note")
    assert browser.post_json(f"{path}/decisions", {"status": "closed", "note": "pentest"}).status_code == 201
    journal = browser.get(f"{path}/journal").json()
    assert [(entry["status"], entry["note"]) for entry in journal] == [("in_progress", ""), ("closed", "pentest")]
    detail = browser.get(path).json()
    assert (detail["status"], detail["last_decision"]["note"]) == ("closed", "pentest")
    assert detail["event"]["EventID"] == "4624"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/alerts/none", 404),
        ("/api/alerts/none/journal", 404),
        ("/api/nothing", 404),
        ("/api/alerts?limit=0", 422),
        ("/api/alerts?limit=501", 422),
        ("/api/alerts?level=terrible", 422),
        ("/api/alerts?since=yesterday", 422),
        ("/api/alerts?cursor=nonsense", 422),
    ],
)
def test_api_problems(browser: Browser, path: str, status: int) -> None:
    answer = browser.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"status": "great"}', b'{"status": "new", "more": 1}', b'{"status": "new", "note": 7}', b"\xff"],
)
def test_api_bodies_that_are_not_decisions(browser: Browser, store: AlertStore, body: bytes) -> None:
    put(store, an_alert(0))
    path = f"/api/alerts/{an_alert(0).id}/decisions"
    answer = browser.ask("POST", path, headers={"content-type": "application/json"}, content=body)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert list(store.journal(an_alert(0).id)) == []


def test_api_deciding_on_no_alert(browser: Browser) -> None:
    assert browser.post_json("/api/alerts/none/decisions", {"status": "true_positive"}).status_code == 404


def test_api_bodies_have_a_limit_however_they_are_sent(browser: Browser, runner: asyncio.Runner) -> None:
    too_long = browser.post_json("/api/alerts/x/decisions", {"status": "new", "note": "n" * 70_000})
    assert (too_long.status_code, too_long.headers["content-type"]) == (413, "application/problem+json")

    async def drip() -> int:
        async def pieces() -> asyncio.StreamReader:  # type: ignore[misc]
            for _ in range(100):
                yield b" " * 1000

        transport = httpx.ASGITransport(browser.app)
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            answer = await client.post(
                "/api/alerts/x/decisions", headers={"content-type": "application/json"}, content=pieces()
            )
            return answer.status_code

    assert runner.run(drip()) == 413, "without Content-Length"


def test_changes_count_new_alerts_and_not_decisions(browser: Browser, store: AlertStore) -> None:
    put(store, an_alert(0), an_alert(1))
    page = browser.get("/").text
    token = re.search(r'data-token="([^"]*)"', page)
    assert token
    assert 'data-ever="2"' in page
    asked = "/api/changes?" + urlencode({"token": token[1]})
    assert browser.get(asked).json() == {"token": token[1], "changed": False, "ever": None}
    store.decide(an_alert(0).id, Status.CLOSED, "seen", "x")
    after = browser.get(asked).json()
    assert (after["changed"], after["ever"]) == (True, 2)
    put(store, an_alert(2))
    assert browser.get(asked).json()["ever"] == 3


def test_openapi_describes_the_api_and_no_cdn_page_is_served(browser: Browser) -> None:
    described = browser.get("/api/openapi.json").json()
    assert set(described["paths"]) == {
        "/api/alerts",
        "/api/alerts/{alert_id}",
        "/api/alerts/{alert_id}/journal",
        "/api/alerts/{alert_id}/decisions",
        "/api/changes",
        "/api/pulse",
        "/api/hospitals",
        "/api/sources",
        "/healthz",
    }
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert browser.get(path).status_code == 404


def test_health(browser: Browser) -> None:
    assert browser.get("/healthz").json() == {"status": "ok"}


def test_health_asks_the_store(browser: Browser, store: AlertStore) -> None:
    store.close()
    answer = browser.get("/healthz")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.json()["detail"] == "The alert store cannot be read; the console's log says why."


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"default_language": "de"}, "default_language"),
        ({"page_size": 0}, "page_size"),
        ({"timezone": "Europe/Brest"}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
        ({"allowed_hosts": ("a.*.b",)}, "allowed_hosts"),
        ({"refresh": timedelta(0)}, "refresh"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(SettingsError, match=f"^{named} "):
        replace(ConsoleSettings(), **changes)  # type: ignore[arg-type]
