"""Torn writes: what a process that is killed in the middle of a write, or a machine without power, leaves on a disk.

Half a write is added behind what was written whole, and never is anything taken away: what was whole may have been
promised to someone.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Final

_SPOOL_HEAD: Final = 32
"""Bytes of a frame of the spool before its body."""


def tear(disk: str, path: Path, chance: random.Random) -> str:
    """Leave half a write; never less than what was written whole, for that was promised."""
    with_disk = {"lake": _tear_lake, "alerts": _tear_log, "bus": _tear_log}.get(disk, _tear_spool)
    return with_disk(path, chance)


def _tear_spool(path: Path, chance: random.Random) -> str:
    segments = sorted(path.glob("spool/*.spool"))
    if not segments:
        return ""
    begin = segments[-1].read_bytes()[:65_536]
    if len(begin) > _SPOOL_HEAD:  # the beginning of a whole frame, and no more of it than that
        whole = _SPOOL_HEAD + struct.unpack_from(">I", begin, 20)[0]
        rest = begin[: chance.randrange(1, min(whole, len(begin)))]
    else:
        rest = b"TSP1"[: chance.randrange(1, 5)]
    with segments[-1].open("ab") as file:
        file.write(rest if chance.random() < 0.7 else bytes(chance.randrange(1, 9000)))
    return f"{segments[-1].name} torn"


def _tear_lake(path: Path, chance: random.Random) -> str:
    files = sorted(path.rglob("*.parquet"))
    if not files:
        return ""
    one = chance.choice(files)
    data = one.read_bytes()
    one.with_name(f"torn-{chance.randrange(1 << 30)}.parquet").write_bytes(data[: len(data) // 2])
    commits = sorted(path.rglob("_delta_log/*.json"))
    commit = chance.choice(commits)
    half = commit.read_bytes()[: max(1, commit.stat().st_size // 2)]
    commit.with_name(f"_commit_{chance.randrange(1 << 30)}.json.tmp").write_bytes(half)
    return "half a Parquet file and half a commit"


def _tear_log(path: Path, chance: random.Random) -> str:
    """The write-ahead log of SQLite or DuckDB: half a transaction behind the last one."""
    logs = [*path.glob("*-wal"), *path.glob("*.wal")]
    for log in logs:
        with log.open("ab") as file:
            # A length, a checksum that fits nothing, and not as many bytes as that
            file.write(struct.pack("<QQ", 5_000, chance.getrandbits(64)) + chance.randbytes(chance.randrange(0, 900)))
    return " and ".join(f"{log.name} torn" for log in logs)
