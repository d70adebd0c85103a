"""Retention, holds, records of removal, the manifest, and how tampering is found."""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from click.testing import CliRunner

from ingest.bus import Position
from ingest.envelope import ENVELOPE, EVENT_ID, ORIGINAL, RECEIVED, TENANT, TIMESTAMP, EventFrame
from ingest.logsource import LogSource
from storage import lake_purge, lake_table
from storage.errors import LakeError
from storage.lake import Lake
from storage.lake_clock import ClockDoubt
from storage.lake_commits import log_files, open_table, table_names
from storage.lake_compact import compact
from storage.lake_hold import Hold, HoldError, add_hold, hold_history, read_holds, release_hold
from storage.lake_manifest import HOLDS, PURGES, SEALS, seal, sealed_version
from storage.lake_place import LakePlace, LocalPlace
from storage.lake_purge import DONE, INTENDED, WITHDRAWN, Expired, purge_history
from storage.lake_removal import files_of, replace_files
from storage.lake_retention import RetentionRule, RetentionRules, expire, of_hospital, purge, survey
from storage.lake_s3 import S3Place
from storage.lake_verify import CannotVerify, Report, VerifyScope, verify
from storage.s3_requests import S3Key
from storage.signed_chain import Chain, lake_keys
from storage.signing import Signer, open_signer, public_keys
from tocsin.cli import tocsin

if TYPE_CHECKING:
    from deploy.s3.store import S3Store

TRIAL = S3Key("tocsin-trial", "not-a-secret")  # of deploy/s3/store.py
NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
SSHD = LogSource("linux", None, "sshd")
FIREWALL = LogSource("fortios", "firewall", None)
RULES = RetentionRules(183, 366)
ALL = VerifyScope()
NOTHING = LogSource()


class Writing:
    """A lake that events of chosen days are written to."""

    def __init__(self, folder: Path) -> None:
        self.lake = Lake(folder / "lake")
        self.place: LakePlace = LocalPlace(folder / "lake")
        self.signer: Signer = open_signer(folder / "keys")
        self.offset = 0

    def add(
        self,
        days_ago: float,
        hospital: str = "CH de Kermor",
        logsource: LogSource = SSHD,
        *,
        rows: int = 3,
        lag: timedelta = timedelta(seconds=2),
        now: datetime = NOW,
    ) -> None:
        """Append a batch whose events happened `lag` before they were received."""
        received = now - timedelta(days=days_ago)
        values: dict[str, object] = {
            EVENT_ID: [f"t:0:{self.offset}:{row}" for row in range(rows)],
            TIMESTAMP: [received - lag] * rows,
            RECEIVED: [received] * rows,
            TENANT: [hospital] * rows,
            ORIGINAL: [f"line {self.offset} {row}" for row in range(rows)],
        }
        events = pl.DataFrame({name: values.get(name, [None] * rows) for name in ENVELOPE}, schema=dict(ENVELOPE))
        writer = self.lake.writer()
        writer.add([EventFrame(logsource, events)], Position("t", 0, self.offset))
        writer.flush()
        self.offset += 1

    def check(self, *, head: str = "", scope: VerifyScope = ALL) -> Report:
        """Verify with the lake's own keys."""
        return verify(self.place, public_keys([("key", self.signer.public_pem)]), scope, head)

    def expire(self, now: datetime = NOW, rules: RetentionRules = RULES) -> list[Expired]:
        """Expire with no holds but those in the lake."""
        return expire(self.place, rules, now, [], self.signer)

    def hold(self, name: str, hospital: str, since: date | None = None, until: date | None = None) -> None:
        """Add a hold of all log sources."""
        add_hold(self.place, Hold(name, hospital, since, until, NOTHING, "inquiry", "A. Martin", NOW), self.signer)


@pytest.fixture
def lake(tmp_path: Path) -> Writing:
    """An empty lake."""
    return Writing(tmp_path)


def compact_all(lake: Writing) -> None:
    """Put small files together, as maintenance does."""

    def tomorrow() -> datetime:
        return datetime.now(UTC) + timedelta(days=1)  # by the time of files, which is real

    for table in table_names(lake.place):
        compact(lake.place, f"events/{table}", file_bytes=1 << 27, now=tomorrow)


def days(expired: list[Expired]) -> list[tuple[str | None, date | None]]:
    """(hospital, day) of what went."""
    return [(one.hospital, one.day) for one in expired]


def ago(number: int) -> date:
    """A day before today."""
    return (NOW - timedelta(days=number)).date()


def test_a_day_goes_whole_when_it_is_older_than_its_days(lake: Writing) -> None:
    """The 183rd day stays, the 184th goes; what is left can still be read."""
    for old in (0, 183, 184, 400):
        lake.add(old)
    assert days(lake.expire()) == [("CH de Kermor", ago(400)), ("CH de Kermor", ago(184))]
    assert lake.lake.count() == 6
    assert lake.expire() == []


def test_of_the_rules_that_fit_the_one_that_names_most_holds() -> None:
    """Hospital and source before one of them; the hospital before the source; never beyond the longest."""
    rules = RetentionRules(
        *(100, 366),
        [
            RetentionRule(30, product="linux"),
            RetentionRule(50, hospital="A"),
            RetentionRule(400, hospital="A", product="linux", service="sshd"),
            RetentionRule(10, category="firewall"),
        ],
    )
    assert rules.days_kept("B", LogSource("windows")) == 100
    assert rules.days_kept("B", SSHD) == 30
    assert rules.days_kept("A", LogSource("linux", None, "cron")) == 50
    assert rules.days_kept("A", SSHD) == 366
    assert rules.days_kept(None, FIREWALL) == 10


def test_rules_take_only_what_they_name(lake: Writing) -> None:
    """A short rule of one hospital and source leaves its other sources, and other hospitals."""
    for hospital in ("A", "B"):
        for source in (SSHD, FIREWALL):
            lake.add(20, hospital, source)
    lake.add(0)
    gone = lake.expire(rules=RetentionRules(183, 366, [RetentionRule(7, hospital="A", product="linux")]))
    assert [(one.table, one.hospital) for one in gone] == [("linux._.sshd", "A")]


def test_a_hold_keeps_longer_than_the_longest_until_it_is_released(lake: Writing) -> None:
    """Only of its hospital and days; the record says who and why."""
    for hospital in ("A", "B"):
        for old in (500, 450):
            lake.add(old, hospital)
    lake.add(0)
    lake.hold("inquiry-7", "A", since=ago(500), until=ago(480))
    assert sorted(days(lake.expire())) == sorted([("A", ago(450)), ("B", ago(500)), ("B", ago(450))], key=str)
    assert [hold.name for hold in read_holds(lake.place)] == ["inquiry-7"]
    with pytest.raises(HoldError, match="stands"):
        lake.hold("inquiry-7", "A")
    release_hold(lake.place, "inquiry-7", "closed", "B. Petit", NOW, lake.signer)
    assert days(lake.expire()) == [("A", ago(500))]
    assert [(record.what, record.hold.reason) for record in hold_history(lake.place)] == [
        ("add", "inquiry"),
        ("release", "closed"),
    ]
    seal(lake.place, lake.signer, NOW)
    assert lake.check().faults == []


def test_a_purge_by_law_stops_at_a_hold_and_removes_files_at_once(lake: Writing) -> None:
    """Also the files that compaction left behind; other hospitals stay."""
    for hospital in ("A", "B"):
        for _ in range(9):
            lake.add(3, hospital)
    lake.hold("h", "A", since=ago(3), until=ago(3))
    choice = of_hospital("A", None, NOTHING)
    assert purge(lake.place, choice, NOW, lake.signer, who="me", reason="law") == []
    assert [due.holds for due in survey(lake.place, choice, read_holds(lake.place))] == [("h",)]
    release_hold(lake.place, "h", "law", "me", NOW, lake.signer)
    compact_all(lake)
    assert len([path for path in lake.place.files("events") if "organization.id=A" in path]) == 10
    lake.add(400, "A")
    lake.add(0, "C")
    lake.expire()  # its file waits for cleanup
    gone = purge(lake.place, choice, NOW, lake.signer, who="me", reason="law")
    assert [(one.hospital, one.rows) for one in gone] == [("A", 27)]
    assert not [path for path in lake.place.files("events") if "organization.id=A" in path]
    assert lake.lake.count(tenants=["B"]) == 27
    record = purge_history(lake.place)[-1]
    assert (record.state, record.reason, record.who) == (DONE, "law", "me")
    assert "removed from the disk" in record.note


def test_a_clock_that_jumped_removes_nothing(lake: Writing) -> None:
    """Neither when nothing has come since, nor when lines go on coming under the wrong time."""
    lake.add(1)
    lake.add(0)
    future = NOW + timedelta(days=5 * 365)
    with pytest.raises(ClockDoubt, match="newest line came at 2026-06-30"):
        lake.expire(now=future)
    for _ in range(5):
        lake.add(0, now=future, lag=timedelta(days=5 * 365))  # senders know better
    seal(lake.place, lake.signer, future)
    with pytest.raises(ClockDoubt, match="do not bear that out"):
        lake.expire(now=future)
    assert lake.lake.count() == 21


def test_an_idle_region_loses_nothing_and_goes_on_when_lines_come(lake: Writing) -> None:
    """A week without lines: what is over stays until there is a witness again."""
    lake.add(183)
    lake.add(0)
    later = NOW + timedelta(days=7)
    with pytest.raises(ClockDoubt, match="goes on when lines come"):
        lake.expire(now=later)
    lake.add(0, now=later)
    assert days(lake.expire(now=later)) == [("CH de Kermor", ago(183))]


def test_a_removal_that_was_interrupted_is_finished_by_the_next_run(
    lake: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its commit it is made, after its commit it is concluded; both are told."""
    lake.add(400)
    lake.add(0)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for name, note in (("_commit", "before its commit"), ("_conclude", "after its commit")):
        with monkeypatch.context() as patch:
            patch.setattr(lake_purge, name, die)
            with pytest.raises(KeyboardInterrupt):
                lake.expire()
        assert purge_history(lake.place)[-1].state == INTENDED
        seal(lake.place, lake.signer, NOW)
        lake.expire()
        last = purge_history(lake.place)[-1]
        assert (last.state, note in last.note) == (DONE, True)
        lake.add(400)
    assert lake.check().faults == []


def test_an_interrupted_removal_is_withdrawn_when_a_hold_has_come_or_compaction_was_faster(
    lake: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was announced is not done against a hold, nor told as done when other files stand there now."""
    for _ in range(9):
        lake.add(400)
    lake.add(0)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lake_purge, "_commit", die)
        with pytest.raises(KeyboardInterrupt):
            lake.expire()
        lake.hold("late", "CH de Kermor")
    assert lake.expire() == []
    assert (purge_history(lake.place)[-1].state, lake.lake.count()) == (WITHDRAWN, 30)
    release_hold(lake.place, "late", "over", "me", NOW, lake.signer)
    with monkeypatch.context() as patch:
        patch.setattr(lake_purge, "_commit", die)
        with pytest.raises(KeyboardInterrupt):
            lake.expire()
    compact_all(lake)
    assert [one.rows for one in lake.expire()] == [27]
    assert [record.state for record in purge_history(lake.place)] == [WITHDRAWN, WITHDRAWN, DONE]
    seal(lake.place, lake.signer, NOW)
    assert lake.check().faults == []


def filled(lake: Writing) -> None:
    """Something of everything: several tables, appends, compaction, expiry, holds, a checkpoint; sealed in between."""
    for hospital in ("A", "B"):
        for old in (400, 300, 2, 2, 2, 2, 2, 2, 2, 2):
            lake.add(old, hospital)
            lake.add(old, hospital, FIREWALL)
        seal(lake.place, lake.signer, NOW)
    lake.add(0)
    lake.hold("h", "A", until=ago(350))
    compact_all(lake)
    lake.expire()
    open_table(lake.place, "linux._.sshd").create_checkpoint()
    seal(lake.place, lake.signer, NOW)
    lake.add(0)
    seal(lake.place, lake.signer, NOW)


def test_no_false_alarm_over_random_lives(tmp_path: Path) -> None:
    """Appends, compactions, expiries, holds and seals in any order verify, sealed or not."""
    for seed in range(3):
        chance = random.Random(seed)  # noqa: S311 - a repeatable life
        lake = Writing(tmp_path / str(seed))
        lake.add(0)
        for step in range(25):
            act = chance.choice(["add"] * 6 + ["compact", "expire", "seal", "seal", "hold", "purge"])
            if act == "add":
                lake.add(chance.choice([0, 1, 1, 1, 200, 400]), chance.choice("AB"), chance.choice([SSHD, FIREWALL]))
            elif act == "compact":
                compact_all(lake)
            elif act == "expire":
                lake.add(0)
                lake.expire()
            elif act == "seal":
                seal(lake.place, lake.signer, NOW)
            elif act == "hold":
                lake.hold(f"h{step}", chance.choice("AB"), until=ago(300))
            else:
                purge(lake.place, of_hospital("A", ago(1), NOTHING), NOW, lake.signer, who="me", reason="law")
            if act != "add" and table_names(lake.place) and lake.place.files("keep/seals"):
                assert lake.check().faults == [], (seed, step, act)
        seal(lake.place, lake.signer, NOW)
        report = lake.check()
        assert (report.faults, report.unsealed, report.unhashed) == ([], 0, 0)
        assert (
            report.live
            == report.files
            == sum(len(files_of(open_table(lake.place, table))) for table in table_names(lake.place))
        )


def test_any_flipped_bit_is_found(lake: Writing, tmp_path: Path) -> None:
    """In a data file, a log entry, a checkpoint, a record or a public key; at any place in it."""
    filled(lake)
    good = lake.check()
    assert (good.faults, good.unsealed) == ([], 0)
    live = {
        f"events/{table}/{file.path}"
        for table in table_names(lake.place)
        for file in files_of(open_table(lake.place, table))
    }
    root = tmp_path / "lake"
    chance = random.Random(7)  # noqa: S311 - repeatable
    kinds: dict[str, list[str]] = {}
    for path in lake.place.files(""):
        if path in live or path.startswith("keep/") or ("/_delta_log/" in path and "_last_" not in path):
            kinds.setdefault(_kind(path), []).append(path)
    assert sorted(kinds) == [
        "checkpoint",
        "commit",
        "data",
        "keep/holds",
        "keep/keys",
        "keep/manifest",
        "keep/purges",
        "keep/seals",
    ]
    for kind, paths in kinds.items():
        for _ in range(8):
            file = root / chance.choice(sorted(paths))
            before = file.read_bytes()
            changed = bytearray(before)
            place = chance.choice([0, len(changed) - 1, chance.randrange(len(changed))])
            changed[place] ^= 1 << chance.randrange(8)
            file.write_bytes(changed)
            faults = lake.check().faults
            file.write_bytes(before)
            assert faults, (kind, file, place)
    assert lake.check().faults == []


def _kind(path: str) -> str:
    if path.startswith("keep/"):
        return "/".join(path.split("/")[:2])
    if "/_delta_log/" not in path:
        return "data"
    return "checkpoint" if "checkpoint" in path else "commit"


def test_what_is_taken_away_is_found(lake: Writing, tmp_path: Path) -> None:
    """A data file, the newest log entries, a log entry between others, records of any chain, a whole table."""
    filled(lake)
    head = lake.check().head
    assert head is not None
    root = tmp_path / "lake"

    def without(*paths: str) -> str:
        kept = {path: (root / path).read_bytes() for path in paths}
        for path in kept:
            (root / path).unlink()
        report = lake.check(head=head[1])
        for path, content in kept.items():
            (root / path).write_bytes(content)
        return " ".join(f"{fault.file} {fault.what}" for fault in report.faults)

    data = f"events/linux._.sshd/{files_of(open_table(lake.place, 'linux._.sshd'))[0].path}"
    assert "is missing" in without(data)
    commits, checkpoints = log_files(lake.place, "linux._.sshd")
    newest = max(commits)
    assert "goes back behind" in without(commits[newest])
    assert "is missing, between others" in without(commits[newest - 3])
    for chain in ("manifest/linux._.sshd", HOLDS, PURGES):
        files = Chain(lake.place, chain).files()
        assert "was cut off" in without(files[-1]), chain
        assert "missing" in without(files[0]) or len(files) == 1, chain
    assert "cut off, or written anew" in without(Chain(lake.place, SEALS).files()[-1])
    assert "goes back behind" in without(*commits.values(), *checkpoints)
    assert lake.check(head=head[1]).faults == []


def test_a_file_that_is_slipped_into_the_log_or_taken_out_of_it_is_found(lake: Writing) -> None:
    """Delta itself is content with either; and an orphan is noted, no fault."""
    filled(lake)
    files = files_of(open_table(lake.place, "linux._.sshd"))
    delta = open_table(lake.place, "linux._.sshd")
    replace_files(delta, files[:1], [], data_change=True)
    faults = lake.check().faults
    assert [(fault.file, "no record says why" in fault.what) for fault in faults] == [
        (f"events/linux._.sshd/{files[0].path}", True)
    ]
    seal(lake.place, lake.signer, NOW)  # sealing it does not hide it
    assert [fault.since for fault in lake.check().faults] == ["manifest/linux._.sshd, record 4"]
    lake.place.write("events/linux._.sshd/date=2026-01-01/stray.parquet", b"x")
    assert lake.check().orphans > 0


def test_records_of_another_key_are_found(lake: Writing, tmp_path: Path) -> None:
    """Whoever writes all records anew with a key of their own is found by the key, and by the head."""
    filled(lake)
    head = lake.check().head
    assert head is not None
    for path in [path for path in lake.place.files("keep") if "/keys/" not in path]:
        lake.place.delete(path)
    other = open_signer(tmp_path / "other")
    with pytest.raises(CannotVerify):
        lake.check()
    seal(lake.place, other, NOW)
    assert any("is not trusted" in fault.what for fault in lake.check().faults)
    report = verify(lake.place, lake_keys(lake.place), ALL, "")
    assert [fault for fault in report.faults if "no record says why" not in fault.what] == []
    report = verify(lake.place, lake_keys(lake.place), ALL, head[1])
    assert any("written anew" in fault.what for fault in report.faults)


def test_a_table_without_hashes_is_sealed_by_hashing(lake: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is marked as such, and checked from then on."""
    with monkeypatch.context() as patch:
        patch.setattr(lake_table, "hashes_of", lambda _: {})
        for old in (3, 2, 1):
            lake.add(old)
    (sealed,) = seal(lake.place, lake.signer, NOW)
    assert (sealed.files, sealed.hashed, sealed.last) == (3, 3, sealed_version(lake.place, "linux._.sshd"))
    assert lake.check().hashed_late == 3
    assert seal(lake.place, lake.signer, NOW) == []


def test_only_what_is_in_scope_is_read(lake: Writing) -> None:
    """By hospital, days, and a sample."""
    for hospital in ("A", "B"):
        for old in (1, 5, 9):
            lake.add(old, hospital)
    seal(lake.place, lake.signer, NOW)
    assert lake.check().files == 6
    assert lake.check(scope=VerifyScope(hospital="A")).files == 3
    assert lake.check(scope=VerifyScope(since=ago(5), until=ago(2))).files == 2
    assert lake.check(scope=VerifyScope(sample=4)).files == 4


def test_chains_are_folded_and_stay_whole(lake: Writing) -> None:
    """Many records become one file, line by line; a crash in between leaves both, and either is found if changed."""
    chain = Chain(lake.place, "holds")
    for number in range(40):
        chain.append(lake.signer, {"n": number}, NOW)
    before = [link.hash for link in chain.links()]
    leftover = lake.place.read("keep/holds/00000000000000000003.json")
    chain.fold(at=20)
    assert len(chain.files()) == 2
    assert [link.hash for link in chain.links()] == before
    lake.place.create("keep/holds/00000000000000000003.json", leftover)
    assert [link.hash for link in chain.links()] == before
    lake.place.write("keep/holds/00000000000000000003.json", leftover.replace(b'"n":3', b'"n":4'))
    with pytest.raises(LakeError, match="differs"):
        list(chain.links())
    lake.place.write("keep/holds/00000000000000000003.json", leftover)
    chain.fold(at=20)
    assert len(chain.files()) == 2
    assert chain.append(lake.signer, {"n": 40}, NOW).seq == 40


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'{"key"', b'{ "key"'), (b'"seq":0', b'"seq":0.0'), (b"inquiry", b"in\\u0071uiry"), (b"\n", b"\n\n")],
)
def test_a_record_of_the_same_meaning_in_other_bytes_is_found(lake: Writing, old: bytes, new: bytes) -> None:
    """The signature is over what a record says; the bytes around it must be those that would be written."""
    lake.hold("h", "A")
    path = "keep/holds/00000000000000000000.json"
    assert old in lake.place.read(path)
    lake.place.write(path, lake.place.read(path).replace(old, new))
    with pytest.raises(LakeError, match=r"changed after it was written|holds more"):
        list(Chain(lake.place, HOLDS).links(lake_keys(lake.place)))


def test_the_key_is_made_once_and_is_nobody_elses(tmp_path: Path) -> None:
    """Mode 0600; one that others may read is refused."""
    first = open_signer(tmp_path / "keys")
    assert open_signer(tmp_path / "keys").id == first.id
    path = tmp_path / "keys" / "lake.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(LakeError, match="others may read"):
        open_signer(tmp_path / "keys")


def test_the_commands_tell_and_end_as_they_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold, retention, purge and verify over a lake of today; exit codes 0, 1 and 2."""
    monkeypatch.chdir(tmp_path)
    now = datetime.now(UTC)
    lake = Writing(tmp_path / "tocsin-data")
    for hospital in ("A", "B"):
        for old in (400, 3, 0):
            lake.add(old, hospital, now=now)

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(tocsin, ["lake", *words])
        if isinstance(result.exception, LakeError):
            return 2, str(result.exception)
        return result.exit_code, result.output

    assert run("verify")[0] == 2
    assert run("hold", "add", "h", "--hospital", "Z", "--reason", "r")[0] == 1
    assert run("hold", "add", "h", "--hospital", "A", "--reason", "\x1b[31mr")[0] == 0
    assert "\\x1b[31mr" in run("hold", "list")[1]
    assert "1 days of a hospital are over, and kept" in run("retention")[1]
    assert run("maintain", "--once")[0] == 0
    assert run("purge", "--hospital", "A", "--reason", "law", "--yes")[0] == 1
    assert "cannot be undone" in run("purge", "--hospital", "B", "--reason", "law")[1]
    assert run("purge", "--hospital", "B", "--before", "2000-01-01", "--reason", "law", "--yes")[0] == 0
    assert lake.lake.count(tenants=["B"]) == 6
    assert run("purge", "--hospital", "B", "--reason", "law", "--yes")[0] == 0
    assert lake.lake.count(tenants=["B"]) == 0
    assert "law" in run("purge", "--list")[1]
    assert "400" not in run("retention", "--history")[1].splitlines()[0]
    code, text = run("verify")
    assert (code, "all is what was sealed" in text) == (0, True), text
    assert run("verify", "--head", "00")[0] == 1
    public = run("verify", "--show-key")[1]
    (tmp_path / "public.pem").write_text(public)
    assert run("verify", "--public-key", "public.pem")[0] == 0
    path = next(path for path in (tmp_path / "tocsin-data/lake/events").rglob("*.parquet") if "=A" in str(path))
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    code, text = run("verify", "--json")
    found = json.loads(text)
    assert (code, found["ok"], len(found["faults"])) == (1, False, 1)
    assert found["faults"][0]["what"].startswith("was changed")


def test_an_s3_store_is_kept_like_a_folder(s3: S3Store, tmp_path: Path) -> None:
    """Seal, expire, hold, purge and verify through the place alone."""
    lake = Writing(tmp_path)
    lake.place = S3Place(f"s3://tocsin/keep-{tmp_path.name}", endpoint=s3.endpoint, region="", key=TRIAL)
    lake.lake = Lake(lake.place)
    for hospital in ("A", "B"):
        for old in (400, 3, 0):
            lake.add(old, hospital)
    lake.hold("h", "A")
    seal(lake.place, lake.signer, NOW)
    assert days(lake.expire()) == [("B", ago(400))]
    purge(lake.place, of_hospital("B", ago(1), NOTHING), NOW, lake.signer, who="me", reason="law")
    seal(lake.place, lake.signer, NOW)
    assert lake.check().faults == []
    path = next(path for path in lake.place.files("events") if path.endswith(".parquet") and "=A" in path)
    lake.place.write(path, lake.place.read(path)[:-1] + b"\x00")
    assert [fault.file for fault in lake.check().faults] == [path]
