"""Serving: uvicorn in a thread, on a socket that is bound before anything else starts.

The socket is ours, so that port 0 is known at once, and a port in use is one clear line instead of a log from inside a
server. `uvicorn.Server` is stopped by its own flag; no signal is touched, that is the composition's business.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Final, Self

import uvicorn
from starlette.types import ASGIApp

from console.errors import ConsoleError

START_SECONDS: Final = 15.0
STOP_SECONDS: Final = 5.0
BACKLOG: Final = 128


class RunningConsole:
    """A console that answers, until `stop`. Also a context manager."""

    def __init__(self, app: ASGIApp, listener: socket.socket, host: str) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=int(STOP_SECONDS) - 2,
        )
        self.host = host
        self.port: int = listener.getsockname()[1]
        self._listener = listener
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)

    def _run(self) -> None:
        # uvicorn ends its process when the application does not start; here it ends the thread, and `start` says so.
        with contextlib.suppress(SystemExit):
            self._server.run([self._listener])

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether the server's thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start, and wait until requests are answered.

        Raises:
            ConsoleError: The application did not start; its own log says why.
        """
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self.alive or time.monotonic() > deadline:
                self.stop()
                raise ConsoleError(f"console: the application did not start on {self.url}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Answer what is under way, close, and return when the thread has ended. May be called twice.

        Raises:
            ConsoleError: The thread did not end in time.
        """
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS + START_SECONDS)
        self._listener.close()
        if self.alive:
            raise ConsoleError(f"console: the server on {self.url} did not stop")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(app: ASGIApp, host: str = "127.0.0.1", port: int = 8080) -> RunningConsole:
    """Serve `app` from a thread of its own; port 0 takes a free one, see `RunningConsole.port`.

    Raises:
        ConsoleError: The address cannot be had (in use, not of this machine, not allowed), or the application failed.
    """
    running = RunningConsole(app, listen(host, port), host)
    running.start()
    return running


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket.

    Raises:
        ConsoleError: One line that names address and cause.
    """
    if not 0 <= port < 2**16:  # the resolver takes a greater one modulo 65,536
        raise ConsoleError(f"console: cannot listen on {host}:{port}: a port lies between 0 and 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ConsoleError(f"console: cannot listen on {host}:{port}: {error}") from error
    try:
        # Else a restart within a minute finds the port "in use" by connections in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConsoleError(f"console: cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener
