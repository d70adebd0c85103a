"""Where a process says how it fares: /metrics (Prometheus), /healthz, /readyz and /status, over plain HTTP.

Nobody signs in here, so nothing is told that must not be read: counts, names of hospitals and listeners, and why
something fails, with the secrets of the settings left out. It listens on this machine unless told otherwise.

A server on a thread and an event loop of its own, since it must answer when all else hangs. It is small and bounded:
few connections at once, each with one request, which must come and be taken within seconds. What takes time to find out
(metrics, status) is found out in two threads beside it; /healthz and /readyz look only at memory.

Pages in a browser of this machine could otherwise ask here for whoever made them (DNS rebinding), so a request that a
browser sends for a page is refused: it says so itself (Fetch Metadata, `Sec-Fetch-Site`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Final

import h11
import structlog

from console.errors import ConsoleError
from console.serve import listen
from tocsin.health_report import Report, report_of, secrets_of, troubles, unready
from tocsin.metrics import METRICS_TYPE, Exposition
from tocsin.settings import Settings, SettingsError
from tocsin.vitals import SAMPLE_SECONDS, Vitals

log = structlog.get_logger()

MAX_CONNECTIONS: Final = 16
REQUEST_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 15.0
REQUEST_BYTES: Final = 16 * 1024
START_SECONDS: Final = 10.0

JSON_TYPE: Final = "application/json"
PLAIN_TYPE: Final = "text/plain; charset=utf-8"

Answer = tuple[HTTPStatus, str, bytes]
"""Status, media type, body."""


class HealthServer:
    """Answers about one process, from `start` to `stop`.

    Args:
        settings: Where to listen, and the secrets that must not be told.
        vitals: The process.

    Attributes:
        url: Where it answers, once started.
    """

    def __init__(self, settings: Settings, vitals: Vitals) -> None:
        self._section = settings.health
        self._settings = settings
        self._vitals = vitals
        self._secrets = secrets_of(settings)
        self._exposition = Exposition(settings, vitals)
        self._slow = ThreadPoolExecutor(2, thread_name_prefix="health")
        self._asked = 0  # answers being worked out
        self._open = 0
        self._ready: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._routes: dict[str, Callable[[], Answer]] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
        }
        self._slow_routes: dict[str, Callable[[], Answer]] = {"/metrics": self._metrics, "/status": self._status}
        self.url = ""

    # -- life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen, and return when requests are answered.

        Raises:
            SettingsError: The address cannot be had.
        """
        host, port = self._section.host, self._section.port
        try:
            self._socket = listen(host, port)
        except ConsoleError as error:
            reason = str(error).removeprefix("console: ")
            raise SettingsError(f"health.port: {reason}; each process needs a port of its own") from error
        bound = self._socket.getsockname()
        self.url = f"http://[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"http://{bound[0]}:{bound[1]}"
        self._thread.start()
        self._ready.result(START_SECONDS)
        log.info("health", url=self.url)

    def stop(self) -> None:
        """Close; returns when the thread has ended."""
        if self._loop is not None:
            with suppress(RuntimeError):  # its loop has ended by itself
                self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(REQUEST_SECONDS)
        self._slow.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._meet, sock=self._socket, limit=REQUEST_BYTES)
        self._ready.set_result(None)
        while not self._ending.is_set():
            self._vitals.sample()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), SAMPLE_SECONDS)
        server.close()

    # -- one connection ----------------------------------------------------------------------------------------

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                await self._converse(reader, writer)
        except (OSError, TimeoutError, h11.RemoteProtocolError):
            pass  # who asked has gone, or did not speak HTTP: there is nobody to answer
        finally:
            self._open -= 1
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_BYTES)
        async with asyncio.timeout(REQUEST_SECONDS):
            request = await _request(connection, reader)
        if request is None:
            return
        status, kind, body = await self._answer(request)
        headers = [
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", "default-src 'none'"),
            ("Connection", "close"),
        ]
        head = connection.send(h11.Response(status_code=status, headers=headers, reason=status.phrase))
        writer.write(head or b"")
        if request.method != b"HEAD":
            writer.write(body)
        async with asyncio.timeout(REQUEST_SECONDS):
            await writer.drain()
            writer.write_eof()
            await reader.read(1)  # until the other side has taken it all, and closes

    async def _answer(self, request: h11.Request) -> Answer:
        path = request.target.partition(b"?")[0].decode("latin-1")
        if any(name == b"sec-fetch-site" and value != b"none" for name, value in request.headers):
            return _text(HTTPStatus.FORBIDDEN, "not for pages of other sites")
        if path not in self._routes and path not in self._slow_routes:
            return _text(HTTPStatus.NOT_FOUND, "there are /metrics, /healthz, /readyz and /status")
        if request.method not in (b"GET", b"HEAD"):
            return _text(HTTPStatus.METHOD_NOT_ALLOWED, "GET")
        if path in self._routes:
            return self._routes[path]()
        return await self._work_out(self._slow_routes[path])

    async def _work_out(self, work: Callable[[], Answer]) -> Answer:
        if self._asked >= MAX_CONNECTIONS // 2:
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, "too many ask at once")
        self._asked += 1
        future = self._slow.submit(work)
        # Counted until it has ended, not until nobody waits for it: threads that hang must not gather work
        future.add_done_callback(self._worked_out)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), ANSWER_SECONDS)
        except TimeoutError:
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, "no answer in time")

    def _worked_out(self, _: Future[Answer]) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._forget_asked)

    def _forget_asked(self) -> None:
        self._asked -= 1

    # -- the answers -------------------------------------------------------------------------------------------

    def _healthz(self) -> Answer:
        return _report(Report.of(troubles(self._vitals), self._secrets))

    def _readyz(self) -> Answer:
        return _report(Report.of(unready(self._vitals), self._secrets))

    def _metrics(self) -> Answer:
        return HTTPStatus.OK, METRICS_TYPE, self._exposition.text()

    def _status(self) -> Answer:
        status = report_of(self._vitals, self._settings, self._secrets)
        return HTTPStatus.OK, JSON_TYPE, status.model_dump_json().encode()


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """The request, its body left unread; None if there is none."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        data = await reader.read(REQUEST_BYTES)
        connection.receive_data(data)
        if not data:
            return None


def _report(report: Report) -> Answer:
    status = HTTPStatus.OK if report.ok else HTTPStatus.SERVICE_UNAVAILABLE
    return status, JSON_TYPE, report.model_dump_json().encode() + b"\n"


def _text(status: HTTPStatus, text: str) -> Answer:
    return status, PLAIN_TYPE, text.encode() + b"\n"


@contextmanager
def serve_health(settings: Settings, vitals: Vitals) -> Iterator[HealthServer | None]:
    """Answer about this process while the context lasts, if `health.enabled`.

    Raises:
        SettingsError: The address cannot be had.
    """
    if not settings.health.enabled:
        yield None
        return
    server = HealthServer(settings, vitals)
    server.start()
    try:
        yield server
    finally:
        server.stop()
