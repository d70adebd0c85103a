# ruff: noqa: INP001, S603 - a script, not a package; it runs the Go tool chain and a server, with fixed arguments
"""One S3-compatible store on this machine, for trials and tests: a real one (MinIO), with one drive.

    python deploy/s3/store.py DIR [PORT]      serves, with its data in DIR, on 127.0.0.1:PORT (9000), until Ctrl-C
    python deploy/s3/store.py --fetch         only builds it, if it is not built yet
    python deploy/s3/store.py --built         only says, by its exit status, whether it is built

The first time it needs `go` (1.24 or later), which builds the version named here into ${TOCSIN_CACHE:-~/.cache/tocsin};
that takes a few minutes. The store has one bucket, `tocsin`, and one key, which is no secret (`KEY`, `SECRET`).

Why this one: the lake needs a store whose uploads with `If-None-Match: *` are decided by one side even when two come at
the same moment. Not every server that knows the header is so.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

MODULE: Final = "github.com/minio/minio"
VERSION: Final = "v0.0.0-20260212201848-7aac2a2c5b7c"
BUCKET: Final = "tocsin"
KEY: Final = "tocsin-trial"
SECRET: Final = "not-a-secret"  # noqa: S105 - of a trial on this machine
START_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 20.0

# PR_SET_PDEATHSIG (1): the kernel kills the store when the process that started it dies, however it dies. The launcher
# sets it on itself and becomes the store: the setting survives exec, and no code has to run between fork and exec.
_LAUNCHER: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the process that started the store is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class StoreError(Exception):
    """The store could not be built or started; the message says why."""


def built() -> Path:
    """Where the program is, or would be."""
    cache = Path(os.environ.get("TOCSIN_CACHE") or "~/.cache/tocsin").expanduser()
    return cache / f"minio-{VERSION.rpartition('-')[2]}" / "minio"


def fetch() -> Path:
    """The program, built on first use.

    Raises:
        StoreError: It cannot be built; the message ends with what the Go tool said.
    """
    program = built()
    if program.is_file():
        return program
    folder = program.parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as work:
        command = ["go", "install", "-trimpath", "-ldflags=-s -w", f"{MODULE}@{VERSION}"]
        try:
            result = subprocess.run(
                command, env=os.environ | {"GOBIN": work}, capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise StoreError(f"cannot run go: {error}") from error
        if result.returncode != 0:
            raise StoreError(f"go could not build the store:\n{result.stdout}{result.stderr}"[-4000:])
        (Path(work) / "minio").replace(program)
    return program


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class S3Store:
    """A store whose data and log lie in one folder; it keeps its port over a restart.

    Args:
        folder: Where it keeps everything; made if it is not there.
        port: Its port on 127.0.0.1; a free one if it is None.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = free_port() if port is None else port
        self.log = folder / "store.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """What a client is given to find the store."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            StoreError: It ended, or did not serve within `START_TIMEOUT` seconds; the message ends with its log.
        """
        if self._process is not None:
            raise StoreError("the store is running already")
        program = fetch()
        data = self.folder / "data"
        (data / BUCKET).mkdir(parents=True, exist_ok=True)  # a folder of its drive is a bucket
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.folder),
            "MINIO_ROOT_USER": KEY,
            "MINIO_ROOT_PASSWORD": SECRET,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_CI_CD": "1",  # lets it use a drive that is also the system's
        }
        address = f"127.0.0.1:{self.port}"
        server = [str(program), "server", "--quiet", "--address", address, str(data)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCHER, str(os.getpid()), *server],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_ready()

    def stop(self) -> None:
        """Stop it in good order; kill it if it does not end within `STOP_TIMEOUT` seconds."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a power cut would end its process."""
        self._end(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal: SIGSTOP makes a store that is reached and does not answer, SIGCONT wakes it."""
        if self._process is None:
            raise StoreError("the store is not running")
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait until it ends by itself; its exit status."""
        return 0 if self._process is None else self._process.wait()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self._is_ready():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.kill()
                tail = self.log.read_bytes()[-4000:].decode(errors="replace")
                raise StoreError(f"the store {'ended' if ended else 'did not start in time'}; its log ends:\n{tail}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/minio/health/ready")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        # It leads its own process group. Until it is waited for, its number cannot be another process's.
        if process.poll() is None:
            os.killpg(process.pid, how)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main(arguments: list[str]) -> int:
    """Run a store in the foreground; the exit status."""
    if len(arguments) not in {1, 2} or (arguments[0].startswith("-") and arguments not in (["--fetch"], ["--built"])):
        sys.stderr.write("usage: python deploy/s3/store.py DIR [PORT] | --fetch | --built\n")
        return 2
    try:
        if arguments == ["--built"]:
            return 0 if built().is_file() else 1
        if arguments == ["--fetch"]:
            fetch()
            return 0
        store = S3Store(Path(arguments[0]).resolve(), int(arguments[1]) if len(arguments) > 1 else 9000)
        try:
            store.start()
            sys.stdout.write(
                f"S3 on {store.endpoint}, bucket {BUCKET}, access_key {KEY}, secret_key {SECRET}; Ctrl-C stops it\n"
            )
            sys.stdout.flush()
            return store.wait()
        finally:
            store.stop()
    except StoreError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
