"""The Kafka bus on brokers of its own: topics that differ, doors with locks, and an end without a broker."""

from __future__ import annotations

import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from structlog.testing import capture_logs

from hospital_certificates import Registry
from ingest.bus import BusError, Message, Record, Subscription
from ingest.bus_kafka import KafkaBus, KafkaSettings
from ingest.bus_kafka_check import CHECKED, VERDICTS
from ingest.bus_kafka_client import KafkaAdminClient, opened
from ingest.bus_kafka_settings import client_options, topic_limit

if TYPE_CHECKING:
    from deploy.kafka.broker import KafkaBroker

PATIENCE = 30.0
PASSWORD = "correct-horse-7"
WRONG = "battery-staple-9"


@pytest.fixture
def topic() -> str:
    return f"topic-{uuid.uuid4().hex}"


def settings(*servers: str) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=servers, partitions=3, request_timeout=3, delivery_timeout=6, session_timeout=6
    )


def read(subscription: Subscription, count: int) -> list[Record]:
    records: list[Record] = []
    deadline = time.monotonic() + PATIENCE
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
        records += subscription.poll(0.5)
    return records


def admin(broker: KafkaBroker) -> KafkaAdminClient:
    options = client_options(settings(broker.bootstrap_servers))
    return opened(KafkaAdminClient, options)


def create(broker: KafkaBroker, topic: str, partitions: int, **configs: str) -> None:
    with closing(admin(broker)) as it:
        named = {name.replace("_", "."): value for name, value in configs.items()}
        it.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1, "configs": named}})
        it.wait_for_topics([topic])


def topics_of(broker: KafkaBroker) -> set[str]:
    with closing(admin(broker)) as it:
        return set(it.list_topics())


def ensured(bus: KafkaBus, topic: str) -> dict[str, str]:
    """What the check says of a topic: message -> level."""
    with capture_logs() as logs:
        bus.ensure_topics([topic])
    return {entry["event"]: entry["log_level"] for entry in logs if topic in entry["event"]}


# Topics


def test_a_topic_made_here_is_as_it_is_wanted(kafka_broker: KafkaBroker, topic: str) -> None:
    wanted = replace(settings(kafka_broker.bootstrap_servers), retention_days={topic: 2.5})
    with closing(KafkaBus(wanted)) as bus:
        assert ensured(bus, topic) == {}  # made
        assert ensured(bus, topic) == {}  # looked at
        bus._all_time = replace(wanted, retention_days={topic: 2.6})
        [said] = ensured(bus, topic)
        assert "retention.ms is 216000000, wanted 224640000" in said


def test_what_differs_is_said_once_each_and_left(kafka_broker: KafkaBroker, topic: str) -> None:
    create(
        kafka_broker,
        topic,
        2,
        retention_ms="1000000",
        retention_bytes="500000000",
        max_message_bytes="1048588",
        cleanup_policy="compact",
    )
    wanted = replace(
        settings(kafka_broker.bootstrap_servers),
        replication_factor=3,
        retention_days={topic: 1.0},
    )
    with closing(KafkaBus(wanted)) as bus:
        said = ensured(bus, topic)
        assert ensured(bus, topic) == said
    expected = {
        "partitions is 2, wanted 3": "warning",
        "replication factor is 1, wanted 3": "warning",
        "retention.ms is 1000000, wanted 86400000": "warning",
        "retention.bytes is 500000000, wanted -1": "warning",
        f"max.message.bytes is 1048588, wanted {topic_limit(wanted)}": "error",
        "min.insync.replicas is 1, wanted 2": "error",
        "cleanup.policy is compact, wanted delete": "error",
    }
    assert len(said) == len(expected)
    for text, level in expected.items():
        assert [found for message, found in said.items() if text in message] == [level], text


def test_more_than_wanted_is_no_difference(kafka_broker: KafkaBroker, topic: str) -> None:
    create(kafka_broker, topic, 9, retention_ms="-1", max_message_bytes="100000000")
    with closing(KafkaBus(replace(settings(kafka_broker.bootstrap_servers), retention_days={topic: 1.0}))) as bus:
        assert ensured(bus, topic) == {}


def test_all_that_is_checked_has_a_verdict() -> None:
    assert set(VERDICTS) == set(CHECKED)


# A broker with doors: TLS, passwords, and topics that make themselves


@dataclass(frozen=True)
class House:
    broker: KafkaBroker
    certificates: Registry
    other: Registry

    def way(self, door: str) -> KafkaSettings:
        """The settings for a door, without what opens it."""
        return settings(self.broker.door(door))

    def tls(self, door: str, pair: tuple[Path, Path] | None = None) -> KafkaSettings:
        """Those for a door with TLS, with a certificate and key of the client's own or without."""
        certificate, key = pair or ("", "")
        return replace(
            self.way(door),
            security_protocol="SSL",
            ssl_cafile=str(self.certificates.ca),
            ssl_certfile=str(certificate),
            ssl_keyfile=str(key),
        )


@pytest.fixture(scope="module")
def house(kafka_broker: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A broker with a listener of each kind, which would make topics for whoever asks about them."""
    folder = tmp_path_factory.mktemp("house")
    ours, other = Registry.made(folder / "ours"), Registry.made(folder / "other")
    store = folder / "broker.pem"
    store.write_bytes((ours.authority / "server.key").read_bytes() + (ours.authority / "server.pem").read_bytes())
    modules = "org.apache.kafka.common.security"
    properties = {
        "auto.create.topics.enable": "true",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(ours.ca),
        "listener.name.mutual.ssl.client.auth": "required",
    }
    for door in ("login", "safe"):
        properties[f"listener.name.{door}.sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
        plain = f'{modules}.plain.PlainLoginModule required user_ann="{PASSWORD}";'
        properties[f"listener.name.{door}.plain.sasl.jaas.config"] = plain
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            module = f"{modules}.scram.ScramLoginModule required;"
            properties[f"listener.name.{door}.{mechanism}.sasl.jaas.config"] = module
    broker = type(kafka_broker)(
        folder / "broker",
        doors={"TLS": "SSL", "MUTUAL": "SSL", "LOGIN": "SASL_PLAINTEXT", "SAFE": "SASL_SSL"},
        properties=properties,
        scram=[f"SCRAM-SHA-{size}=[name=ann,password={PASSWORD}]" for size in (256, 512)],
        heap="256m",
    )
    broker.start()
    yield House(broker, ours, other)
    broker.kill()


def goes_through(wanted: KafkaSettings, topic: str) -> None:
    """A record goes there and comes back, by every kind of client that the bus uses."""
    with closing(KafkaBus(wanted)) as bus:
        bus.ensure_topics([topic])
        [at] = bus.publish([Message(topic, "k", b"x")])
        with closing(bus.subscribe(f"g-{topic}", [topic])) as member:
            [record] = read(member, 1)
        assert bus.read(record.place, at.offset, at.offset + 1) == [record]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("door", ["LOGIN", "SAFE"])
def test_a_password_opens_the_door(
    house: House, topic: str, mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], door: str
) -> None:
    way = replace(house.way(door), sasl_mechanism=mechanism, username="ann", password=PASSWORD)
    if door == "SAFE":
        way = replace(way, security_protocol="SASL_SSL", ssl_cafile=str(house.certificates.ca))
    else:
        way = replace(way, security_protocol="SASL_PLAINTEXT")
    goes_through(way, topic)


def test_tls_alone_and_with_a_certificate_of_the_clients_own(house: House, topic: str) -> None:
    goes_through(house.tls("TLS"), topic)
    goes_through(house.tls("MUTUAL", house.certificates.issue("worker")), f"{topic}-mutual")


def refused(way: KafkaSettings) -> str:
    """The one error that all uses of the bus end with."""
    texts = set()
    with closing(KafkaBus(replace(way, request_timeout=3))) as bus:
        for act in (
            lambda: bus.publish([Message("t", "k", b"x")]),
            lambda: bus.ensure_topics(["t"]),
            lambda: bus.subscribe("g", ["t"]),
        ):
            with pytest.raises(BusError) as caught:
                act()
            texts.add(str(caught.value).replace("ensure topics", "publish").replace("subscribe", "publish"))
    [text] = texts
    assert "\n" not in text
    for secret in (PASSWORD, WRONG):
        assert secret not in text
        assert secret not in repr(way)
    return text


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_a_wrong_password_is_said_and_not_shown(house: House, mechanism: Literal["PLAIN", "SCRAM-SHA-256"]) -> None:
    way = replace(house.way("LOGIN"), security_protocol="SASL_PLAINTEXT", sasl_mechanism=mechanism)
    text = refused(replace(way, username="ann", password=WRONG))
    assert "no connection" in text
    assert "uthentication" in text


def test_an_unknown_authority_a_missing_certificate_and_a_plain_word_to_tls_are_said(house: House) -> None:
    text = refused(replace(house.tls("TLS"), ssl_cafile=str(house.other.ca)))
    assert "certificate verify failed" in text
    assert "ertificate" in refused(house.tls("MUTUAL"))
    with closing(KafkaBus(replace(house.way("TLS"), request_timeout=1))) as bus, pytest.raises(BusError):
        bus.ensure_topics(["t"])


def test_a_listener_that_never_answers_is_an_error_in_bounded_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        away = replace(settings(f"127.0.0.1:{silent.getsockname()[1]}"), request_timeout=1)
        for way in (away, replace(away, security_protocol="SSL")):
            begin = time.monotonic()
            with closing(KafkaBus(way)) as bus, pytest.raises(BusError):
                bus.ensure_topics(["t"])
            assert time.monotonic() - begin < 10


def test_settings_that_cannot_work_are_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    away = settings("127.0.0.1:1")
    for wrong, reason in (
        (replace(away, security_protocol="SASL_SSL", username="ann"), "sasl_mechanism, password is not set"),
        (replace(away, password=WRONG), "password is set, but security_protocol is PLAINTEXT"),
        (replace(away, ssl_cafile="ca.pem"), "ssl_cafile is set, but security_protocol is PLAINTEXT"),
        (replace(away, security_protocol="SSL", ssl_cafile=str(tmp_path / "ca.pem")), "ssl_cafile: .*No such file"),
        (replace(away, min_insync_replicas=2), "min_insync_replicas is 2, more than replication_factor 1"),
    ):
        with pytest.raises(BusError, match=reason) as caught:
            KafkaBus(wrong)
        assert WRONG not in str(caught.value)


def test_no_topic_makes_itself(house: House, topic: str) -> None:
    """Else a collector that was there before its topics would have raw lines lie on one partition for a week."""
    with closing(KafkaBus(replace(settings(house.broker.bootstrap_servers), request_timeout=1))) as bus:
        with pytest.raises(BusError):
            bus.publish([Message(topic, "k", b"x")])
        with pytest.raises(BusError, match="does not exist"):
            bus.subscribe("g", [topic])
        with pytest.raises(BusError, match="does not exist"):
            bus.ends([topic])
        assert topic not in topics_of(house.broker)
        bus.ensure_topics([topic])
        assert len(bus.ends([topic])) == 3
        bus.publish([Message(topic, "k", b"x")])


# Ending


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_bus_that_is_ending_waits_little_for_a_broker_that_is_away(
    kafka_broker: KafkaBroker, tmp_path: Path, topic: str, how: str
) -> None:
    broker = type(kafka_broker)(tmp_path)
    broker.start()
    bus = KafkaBus(replace(settings(broker.bootstrap_servers), request_timeout=4, delivery_timeout=60))
    try:
        bus.ensure_topics([topic])
        bus.publish([Message(topic, "k", b"x")])
        member = bus.subscribe(f"g-{topic}", [topic])
        records = read(member, 1)
        broker.send_signal(signal.SIGSTOP) if how == "frozen" else broker.kill()
        failed: list[BusError] = []

        def publish() -> None:
            try:
                bus.publish([Message(topic, "k", b"y")])
            except BusError as error:
                failed.append(error)

        under_way = threading.Thread(target=publish)
        under_way.start()
        time.sleep(0.5)
        begin = time.monotonic()
        bus.finish_within(1)
        with pytest.raises(BusError):
            member.commit({record.place: record.offset + 1 for record in records})
        with pytest.raises(BusError):
            bus.publish([Message(topic, "k", b"z")])
        with suppress(BusError):
            member.close()
        with suppress(BusError):
            bus.close()
        under_way.join(PATIENCE)
        assert failed
        assert time.monotonic() - begin < 10
    finally:
        broker.kill()


def test_who_takes_connections_and_drops_them_is_not_asked_without_a_pause(
    kafka_broker: KafkaBroker, tmp_path: Path, topic: str
) -> None:
    broker = type(kafka_broker)(tmp_path)
    broker.start()
    dropped = 0
    with closing(KafkaBus(settings(broker.bootstrap_servers))) as bus:
        bus.ensure_topics([topic])
        bus.publish([Message(topic, "k", b"x")])
        broker.kill()

        def drop() -> None:  # as a proxy does whose broker is away
            nonlocal dropped
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.close()
                    dropped += 1

        host, _, port = broker.bootstrap_servers.rpartition(":")
        with closing(socket.create_server((host, int(port)))) as listener:
            dropping = threading.Thread(target=drop)
            dropping.start()
            with pytest.raises(BusError):
                bus.publish([Message(topic, "k", b"y")])  # tries for six seconds
            listener.shutdown(socket.SHUT_RDWR)
            dropping.join(PATIENCE)
    assert 0 < dropped < 100
