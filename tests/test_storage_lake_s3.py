from __future__ import annotations

import hashlib
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Thread
from typing import TYPE_CHECKING
from urllib.parse import unquote

import orjson
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from test_storage_lake import (
    NEW_YEAR,
    PROCESS,
    REPOSITORY,
    SSHD,
    TOPIC,
    Worker,
    events,
    expected_ids,
    fields_of,
    frame,
    ids,
    store,
)

from ingest.bus import Partition, Position
from storage import lake_table
from storage.errors import LakeError
from storage.lake import Lake
from storage.lake_columns import FIXED_COLUMNS
from storage.lake_files import HASHES
from storage.lake_place import LakePlace, LocalPlace
from storage.lake_s3 import PROOF, S3Place, found_key
from storage.lake_table import LakeTable, first_version
from storage.s3_requests import S3Bucket, S3Key, send, signature

if TYPE_CHECKING:
    from deploy.s3.store import S3Store

TRIAL = S3Key("tocsin-trial", "not-a-secret")  # of deploy/s3/store.py
TABLE = "events/windows.process_creation.sysmon"


def place_in(store_: S3Store, prefix: str = "", key: S3Key = TRIAL, bucket: str = "tocsin") -> S3Place:
    return S3Place(f"s3://{bucket}/{prefix or uuid.uuid4()}", endpoint=store_.endpoint, region="", key=key)


@pytest.fixture
def place(s3: S3Store) -> S3Place:
    return place_in(s3)


@pytest.fixture
def lake(place: S3Place) -> Lake:
    return Lake(place)


@pytest.fixture(params=["local", "s3"])
def any_place(request: pytest.FixtureRequest, tmp_path: Path) -> LakePlace:
    """What is promised of a place, of both kinds."""
    return LocalPlace(tmp_path / "lake") if request.param == "local" else place_in(request.getfixturevalue("s3"))


# A place


def test_a_place_keeps_files_whole_under_any_name(any_place: LakePlace) -> None:
    names = ["a/b", "a/c/chu%20brest=é +&?#", "d"]
    for name in names:
        any_place.write(name, name.encode())
    any_place.write("a/b", b"anew")
    assert {name: any_place.read(name) for name in names} == {
        names[0]: b"anew",
        names[1]: names[1].encode(),
        names[2]: b"d",
    }
    assert dict(any_place.files("a")) == {names[0]: 4, names[1]: len(names[1].encode())}
    assert set(any_place.files("")) - {PROOF} == set(names)
    assert any_place.folders("") == ["a"]
    assert any_place.folders("a") == ["c"]
    assert (any_place.folders("nowhere"), dict(any_place.files("nowhere"))) == ([], {})
    with any_place.filesystem().open_input_file(names[1]) as file:
        assert file.read() == names[1].encode()


def test_what_is_deleted_is_gone_and_may_be_deleted_again(any_place: LakePlace) -> None:
    any_place.write("a/b", b"x")
    for _ in range(2):
        any_place.delete("a/b")
    assert dict(any_place.files("a")) == {}
    with pytest.raises(FileNotFoundError, match="a/b"):
        any_place.read("a/b")


def test_of_many_creators_at_once_one_wins(any_place: LakePlace) -> None:
    start = Barrier(6)

    def create(number: int) -> list[bool]:
        won = []
        for race in range(20):
            start.wait(30)
            won.append(any_place.create(f"race/{race}", str(number).encode()))
        return won

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(create, range(6)))
    for race in range(20):
        winners = [number for number, won in enumerate(results) if won[race]]
        assert [str(number).encode() for number in winners] == [any_place.read(f"race/{race}")]


def test_two_writers_cannot_both_make_a_version(place: S3Place) -> None:
    """The commit of Delta itself is conditional: no setting of ours that it would ignore."""
    for number in range(2):
        rows = pl.DataFrame({"a": [number]}).to_arrow()
        write_deltalake(place.uri("table"), rows, mode="append", storage_options=place.options)
    stale = DeltaTable(place.uri("table"), version=0, storage_options=place.options)
    before = place.read(f"table/_delta_log/{1:020d}.json")
    stale.alter.set_table_description("mine")
    assert place.read(f"table/_delta_log/{1:020d}.json") == before
    assert DeltaTable(place.uri("table"), storage_options=place.options).version() == 2


@pytest.mark.parametrize(
    "url", ["s3://", "s3://UPPER/x", "s3://bucket/a b", "s3://bucket//x", "http://x/y", "s3://b?x"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(LakeError, match="not s3://BUCKET/PREFIX"):
        S3Place(url, endpoint="http://127.0.0.1:9", region="", key=TRIAL)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "ftp://x", "http://", "http://x/path", "http://u:p@x"])
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(LakeError, match=r"lake\.s3\.endpoint"):
        S3Place("s3://bucket/x", endpoint=endpoint, region="", key=TRIAL)


# What a store may answer


def test_a_wrong_key_and_a_missing_bucket_are_one_clear_error_each(s3: S3Store) -> None:
    cases = {
        r"there is no such bucket.*\(NoSuchBucket\)": (TRIAL, "nowhere"),
        r"the store refuses the key .*\(SignatureDoesNotMatch\)": (S3Key(TRIAL.access_key, "h0llow"), "tocsin"),
        r"the store refuses the key .*\(InvalidAccessKeyId\)": (S3Key("stranger", "h0llow"), "tocsin"),
    }
    for message, (key, bucket) in cases.items():
        with pytest.raises(LakeError, match=message) as caught:
            place_in(s3, "x", key, bucket)
        assert "h0llow" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert "h0llow" not in repr(S3Key("a", "h0llow", "h0llow"))


class _Careless(BaseHTTPRequestHandler):
    """A store that says yes to everything, and knows no condition."""

    def do_GET(self) -> None:
        self._answer(200)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


class _Deaf(_Careless):
    """A store that carries out an upload and whose answer is lost, once."""

    kept: dict[str, bytes]

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        kept = self.kept
        if self.path not in kept:
            kept[self.path] = content
            self.close_connection = True
            return
        self._answer(412)

    def do_GET(self) -> None:
        content = self.kept.get(self.path, b"")
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def answering() -> Iterator[list[ThreadingHTTPServer]]:
    servers: list[ThreadingHTTPServer] = []
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def serve(servers: list[ThreadingHTTPServer], handler: type[_Careless]) -> str:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    servers.append(server)
    return f"http://127.0.0.1:{server.server_port}"


def test_a_store_that_ignores_conditions_cannot_hold_a_lake(answering: list[ThreadingHTTPServer]) -> None:
    place = S3Place("s3://tocsin/x", endpoint=serve(answering, _Careless), region="", key=TRIAL)
    for attempt in (lambda: place.write("a", b"x"), lambda: place.create("a", b"x")):
        with pytest.raises(LakeError, match="ignores If-None-Match"):
            attempt()


def test_a_creation_whose_answer_was_lost_is_known_again(answering: list[ThreadingHTTPServer]) -> None:
    class Store(_Deaf):
        kept: dict[str, bytes] = {}  # noqa: RUF012 - of this test

    place = S3Place("s3://tocsin/x", endpoint=serve(answering, Store), region="", key=TRIAL)
    assert place.create("mine", b"mine")
    assert Store.kept["/tocsin/x/mine"] == b"mine"
    assert not place.create("mine", b"another's")


def test_requests_are_signed_as_the_published_example() -> None:
    """AWS, "Signature Calculations for the Authorization Header", example GET Bucket (List Objects)."""
    key = S3Key("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    bucket = S3Bucket("x", "https://examplebucket.s3.amazonaws.com", "us-east-1", "examplebucket", key)
    signed = signature(bucket, "GET", "/", "max-keys=2&prefix=J", b"", datetime(2013, 5, 24, tzinfo=UTC))
    assert signed["Authorization"].endswith("=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")


def test_a_key_is_found_where_the_aws_tools_look(tmp_path: Path) -> None:
    assert found_key({"HOME": str(tmp_path)}) is None
    assert found_key({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}) == S3Key(
        "a", "b", "c"
    )
    file = tmp_path / ".aws" / "credentials"
    file.parent.mkdir()
    file.write_text("[default]\naws_access_key_id = d\naws_secret_access_key = e%f\n[other]\naws_access_key_id=g\n")
    assert found_key({"HOME": str(tmp_path)}) == S3Key("d", "e%f")
    assert found_key({"HOME": str(tmp_path), "AWS_PROFILE": "other"}) is None
    file.write_text("aws_secret_access_key = h0llow\n")
    with pytest.raises(LakeError, match="credentials") as caught:
        found_key({"HOME": str(tmp_path)})
    assert "h0llow" not in str(caught.value)


# A lake in a store


def test_a_lake_in_a_store_is_a_lake(lake: Lake) -> None:
    written = frame(0, {"CommandLine": ["whoami", None], "a b": ["x", "y"], "date": [None, "z"]}, tenant="chu brest/é%")
    store(lake, written)
    store(lake, frame(1, {"A": ["z"]}, logsource=SSHD, at=NEW_YEAR + timedelta(days=1)), offset=1)
    sshd, process = lake.read()
    assert process.events.equals(written.events)
    assert (sshd.logsource, lake.tables()) == (SSHD, [SSHD, PROCESS])
    assert lake.count() == 3
    assert lake.count(tenants=["chu brest/é%"], until=NEW_YEAR + timedelta(days=1)) == 2
    assert [event["a b"] for event in lake.find([f"{TOPIC}:0:0:1", f"{TOPIC}:0:9:0"])] == ["y"]
    assert lake.held(TOPIC) == {Partition(TOPIC, 0): 1}
    assert lake.query("SELECT logsource, count(*) FROM events GROUP BY 1 ORDER BY 1").rows() == [
        ("linux/_/sshd", 1),
        ("windows/process_creation/sysmon", 2),
    ]
    options = {name: value for name, value in (lake.place.options or {}).items() if "retr" not in name}
    assert pl.read_delta(lake.place.uri(TABLE), storage_options=options).height == 2


def test_commits_name_the_hashes_of_their_files(any_place: LakePlace) -> None:
    store(Lake(any_place), frame(0, {"A": ["x"]}, tenant="chu brest"))
    actions = [orjson.loads(line) for line in any_place.read(f"{TABLE}/_delta_log/{2:020d}.json").splitlines()]
    (path,) = [unquote(action["add"]["path"]) for action in actions if "add" in action]
    (hashes,) = [action["commitInfo"][HASHES] for action in actions if "commitInfo" in action]
    assert hashes == {path: hashlib.sha256(any_place.read(f"{TABLE}/{path}")).hexdigest()}


WORKER = """
import sys
sys.path.insert(0, "tests")
from ingest.bus import Position
from storage.lake import Lake
from storage.lake_s3 import S3Place
from storage.s3_requests import S3Key
from test_storage_lake import TOPIC, record
endpoint, url, partition, records, every = sys.argv[1:]
place = S3Place(url, endpoint=endpoint, region="", key=S3Key("tocsin-trial", "not-a-secret"))
writer = Lake(place).writer()
for offset in range(int(records)):
    writer.add(record(offset, int(partition)), Position(TOPIC, int(partition), offset))
    if offset % int(every) == 0:
        writer.flush()
        print(offset, flush=True)
writer.flush()
"""


def start_worker(store_: S3Store, place: LakePlace, partition: int, records: int, every: int) -> subprocess.Popen[str]:
    arguments = [store_.endpoint, place.name, str(partition), str(records), str(every)]
    command = [sys.executable, "-c", WORKER, *arguments]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("partitions", [(0, 0), (0, 1)], ids=["one partition", "two partitions"])
def test_two_processes_append_each_event_once(s3: S3Store, lake: Lake, partitions: tuple[int, int]) -> None:
    workers = [
        start_worker(s3, lake.place, partition, 16, every) for partition, every in zip(partitions, (2, 3), strict=True)
    ]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.close()
    assert ids(lake) == expected_ids(dict.fromkeys(partitions, 16))


def test_a_worker_killed_at_any_moment_adds_nothing_twice(s3: S3Store, lake: Lake) -> None:
    for delay in (0.0, 0.03):
        with start_worker(s3, lake.place, 0, 3000, 2) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline()
            time.sleep(delay)
            worker.kill()
    survivor = Worker(lake, {0: 0})
    for _ in range(30):
        survivor.add(0)
    survivor.flush()
    found = ids(lake)
    assert len(found) == len(set(found))
    assert set(found) >= set(expected_ids({0: 30}))


def test_a_crash_between_file_and_commit_leaves_nothing_to_be_seen(
    any_place: LakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(any_place)
    store(lake, frame(0, {"A": ["x"]}))

    class Crash(BaseException):
        pass

    def crash(_: object) -> dict[str, object]:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(lake_table, "hashes_of", crash)
        with pytest.raises(Crash):
            store(lake, frame(1, {"A": ["y"]}), offset=1)
    assert len([path for path in any_place.files(TABLE) if path.endswith(".parquet")]) == 2
    assert lake.count() == 1
    store(lake, frame(1, {"A": ["y"]}), offset=1)
    assert events(lake)["A"].to_list() == ["x", "y"]


def test_makers_of_one_table_at_once_make_one(any_place: LakePlace) -> None:
    """Each round: six make a table, each with columns of their own; all columns and all rows are there after it."""
    lake, start = Lake(any_place), Barrier(6)

    def append(number: int) -> None:
        writer = lake.writer()
        part = frame(0, {f"key{number}": ["x"]}, partition=number)
        writer.add([part], Position(TOPIC, number, 0))
        start.wait(30)
        writer.flush()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(append, range(6)))
    assert sorted(fields_of(lake).values(), key=str) == [{f"key{number}": "x"} for number in range(6)]
    delta = DeltaTable(any_place.uri(TABLE), storage_options=any_place.options)
    assert len(delta.schema().fields) == len(FIXED_COLUMNS) + 6


def test_a_table_made_by_another_meanwhile_is_taken_as_it_is(
    any_place: LakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other's table has columns and rows already when this one comes with its version 0."""
    lake, beginning = Lake(any_place), f"{TABLE}/_delta_log/{0:020d}.json"
    made: list[bytes] = []
    there = DeltaTable.is_deltatable

    def late(uri: str, options: dict[str, str] | None = None) -> bool:
        monkeypatch.setattr(DeltaTable, "is_deltatable", staticmethod(there))
        assert not there(uri, options)
        store(lake, frame(0, {"A": ["x"]}))
        made.append(any_place.read(beginning))
        return False

    monkeypatch.setattr(DeltaTable, "is_deltatable", staticmethod(late))
    batch = lake_table.Batch(Position(TOPIC, 1, 0), frame(0, {"B": ["y"]}, partition=1).events)
    assert LakeTable(any_place, PROCESS).append([batch]) == 1
    assert fields_of(lake) == {f"{TOPIC}:0:0:0": {"A": "x"}, f"{TOPIC}:1:0:0": {"B": "y"}}
    assert made == [any_place.read(beginning)]


def test_a_table_begins_as_delta_would_begin_it(tmp_path: Path) -> None:
    path = tmp_path / "table" / "_delta_log"
    path.mkdir(parents=True)
    (path / f"{0:020d}.json").write_bytes(first_version(PROCESS))
    delta = DeltaTable(str(tmp_path / "table"))
    assert [field.name for field in delta.schema().fields] == list(FIXED_COLUMNS)
    assert delta.metadata().partition_columns == ["date", "organization.id"]
    assert (delta.protocol().min_reader_version, delta.protocol().min_writer_version) == (1, 2)
    assert delta.metadata().name == "windows/process_creation/sysmon"


def test_a_store_that_dies_is_said_once_and_the_lake_goes_on(s3: S3Store, tmp_path: Path) -> None:
    own = type(s3)(tmp_path / "store")
    own.start()
    try:
        lake = Lake(place_in(own, "lake"))
        worker = Worker(lake, {0: 0})
        for _ in range(3):
            worker.add(0)
        worker.flush()
        worker.add(0)
        reading = lake.read(batch_rows=1)
        own.kill()
        for attempt in (worker.flush, lake.count, lake.tables, lambda: list(reading), lambda: place_in(own, "lake")):
            with pytest.raises(LakeError) as caught:
                attempt()
            assert TRIAL.secret_key not in str(caught.value)
            assert all(character.isprintable() for character in str(caught.value))
        own.start()
        worker.add(0)
        worker.flush()
        assert ids(lake) == expected_ids({0: 5})
        assert worker.committed == {0: 5}
    finally:
        own.stop()


def test_a_store_that_dies_under_two_workers_loses_and_doubles_nothing(s3: S3Store, tmp_path: Path) -> None:
    own = type(s3)(tmp_path / "store")
    own.start()
    try:
        lake = Lake(place_in(own, "lake"))

        def work(partition: int) -> None:
            worker = Worker(lake, {partition: 0})
            for step in range(24):
                worker.add(partition)
                if step % 3 == 0:
                    flush_at_last(worker)
            flush_at_last(worker)

        with ThreadPoolExecutor(3) as pool:
            running = [pool.submit(work, partition) for partition in (0, 0, 1)]
            for pause in (0.4, 0.7):
                time.sleep(pause)
                own.kill()
                own.start()
            for one in running:
                one.result(100)
        assert ids(lake) == expected_ids({0: 24, 1: 24})
    finally:
        own.stop()


def flush_at_last(worker: Worker) -> None:
    deadline = time.monotonic() + 50
    while True:
        try:
            worker.flush()
        except LakeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def test_what_the_store_said_last_is_given_back(s3: S3Store) -> None:
    bucket = S3Bucket("x", s3.endpoint, "us-east-1", "tocsin", TRIAL)
    pauses: list[float] = []
    assert send(bucket, "GET", "no such file", pause=pauses.append).status == 404
    assert pauses == []
    away = S3Bucket("x", "http://127.0.0.1:9", "us-east-1", "tocsin", TRIAL)
    with pytest.raises(LakeError, match=r"cannot reach http://127\.0\.0\.1:9"):
        send(away, "GET", "a", pause=pauses.append)
    assert len(pauses) == 4
