"""Senders that hospitals really have (rsyslog, syslog-ng, logger) against the collector, over loopback.

Each sends some thousand numbered lines with text that framing could trip over; every line must arrive exactly once, as
it was. `deploy/peers/install.sh` installs the senders.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from hospital_certificates import Registry
from ingest.batching import RELP_FIRST, RELP_SESSION
from ingest.bus import TOPIC_RAW, Record
from ingest.bus_embedded import EmbeddedBus
from ingest.collect import Collector
from ingest.hospital import Hospitals
from ingest.listeners import ListenerSettings, ListenerStats, Transport
from ingest.rawbatch import decode_record
from memory_bus import MemoryBus

Require = Callable[[bool, str], None]
Command = Callable[[Path, Path, int], list[str]]
"""(work folder, file with the lines, port) -> a command that sends the lines, and may run on afterwards."""

LINES = 3000
SYSLOG_NG = Path(os.environ.get("TOCSIN_CACHE", str(Path.home() / ".cache" / "tocsin"))) / "syslog-ng" / "syslog-ng"


def numbered_lines(count: int) -> list[bytes]:
    """Unique lines: digits that look like counts, French text, brackets, lengths from short to near 900 bytes."""
    texts = ["12 <13>5 hello", "déroulée : « été » €", 'a="b\\"]" [x@1 y="z"] %s %m', "€" * 280]
    return [f"[#{index:05}] {texts[index % len(texts)]} {'.' * (index % 50)}|".encode() for index in range(count)]


def collect_from(
    command: Command, transport: Transport, folder: Path, lines: list[bytes], registry: Registry | None = None
) -> tuple[list[bytes], ListenerStats]:
    """What arrives from a sender that is given `lines` in a file: the lines from their `[#` on.

    With a registry the listener asks for a certificate, and that of `chu` is what it gets.
    """
    listener = ListenerSettings("peer", transport, "127.0.0.1", 0, "chu")
    if registry is not None:
        listener = registry.listener(transport, name="peer")
    source = folder / "lines.log"
    source.write_bytes(b"\n".join(lines) + b"\n")
    bus = MemoryBus()

    async def scenario() -> ListenerStats:
        collector = Collector(bus, [listener], registry=registry.hospitals if registry is not None else Hospitals)
        await collector.start()

        def seen() -> ListenerStats:
            return collector.stats().listeners["peer"]

        arguments = command(folder, source, collector.addresses["peer"][1])
        with (folder / "sender.txt").open("wb") as output:
            sender = await asyncio.create_subprocess_exec(*arguments, stdout=output, stderr=output, cwd=folder)
        try:
            for _ in range(1500):
                if seen().frames + seen().kernel_dropped >= len(lines):
                    break
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)  # would it send a line twice?
        finally:
            await end(sender)
            await collector.stop()
        return seen()

    stats = asyncio.run(scenario())
    frames = [decode_record(Record(message.topic, 0, 0, message.key, message.value)) for message in bus.messages]
    arrived = [line for frame in frames for line in frame["line"].to_list()]
    assert arrived, f"nothing arrived; the sender said: {(folder / 'sender.txt').read_text(errors='replace')[-2000:]}"
    assert {message.key for message in bus.messages} == {"chu/127.0.0.1"}
    assert {mark for frame in frames for mark in frame["mark"].to_list()} == {None}
    return [line[max(0, line.find(b"[#")) :] for line in arrived], stats


async def end(sender: asyncio.subprocess.Process) -> None:
    """End a sender that may have ended by itself."""
    with suppress(ProcessLookupError):
        sender.terminate()
    try:
        await asyncio.wait_for(sender.wait(), 10)
    except TimeoutError:
        sender.kill()
        await sender.wait()


def assert_all_arrived(arrived: list[bytes], stats: ListenerStats, lines: list[bytes]) -> None:
    """TCP: all, once, in order. UDP: the same, but for what the kernel says it dropped."""
    if stats.transport != "udp":
        assert stats.accepted >= 1
        assert arrived == lines
    else:
        assert len(set(arrived)) == len(arrived) == len(lines) - stats.kernel_dropped
        assert set(arrived) <= set(lines)


def rsyslog(action: str, read: str = "") -> Command:
    def command(folder: Path, source: Path, port: int) -> list[str]:
        configuration = folder / "rsyslog.conf"
        configuration.write_text(
            f'global(workDirectory="{folder}" maxMessageSize="64k")\n'
            'module(load="imfile")\n'
            f'input(type="imfile" File="{source}" Tag="peer:" {read})\n'
            f'action(type="omfwd" Target="127.0.0.1" Port="{port}" {action})\n'
        )
        return ["rsyslogd", "-n", "-f", str(configuration), "-i", str(folder / "rsyslog.pid")]

    return command


def syslog_ng(driver: str, transport: str) -> Command:
    def command(folder: Path, source: Path, port: int) -> list[str]:
        configuration = folder / "syslog-ng.conf"
        configuration.write_text(
            "@version: 3.35\n"
            f'source s {{ file("{source}" follow-freq(0.1) flags(no-parse)); }};\n'
            f'destination d {{ {driver}("127.0.0.1" port({port}) transport("{transport}")); }};\n'
            "log { source(s); destination(d); };\n"
        )
        files = ("--pidfile", "pid", "--control", "ctl", "--persist-file", "persist")
        places = [str(folder / word) if at % 2 else word for at, word in enumerate(files)]
        return [str(SYSLOG_NG), "--foreground", "--no-caps", "--cfgfile", str(configuration), *places]

    return command


def logger(*options: str) -> Command:
    def command(_: Path, source: Path, port: int) -> list[str]:
        place = ["--server", "127.0.0.1", "--port", str(port)]
        return ["logger", *place, "--tag", "peer", *options, "--file", str(source)]

    return command


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """With `chu.pem` and `chu.key`."""
    registry = Registry.made(tmp_path / "registry")
    certificate, key = registry.issue("chu")
    certificate.rename(tmp_path / "chu.pem")
    key.rename(tmp_path / "chu.key")
    return registry


RFC_5424, RFC_3164 = 'template="RSYSLOG_SyslogProtocol23Format"', 'template="RSYSLOG_TraditionalForwardFormat"'


@pytest.mark.parametrize(
    ("transport", "action"),
    [
        ("tcp", f'Protocol="tcp" TCP_Framing="traditional" {RFC_3164}'),
        ("tcp", f'Protocol="tcp" TCP_Framing="traditional" {RFC_5424}'),
        ("tcp", f'Protocol="tcp" TCP_Framing="octet-counted" {RFC_3164}'),
        ("tcp", f'Protocol="tcp" TCP_Framing="octet-counted" {RFC_5424}'),
        ("udp", f'Protocol="udp" {RFC_5424}'),
    ],
    ids=["newline-3164", "newline-5424", "octets-3164", "octets-5424", "udp"],
)
def test_rsyslog(transport: Transport, action: str, tmp_path: Path, require: Require) -> None:
    require(shutil.which("rsyslogd") is not None, "rsyslogd is not installed")
    lines = numbered_lines(LINES)
    arrived, stats = collect_from(rsyslog(action), transport, tmp_path, lines)
    assert_all_arrived(arrived, stats, lines)


def test_rsyslog_with_newlines_inside_octet_counted_messages(tmp_path: Path, require: Require) -> None:
    require(shutil.which("rsyslogd") is not None, "rsyslogd is not installed")
    lines = [b"[#%05d] first\n  12 second\n\tthird|" % index for index in range(500)]
    action = f'Protocol="tcp" TCP_Framing="octet-counted" {RFC_5424}'
    read = 'startmsg.regex="^\\\\[#" escapeLF="off" readTimeout="1"'
    arrived, stats = collect_from(rsyslog(action, read), "tcp", tmp_path, lines)
    assert_all_arrived(arrived, stats, lines)


@pytest.mark.parametrize(
    ("driver", "transport"),
    [("network", "tcp"), ("syslog", "tcp"), ("network", "udp"), ("syslog", "udp")],
    ids=["newline-3164", "octets-5424", "udp-3164", "udp-5424"],
)
def test_syslog_ng(driver: str, transport: Transport, tmp_path: Path, require: Require) -> None:
    require(SYSLOG_NG.exists(), f"syslog-ng is not at {SYSLOG_NG}")
    lines = numbered_lines(LINES)
    arrived, stats = collect_from(syslog_ng(driver, transport), transport, tmp_path, lines)
    assert_all_arrived(arrived, stats, lines)


@pytest.mark.parametrize(
    ("transport", "options"),
    [
        ("tcp", ["--tcp", "--rfc3164"]),
        ("tcp", ["--tcp", "--rfc5424"]),
        ("tcp", ["--tcp", "--octet-count", "--rfc5424"]),
        ("udp", ["--udp", "--rfc5424"]),
    ],
    ids=["newline-3164", "newline-5424", "octets-5424", "udp"],
)
def test_logger(transport: Transport, options: list[str], tmp_path: Path, require: Require) -> None:
    require(shutil.which("logger") is not None, "logger is not installed")
    lines = numbered_lines(LINES)
    arrived, stats = collect_from(logger(*options), transport, tmp_path, lines)
    assert_all_arrived(arrived, stats, lines)


# -- with certificates, and with acknowledgements ------------------------------------------------------------------


def rsyslog_tls(folder: Path, framing: str) -> Command:
    """omfwd over TLS (gtls), with the hospital's certificate; both sides check the other's."""

    def command(work: Path, source: Path, port: int) -> list[str]:
        arguments = rsyslog(
            f'Protocol="tcp" TCP_Framing="{framing}" {RFC_5424} StreamDriver="gtls" StreamDriverMode="1" '
            'StreamDriverAuthMode="x509/name" StreamDriverPermittedPeers="127.0.0.1"'
        )(work, source, port)
        configuration = work / "rsyslog.conf"
        place = "DefaultNetstreamDriver"
        files = f'{place}CAFile="{folder}/registry/authority/ca.pem" '
        files += f'{place}CertFile="{folder}/chu.pem" {place}KeyFile="{folder}/chu.key"'
        configuration.write_text(f"global({files})\n{configuration.read_text()}")
        return arguments

    return command


def rsyslog_relp(more: str = "") -> Command:
    """omrelp."""

    def command(work: Path, source: Path, port: int) -> list[str]:
        configuration = work / "rsyslog.conf"
        configuration.write_text(
            f'global(workDirectory="{work}" maxMessageSize="64k")\n'
            'module(load="imfile")\nmodule(load="omrelp")\n'
            f'input(type="imfile" File="{source}" Tag="peer:")\n'
            f'action(type="omrelp" Target="127.0.0.1" Port="{port}" {RFC_5424} {more}\n'
            '       action.resumeRetryCount="-1" action.resumeInterval="1")\n'
        )
        return ["rsyslogd", "-n", "-f", str(configuration), "-i", str(work / "rsyslog.pid")]

    return command


@pytest.mark.parametrize("framing", ["octet-counted", "traditional"])
def test_rsyslog_over_tls(framing: str, tmp_path: Path, registry: Registry, require: Require) -> None:
    require(shutil.which("rsyslogd") is not None, "rsyslogd is not installed")
    lines = numbered_lines(LINES)
    arrived, stats = collect_from(rsyslog_tls(tmp_path, framing), "tls", tmp_path, lines, registry)
    assert_all_arrived(arrived, stats, lines)


def test_rsyslog_over_relp(tmp_path: Path, require: Require) -> None:
    require(shutil.which("rsyslogd") is not None, "rsyslogd is not installed")
    lines = numbered_lines(LINES)
    arrived, stats = collect_from(rsyslog_relp(), "relp", tmp_path, lines)
    assert_all_arrived(arrived, stats, lines)
    assert (stats.sessions, dict(stats.faults), stats.unacknowledged) == (1, {}, 0)


def test_rsyslog_over_relp_and_tls(tmp_path: Path, registry: Registry, require: Require) -> None:
    require(shutil.which("rsyslogd") is not None, "rsyslogd is not installed")
    lines = numbered_lines(LINES)
    files = f'tls.caCert="{registry.ca}" tls.myCert="{tmp_path / "chu.pem"}" tls.myPrivKey="{tmp_path / "chu.key"}"'
    command = rsyslog_relp(f'tls="on" tls.authMode="certvalid" {files}')
    arrived, stats = collect_from(command, "relp-tls", tmp_path, lines, registry)
    assert_all_arrived(arrived, stats, lines)
    assert (stats.sessions, dict(stats.faults), stats.unacknowledged) == (1, {}, 0)


@pytest.mark.parametrize("driver", ["network", "syslog"])
def test_syslog_ng_over_tls(driver: str, tmp_path: Path, registry: Registry, require: Require) -> None:
    require(SYSLOG_NG.exists(), f"syslog-ng is not at {SYSLOG_NG}")
    lines = numbered_lines(LINES)

    def command(work: Path, source: Path, port: int) -> list[str]:
        arguments = syslog_ng(driver, "tls")(work, source, port)
        configuration = work / "syslog-ng.conf"
        files = f'ca-file("{registry.ca}") cert-file("{tmp_path / "chu.pem"}") key-file("{tmp_path / "chu.key"}")'
        text = configuration.read_text()
        configuration.write_text(text.replace('transport("tls")', f'transport("tls") tls({files})'))
        return arguments

    arrived, stats = collect_from(command, "tls", tmp_path, lines, registry)
    assert_all_arrived(arrived, stats, lines)


COLLECT = """
import asyncio, sys
from pathlib import Path
from ingest.bus import TOPIC_RAW
from ingest.bus_embedded import EmbeddedBus
from ingest.bus_embedded import EmbeddedBus
from ingest.collect import Collector
from ingest.listeners import ListenerSettings

bus = EmbeddedBus(Path(sys.argv[1]))
bus.ensure_topics([TOPIC_RAW])

async def collect():
    collector = Collector(bus, [ListenerSettings("peer", "relp", "127.0.0.1", int(sys.argv[2]), "chu")])
    await collector.start()
    print("ready", flush=True)
    await collector.run()

asyncio.run(collect())
"""


def test_relp_loses_nothing_when_the_collector_is_killed(tmp_path: Path, require: Require) -> None:
    """The collector is killed again and again in the middle of the transfer; every line is on the bus in the end.

    Lines that were on the bus but not answered are there twice, in the first batch of the next session: it says so.
    """
    require(shutil.which("rsyslogd") is not None, "rsyslogd is not installed")
    lines = numbered_lines(40_000)
    source, path = tmp_path / "lines.log", tmp_path / "bus.sqlite"
    source.write_bytes(b"\n".join(lines) + b"\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])

    async def collector() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            COLLECT,
            str(path),
            str(port),
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        assert process.stdout is not None
        while b"ready" not in await process.stdout.readline():
            pass
        return process

    def stored(bus: EmbeddedBus) -> int:
        return sum(bus.ends([TOPIC_RAW]).values())

    async def scenario(bus: EmbeddedBus) -> int:
        kills, process = 0, await collector()
        arguments = rsyslog_relp('windowSize="2048"')(tmp_path, source, port)
        sender = await asyncio.create_subprocess_exec(*arguments, cwd=tmp_path)
        try:
            for _ in range(3):
                before = stored(bus)
                while stored(bus) <= before:  # noqa: ASYNC110 - the bus is another process's
                    await asyncio.sleep(0.002)
                process.kill()
                await process.wait()
                kills += 1
                process = await collector()
            before, quiet = -1, 0
            while quiet < 30:  # three seconds without a new record, longer than rsyslog's pause before it tries again
                quiet = quiet + 1 if stored(bus) == before else 0
                before = stored(bus)
                await asyncio.sleep(0.1)
        finally:
            await end(sender)
            await end(process)
        return kills

    bus = EmbeddedBus(path)
    bus.ensure_topics([TOPIC_RAW])
    kills = asyncio.run(scenario(bus))
    records = [record for place, stop in bus.ends([TOPIC_RAW]).items() for record in bus.read(place, 0, stop)]
    bus.close()
    sessions = {record.headers[RELP_SESSION] for record in records}
    assert kills == 3
    assert len(sessions) >= 4
    assert len({session.partition(":")[0] for session in sessions}) == 4  # one of each collector
    seen: set[bytes] = set()
    for record in records:
        arrived = {line[line.find(b"[#") :] for line in decode_record(record)["line"].to_list()}
        assert record.headers.get(RELP_FIRST) == "1" or not (arrived & seen), "sent again, but not first in a session"
        seen |= arrived
    assert seen == set(lines)
