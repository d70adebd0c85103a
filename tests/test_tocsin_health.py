"""The health endpoints of real processes: what they say, what they keep to themselves, and whom they do not serve."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ingest.authority import create_authority, issue_server
from ingest.bus import BusError
from storage.errors import LakeError
from tocsin import vitals as vital_signs
from tocsin.chores import EXPIRY_WAITS, Chore, note_chore
from tocsin.health import MAX_CONNECTIONS, HealthServer, serve_health
from tocsin.processes import Role, Running, running
from tocsin.settings import Settings, SettingsError, load_settings
from tocsin.vitals import Vitals

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"

RULE = """
title: Shell Started
id: 4d3e8f6e-9a58-4bb1-8b0a-5a4a4f3f5b10
status: test
description: Somebody started a shell.
level: high
logsource: {product: linux}
detection:
    selection: ['started a shell']
    condition: selection
"""
LINE = b"<86>1 2026-11-23T10:00:00Z bastion sshd 7 - - root started a shell\n"

LISTENERS = """[
    {name="tcp", hospital="CH A", port=0, allow=["127.0.0.1"]},
    {name="udp", hospital="CH \\"B\\"", port=0, transport="udp"},
    {name="tls", port=0, transport="tls"},
    {name="shut", hospital="CH A", port=0, allow=["192.0.2.0/24"]},
]"""


def make(folder: Path, **more: str) -> Settings:
    rules = folder / "rules"
    rules.mkdir(exist_ok=True)
    (rules / "shell.yml").write_text(RULE)
    flags = {
        "data_dir": str(folder / "data"),
        "rules": f'["{rules}"]',
        "console.port": "0",
        "health.enabled": "true",
        "health.port": "0",
        "detect.flush_seconds": "0.1",
        "collect.listeners": LISTENERS.replace("\n", ""),
    }
    return load_settings(None, {}, [*flags.items(), *more.items()])


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ask(url: str | None, path: str, method: str = "GET", **headers: str) -> tuple[int, str, http.client.HTTPMessage]:
    assert url is not None
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def reasons(url: str | None, path: str = "/readyz") -> tuple[int, dict[str, str]]:
    status, body, _ = ask(url, path)
    report = json.loads(body)
    assert report["ok"] == (status == 200)
    return status, {found["part"]: found["reason"] for found in report["reasons"]}


Sample = tuple[str, dict[str, str], float]


def samples(text: str) -> list[Sample]:
    return [
        (sample.name, dict(sample.labels), float(sample.value))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def value(found: list[Sample], name: str, **labels: str) -> float:
    return next(number for seen, told, number in found if seen == name and told == labels)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, list[Sample], str]]:
    """`tocsin run` after a few lines by TCP and UDP, a refused connection, and chores done; what it exports."""
    folder = tmp_path_factory.mktemp("health")
    settings = make(folder)
    authority = settings.registry_path / "authority"
    create_authority(authority, "Test", datetime.now(UTC))
    issue_server(authority, ["localhost"], datetime.now(UTC))
    for chore in Chore:
        note_chore(settings.data_dir, chore, ok=True, figures={"files": 12, "bytes": 3400, EXPIRY_WAITS: 1})
    with running(settings) as here, socket.create_connection(here.listeners["tcp"]) as sender:
        sender.sendall(LINE * 3)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.sendto(b"no format reads this", here.listeners["udp"])
        with socket.create_connection(here.listeners["shut"]) as unwanted:
            assert unwanted.recv(1) == b""
        wait_for(lambda: here.tally.received == 4 and here.tally.levels == {"high": 3})
        wait_for(lambda: reasons(here.health_url)[0] == 200)
        wait_for(lambda: "address not allowed" in str(here.vitals.collector))
        status, text, headers = ask(here.health_url, "/metrics")
        assert status == 200
        assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        yield here, samples(text), text


def test_metrics_count_what_passed(everything: tuple[Running, list[Sample], str]) -> None:
    _, found, _ = everything
    assert value(found, "tocsin_lines_received_total", hospital="CH A", listener="tcp") == 3
    assert value(found, "tocsin_lines_received_total", hospital='CH "B"', listener="udp") == 1
    assert value(found, "tocsin_lines_stored_total", hospital="CH A") == 3
    assert value(found, "tocsin_lines_understood_total", hospital='CH "B"') == 0
    assert value(found, "tocsin_alerts_total", level="high") == 3
    assert value(found, "tocsin_matches_total") == 3
    assert value(found, "tocsin_listener_connections", listener="tcp") == 1
    assert value(found, "tocsin_listener_refused_total", listener="shut", reason="address not allowed") == 1
    assert value(found, "tocsin_lake_flush_rows_sum") == 4
    assert value(found, "tocsin_rules_running") == 1
    assert value(found, "tocsin_lake_files") == 12
    assert value(found, "tocsin_lake_expiry_waiting") == 1
    assert abs(value(found, "tocsin_hospital_last_line_timestamp_seconds", hospital="CH A") - time.time()) < 120
    assert value(found, "tocsin_certificate_not_after_timestamp_seconds", certificate="tls") > time.time() + 86400
    assert value(found, "tocsin_bus_published_records_total", topic="tocsin.raw") == 2
    assert value(found, "tocsin_bus_read_records_total", topic="tocsin.alerts") == 3


def test_latency_is_counted_once_an_alert_and_in_its_bucket(everything: tuple[Running, list[Sample], str]) -> None:
    _, found, _ = everything
    assert value(found, "tocsin_alert_latency_seconds_count", kind="rule") == 3
    assert value(found, "tocsin_alert_latency_seconds_bucket", kind="rule", le="60.0") == 3
    assert value(found, "tocsin_alert_latency_seconds_bucket", kind="rule", le="0.1") <= 3
    assert 0 < value(found, "tocsin_alert_latency_seconds_sum", kind="rule") < 60
    assert value(found, "tocsin_alert_latency_seconds_count", kind="correlation") == 0


def test_names_carry_units_and_counters_end_in_total(everything: tuple[Running, list[Sample], str]) -> None:
    text = everything[2]
    for family in text_string_to_metric_families(text):
        assert family.documentation
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples), family.name
        elif family.name.startswith("tocsin_"):
            assert not family.name.endswith("_total"), family.name


NAMES = re.compile(r"\b(tocsin_[a-z0-9_]+|process_[a-z0-9_]+)")


def queries() -> dict[str, str]:
    """Where a query stands -> the query, of the dashboard and the alert rules."""
    dashboard = json.loads((DEPLOY / "grafana" / "tocsin.json").read_text())
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    }
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]:
        found |= {rule["alert"]: rule["expr"] for rule in group["rules"]}
    return found


def test_what_dashboard_and_alert_rules_ask_for_is_exported(everything: tuple[Running, list[Sample], str]) -> None:
    exported = {name for name, _, _ in everything[1]}
    asked = {(where, name) for where, query in queries().items() for name in NAMES.findall(query)}
    assert len(asked) > 80
    assert {(where, name) for where, name in asked if name not in exported} == set()


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "tocsin.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    rows = {panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"}
    assert rows == {"Health", "Intake", "Detection", "Bus", "Lake", "Alerts"}
    assert [variable["type"] for variable in dashboard["templating"]["list"]] == ["datasource", "query"]
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"


def test_alert_rules_are_such_and_promtool_takes_them() -> None:
    loaded = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    rules = [rule for group in loaded["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 20
    for rule in rules:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "tocsin.yml").read_text())
    assert scrape["rule_files"] == ["alerts.yml"]
    assert scrape["scrape_configs"][0]["job_name"] == "tocsin"
    promtool = shutil.which("promtool")
    if promtool is not None:
        done = subprocess.run(
            [promtool, "check", "config", str(DEPLOY / "prometheus" / "tocsin.yml")], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_status_tells_the_whole_state(everything: tuple[Running, list[Sample], str]) -> None:
    here = everything[0]
    status, body, _ = ask(here.health_url, "/status")
    told = json.loads(body)
    assert status == 200
    assert (told["role"], told["alive"], told["ready"], told["reasons"]) == ("run", True, True, [])
    assert {stage["name"] for stage in told["stages"]} >= {"collect", "detect", "correlate", "store", "sources"}
    assert {seen["hospital"]: seen["lines"] for seen in told["hospitals"]} == {"CH A": 3, 'CH "B"': 1}
    assert {seen["name"]: seen["refused"] for seen in told["listeners"]}["shut"] == 1
    assert (told["alerts"]["waiting"], told["alerts"]["total"]) == (3, 3)
    assert told["bus"]["kind"] == "embedded"
    assert told["spool"]["full"] is False


def test_a_console_says_nothing_of_rules_that_run(tmp_path: Path) -> None:
    """It only shows them: "0 rules run" would look alarming."""
    with running(make(tmp_path, **{"collect.listeners": "[]"}), frozenset({Role.CONSOLE})) as here:
        assert json.loads(ask(here.health_url, "/status")[1])["rules"] is None
        assert "tocsin_rules_" not in ask(here.health_url, "/metrics")[1]


def test_only_the_four_pages_are_served_and_not_to_pages_in_a_browser(
    everything: tuple[Running, list[Sample], str],
) -> None:
    url = everything[0].health_url
    assert ask(url, "/")[0] == 404
    assert ask(url, "/metrics/../status")[0] == 404
    assert ask(url, "/healthz", "POST")[0] == 405
    assert ask(url, "/metrics", **{"Sec-Fetch-Site": "same-origin"})[0] == 403
    assert ask(url, "/healthz", **{"Sec-Fetch-Site": "none"})[0] == 200
    status, body, headers = ask(url, "/status", "HEAD")
    assert (status, body, headers["X-Content-Type-Options"]) == (200, "", "nosniff")


def test_who_speaks_slowly_or_nonsense_or_in_crowds_stops_nobody(
    everything: tuple[Running, list[Sample], str],
) -> None:
    url = everything[0].health_url
    assert url is not None
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as nonsense:
        nonsense.sendall(b"\x16\x03\x01" + b"A" * 40_000)
        nonsense.settimeout(10)
        assert _to_the_end(nonsense) == b""
    crowd = [socket.create_connection((host, int(port))) for _ in range(MAX_CONNECTIONS + 4)]
    try:
        for one in crowd:
            one.sendall(b"GET /healthz HTTP/1.1\r\n")  # and never the rest
        wait_for(lambda: _answers(url), 15)  # once those who are too slow are shown out
    finally:
        for one in crowd:
            one.close()


def _to_the_end(connection: socket.socket) -> bytes:
    """What comes until the other side closes or resets."""
    found = b""
    try:
        while data := connection.recv(4096):
            found += data
    except ConnectionError:
        pass
    return found


def _answers(url: str) -> bool:
    try:
        return ask(url, "/healthz")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_a_stage_that_hangs_is_named_while_the_others_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    monkeypatch.setattr(vital_signs, "STUCK_SECONDS", 1.5)
    monkeypatch.setattr("tocsin.stages.StoreStage.step", lambda *_: let_go.wait(30) and 0)
    settings = make(tmp_path, **{"collect.listeners": '[{name="a", hospital="CH A", port=0}]'})
    with running(settings) as here:
        here.vitals.stepped("store")  # it began well
        try:
            wait_for(lambda: reasons(here.health_url, "/healthz")[0] == 503)
            assert list(reasons(here.health_url, "/healthz")[1]) == ["store"]
            found = samples(ask(here.health_url, "/metrics")[1])
            assert value(found, "tocsin_stage_stuck", stage="store") == 1
            assert value(found, "tocsin_stage_stuck", stage="detect") == 0
            assert value(found, "tocsin_alive") == 0
        finally:
            let_go.set()


def test_a_stage_that_fails_is_alive_and_not_ready_and_its_reason_holds_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise LakeError("lake: the store said \x1b[31mno to key=AKIA-SECRET" + "x" * 500)

    settings = make(
        tmp_path,
        **{"collect.listeners": '[{name="a", hospital="CH A", port=0}]', "lake.s3.secret_key": "AKIA-SECRET"},
    )
    monkeypatch.setattr("tocsin.stages.DetectStage.step", fail)
    with running(settings) as here:
        wait_for(lambda: "detect" in reasons(here.health_url)[1] and "store" in reasons(here.health_url)[1]["detect"])
        status, found = reasons(here.health_url)
        assert status == 503
        assert found["detect"].startswith("lake: the store said \\x1b[31mno to key=***")
        assert len(found["detect"]) <= 300
        assert reasons(here.health_url, "/healthz") == (200, {})
        assert "AKIA-SECRET" not in ask(here.health_url, "/status")[1]
        assert value(samples(ask(here.health_url, "/metrics")[1]), "tocsin_stage_failures_total", stage="detect") >= 1


def test_a_collector_that_can_keep_lines_is_ready_without_a_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise BusError("bus: away")

    monkeypatch.setattr("ingest.bus_embedded.EmbeddedBus.publish", away)
    settings = make(tmp_path, **{"collect.listeners": '[{name="a", hospital="CH A", port=0}]'})
    with running(settings, frozenset({Role.COLLECT})) as here:
        assert reasons(here.health_url) == (200, {})
        with socket.create_connection(here.listeners["a"]) as sender:
            sender.sendall(LINE)
        wait_for(lambda: value(samples(ask(here.health_url, "/metrics")[1]), "tocsin_spool_records") == 1)
        assert reasons(here.health_url) == (200, {})
        told = json.loads(ask(here.health_url, "/status")[1])
        assert told["spool"]["records"] == 1
        assert told["role"] == "collect"


def test_a_port_in_use_is_one_line_that_names_the_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = make(tmp_path, **{"health.port": str(taken.getsockname()[1])})
        with pytest.raises(SettingsError, match=r"^health\.port: cannot listen on 127"), running(settings):
            pytest.fail("it started")


def test_without_health_nothing_listens(tmp_path: Path) -> None:
    with serve_health(make(tmp_path, **{"health.enabled": "false"}), Vitals("run")) as server:
        assert server is None


def test_hospitals_beyond_the_bound_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin.metrics.MAX_HOSPITALS", 2)
    vitals = Vitals("collect")
    vitals.channels = {(f"CH {number}\n", "a"): 10 + number for number in range(5)}
    with serve_health(make(tmp_path), vitals) as server:
        url = cast("HealthServer", server).url
        found = samples(ask(url, "/metrics")[1])
        assert value(found, "tocsin_lines_received_total", hospital="CH 0\\x0a", listener="a") == 10
        assert value(found, "tocsin_lines_received_total", hospital="other", listener="a") == 12 + 13 + 14
        assert samples(ask(url, "/metrics")[1])  # the same hospitals as before are told one by one
        assert reasons(url)[1] == {"process": "it is starting"}
