"""Real senders deliver to the collector with the files of a bundle as they are."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hospital_desk import SYSLOG_NG, Desk, Require, make_desk, unpack
from ingest.authority import authority_folder
from ingest.bus import TOPIC_RAW
from ingest.bus_embedded import EmbeddedBus
from ingest.collect import Collector, CollectorStats
from ingest.hospital import Hospitals
from ingest.listeners import ListenerSettings, Transport
from ingest.receipts import ReceiptSettings
from ingest.registry import RegistryWatch, read_registry

LINES = 2000


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return make_desk(tmp_path, monkeypatch)


@pytest.fixture
def enrolled(desk: Desk) -> Desk:
    """With an authority and a hospital."""
    return desk.enrol()


class Centre:
    """A collector that runs on a thread, with the registry of a desk."""

    def __init__(self, desk: Desk) -> None:
        authority = authority_folder(desk.registry)
        encrypted: tuple[Transport, ...] = ("tls", "relp-tls")
        plain: tuple[Transport, ...] = ("tcp", "relp", "udp")
        listeners = [
            ListenerSettings(
                name,
                name,
                "127.0.0.1",
                0,
                "",
                certificate=authority / "server.pem",
                key=authority / "server.key",
                client_ca=authority / "ca.pem",
            )
            for name in encrypted
        ]
        listeners += [ListenerSettings(name, name, "127.0.0.1", 0, "ch-de-kermor") for name in plain]
        watch = RegistryWatch(desk.registry, 0)

        def hospitals() -> Hospitals:
            watch.look(time.monotonic())
            return watch.current

        self.bus = EmbeddedBus(desk.folder / "bus.sqlite")
        self.bus.ensure_topics([TOPIC_RAW])
        receipts = ReceiptSettings(
            "127.0.0.1", 0, authority / "server.pem", authority / "server.key", authority / "ca.pem"
        )
        self.collector = Collector(self.bus, listeners, registry=hospitals, receipts=receipts)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self.collector.start(), self.loop).result(20)

    def port(self, transport: str) -> int:
        if transport == "receipts":
            assert self.collector.receipts is not None
            return self.collector.receipts.address[1]
        return self.collector.addresses[transport][1]

    def stats(self) -> CollectorStats:
        async def ask() -> CollectorStats:
            return self.collector.stats()

        return asyncio.run_coroutine_threadsafe(ask(), self.loop).result(20)

    def wait(self, transport: str, lines: int, seconds: float = 20) -> int:
        """Lines of a transport that are durable, once there are as many as wanted."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.stats()
            if found.listeners[transport].frames >= lines and found.lines >= lines:
                break
            time.sleep(0.05)
        return self.stats().listeners[transport].frames

    def wait_for_registry(self, hospitals: Hospitals) -> None:
        end = time.monotonic() + 20
        while self.collector.hospitals != hospitals and time.monotonic() < end:
            time.sleep(0.05)
        assert self.collector.hospitals == hospitals

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.collector.stop(), self.loop).result(20)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(20)
        self.loop.close()
        self.bus.close()


@pytest.fixture
def centre(enrolled: Desk) -> Iterator[Centre]:
    centre = Centre(enrolled)
    yield centre
    centre.stop()


def bundle_for(desk: Desk, centre: Centre, *arguments: str) -> Path:
    """A bundle whose configuration finds its certificate where it was unpacked, and which the collector knows of."""
    config = desk.folder / "centre.toml"
    ports = {name: centre.port(name) for name in ("tcp", "relp", "udp")}
    config.write_text(
        "".join(
            f'[[collect.listeners]]\nname = "{name}"\ntransport = "{name}"\nhospital = "ch-de-kermor"\nport = {port}\n'
            for name, port in ports.items()
        )
    )
    folder = unpack(
        desk,
        *("--tls-port", str(centre.port("tls")), "--relp-port", str(centre.port("relp-tls"))),
        *("--receipts-port", str(centre.port("receipts"))),
        *("--folder", str(desk.folder / "b" / "tocsin-ch-de-kermor" / "tls"), "--config", str(config)),
        *arguments,
    )
    centre.wait_for_registry(read_registry(desk.registry))
    return folder


def lines_file(folder: Path) -> Path:
    path = folder / "lines.log"
    path.write_text("".join(f"[#{number:05}] été {'.' * (number % 90)}|\n" for number in range(LINES)), "utf-8")
    return path


@contextlib.contextmanager
def sending(desk: Desk, command: list[str | Path]) -> Iterator[Path]:
    """A sender that runs; what it says is in the file."""
    log = desk.folder / f"{Path(command[0]).name}.txt"
    with log.open("wb") as output:
        sender = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield log
        finally:
            sender.terminate()
            sender.wait(20)


def rsyslog(desk: Desk, folder: Path, transport: str) -> list[str | Path]:
    """rsyslogd with a file of the bundle, as it is, beside an input."""
    configuration = desk.folder / "r.conf"
    configuration.write_text(
        f'global(workDirectory="{desk.folder}")\nmodule(load="imfile")\n'
        f'input(type="imfile" File="{lines_file(desk.folder)}" Tag="peer:")\n'
        f'include(file="{folder / "rsyslog"}/60-tocsin-{transport}.conf")\n'
    )
    return ["rsyslogd", "-n", "-f", configuration, "-i", desk.folder / "r.pid"]


def syslog_ng(desk: Desk, folder: Path) -> list[str | Path]:
    """syslog-ng with the file of the bundle, as it is but for the folder of its buffer, beside a source."""
    text = (folder / "syslog-ng" / "tocsin.conf").read_text()
    assert 'dir("/var/lib/syslog-ng")' in text
    configuration = desk.folder / "s.conf"
    configuration.write_text(
        f'@version: 3.35\nsource s_src {{ file("{lines_file(desk.folder)}" follow-freq(0.1) flags(no-parse)); }};\n'
        + text.replace("/var/lib/syslog-ng", str(desk.folder))
    )
    places = {"--pidfile": "pid", "--control": "ctl", "--persist-file": "persist"}
    arguments = [part for flag, name in places.items() for part in (flag, desk.folder / name)]
    return [SYSLOG_NG, "--foreground", "--no-caps", "--cfgfile", configuration, *arguments]


@pytest.mark.parametrize(
    ("transport", "host"),
    [
        *((transport, "localhost") for transport in ("relp-tls", "tls", "relp", "tcp", "udp")),
        ("relp-tls", "127.0.0.1"),
        ("tls", "127.0.0.1"),
    ],
)
def test_rsyslog_delivers_with_the_file_of_the_bundle(
    enrolled: Desk, centre: Centre, transport: str, host: str, require: Require
) -> None:
    require(shutil.which("rsyslogd") is not None, "rsyslogd is not installed")
    folder = bundle_for(enrolled, centre, "--collector", host)
    with sending(enrolled, rsyslog(enrolled, folder, transport)) as log:
        arrived = centre.wait(transport, LINES)
    stats = centre.stats()
    assert arrived + (stats.listeners["udp"].kernel_dropped if transport == "udp" else 0) == LINES, log.read_text()
    assert {hospital for hospital, _ in stats.peers} == {"ch-de-kermor"}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_syslog_ng_delivers_with_the_file_of_the_bundle(
    enrolled: Desk, centre: Centre, host: str, require: Require
) -> None:
    require(SYSLOG_NG.exists(), f"syslog-ng is not at {SYSLOG_NG}")
    folder = bundle_for(enrolled, centre, "--collector", host)
    with sending(enrolled, syslog_ng(enrolled, folder)) as log:
        arrived = centre.wait("tls", LINES)
    assert arrived == LINES, log.read_text()
    assert {hospital for hospital, _ in centre.stats().peers} == {"ch-de-kermor"}


@pytest.mark.parametrize("sender", ["rsyslog relp-tls", "rsyslog tls", "syslog-ng tls"])
def test_senders_tell_nothing_to_a_collector_of_another_name(
    enrolled: Desk, centre: Centre, sender: str, require: Require
) -> None:
    """Our authority signed that server as well, but the bundle names another: a stolen server key is not enough."""
    program, _, transport = sender.partition(" ")
    require(SYSLOG_NG.exists() and shutil.which("rsyslogd") is not None, "rsyslogd or syslog-ng is not installed")
    folder = bundle_for(enrolled, centre)
    enrolled.run("authority", "server", "--host", "other.example.org")
    time.sleep(1.2)  # after which a collector takes up a new certificate
    command = rsyslog(enrolled, folder, transport) if program == "rsyslog" else syslog_ng(enrolled, folder)
    with sending(enrolled, command) as log:
        centre.wait(transport, LINES, seconds=1.5)
        stats = centre.stats().listeners[transport]
    assert stats.frames == 0
    assert stats.accepted + stats.refused > 0, f"it never tried: {log.read_text()}"


@pytest.mark.parametrize(("language", "words"), [((), "reçu, compris"), (("en",), "received, understood")])
def test_the_test_in_two_lines(
    enrolled: Desk, centre: Centre, language: tuple[str, ...], words: str, require: Require
) -> None:
    require(
        shutil.which("openssl") is not None and shutil.which("curl") is not None, "openssl or curl is not installed"
    )
    test = bundle_for(enrolled, centre) / "test.sh"
    tested = subprocess.run([test, *language], capture_output=True, text=True, timeout=30, check=False)
    assert tested.returncode == 0, tested.stderr
    assert tested.stdout.endswith(f"\n{words}\n")
    assert centre.wait("tls", 1) == 1
    assert {hospital for hospital, _ in centre.stats().peers} == {"ch-de-kermor"}
    if language:
        return
    enrolled.run("hospital", "revoke", "ch-de-kermor")
    centre.wait_for_registry(read_registry(enrolled.registry))
    tested = subprocess.run([test], capture_output=True, text=True, timeout=30, check=False)
    assert tested.returncode != 0
    assert "compris" not in tested.stdout
    assert "=> Le centre refuse ce certificat" in tested.stderr
    assert centre.stats().listeners["tls"].frames == 1


def test_the_test_takes_no_older_line_for_its_own(enrolled: Desk, centre: Centre, require: Require) -> None:
    """A line that came before must not vouch for one that went to the wrong port."""
    require(
        shutil.which("openssl") is not None and shutil.which("curl") is not None, "openssl or curl is not installed"
    )
    test = bundle_for(enrolled, centre) / "test.sh"
    good = subprocess.run([test, "en"], capture_output=True, text=True, timeout=30, check=False)
    assert good.returncode == 0, good.stderr
    text, tls, relp = test.read_text(), centre.port("tls"), centre.port("relp-tls")
    assert f":{tls} " in text
    for port, words in (
        (relp, "=> This answer does not show the line of this test"),
        (1, "does not answer: a firewall"),
    ):
        test.write_text(text.replace(f":{tls} ", f":{port} "))
        tested = subprocess.run([test, "en"], capture_output=True, text=True, timeout=40, check=False)
        assert tested.returncode == 1
        assert words in tested.stderr, tested.stderr
    test.write_text(text.replace("-verify_hostname localhost", "-verify_hostname elsewhere.example"))
    tested = subprocess.run([test, "en"], capture_output=True, text=True, timeout=40, check=False)
    assert (tested.returncode, "=> The centre is not recognised" in tested.stderr) == (1, True)


def test_a_revoked_certificate_is_refused_by_a_running_collector(enrolled: Desk, centre: Centre) -> None:
    folder = bundle_for(enrolled, centre)
    context = ssl.create_default_context(cafile=folder / "tls" / "ca.pem")
    context.load_cert_chain(folder / "tls" / "client.pem", folder / "tls" / "client.key")

    def send(line: bytes) -> None:
        with (
            socket.create_connection(("127.0.0.1", centre.port("tls")), 10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as channel,
            contextlib.suppress(ConnectionError, ssl.SSLError),
        ):
            channel.sendall(line)
            channel.unwrap()

    send(b"<13>1 - - - - - - good\n")
    assert centre.wait("tls", 1) == 1
    enrolled.run("hospital", "revoke", "ch-de-kermor")
    centre.wait_for_registry(read_registry(enrolled.registry))
    send(b"<13>1 - - - - - - refused\n")
    end = time.monotonic() + 10
    while not centre.stats().listeners["tls"].refused and time.monotonic() < end:
        time.sleep(0.05)
    assert dict(centre.stats().listeners["tls"].refusals) == {"certificate revoked": 1}
    assert centre.stats().listeners["tls"].frames == 1
