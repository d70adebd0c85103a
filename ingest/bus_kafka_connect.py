"""Connect a Kafka client so that a failure leaves nothing behind. Imports no client."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final, Protocol, TypeVar

Client = TypeVar("Client")

HANDSHAKE_SECONDS: Final = 4.0
"""How long a TLS handshake may take."""

REFUSALS: Final = 3
"""Attempts in a row that are refused for a reason that time does not mend, after which there are no more."""

HANDSHAKE_FAILED: Final = "Handshake failed"
"""How the client's error begins when TLS could not be agreed on."""


class Attempt(Protocol):
    """A connection being made."""

    @property
    def init_future(self) -> Outcome:
        """How it ended."""


class Outcome(Protocol):
    """The client's future, as far as it is used here."""

    def add_callback(self, called: Callable[[object], object]) -> object:
        """Call this if it comes about."""

    def add_errback(self, called: Callable[[Exception], object]) -> object:
        """Call this if it fails."""


class Metadata(Protocol):
    """What the client knows of the cluster."""

    config: dict[str, object]


class Connections(Protocol):
    """What the client connects with."""

    get_connection: Callable[..., Attempt]

    def update_backoff(self, node: object) -> object:
        """Wait before the next attempt, longer after each failed one."""

    def reset_backoff(self, node: object) -> object:
        """Do not wait."""


class Network(Protocol):
    """The part of a client that holds its sockets."""

    _manager: Connections

    @property
    def cluster(self) -> Metadata:
        """What is known of the cluster."""

    def close(self) -> None:
        """Close them."""


def closing_socket(plain: type, scheme: str) -> type:
    """A plain socket that is closed when it cannot connect: the client's own would be left to the garbage collector.

    The client chooses the kind of a socket by the scheme of its option `proxy_url`, among the classes it knows.

    Args:
        plain: The client's class of plain sockets.
        scheme: The scheme that stands for this one.
    """

    class ClosingSocket(plain):  # type: ignore[misc] # the client carries no types
        SCHEMES = (scheme,)

        async def sock_connect(self, net: object, sock: socket.socket, address: object, **options: object) -> object:
            with ExitStack() as undo:
                undo.callback(sock.close)
                connected = await super().sock_connect(net, sock, address, **options)
                undo.pop_all()
            return connected

    return ClosingSocket


class Clock(Protocol):
    """The client's event loop, as far as it is used here."""

    def call_later(self, seconds: float, called: Callable[[], None]) -> object:
        """Call this in so many seconds."""

    def cancel(self, timer: object) -> None:
        """Do not."""


def last_words(plain: type) -> type:
    """A connection that hears what the broker says before it hangs up: the client's own drops what comes with the end.

    A broker that refuses a password says so and hangs up, mostly in one go.

    Args:
        plain: The client's class of connections.
    """

    class HearingTransport(plain):  # type: ignore[misc] # the client carries no types
        def _sock_recv(self) -> tuple[bytes, Exception | None]:
            heard, error = super()._sock_recv()
            return heard, None if heard else error  # the next call meets the end again

    return HearingTransport


def bounded_handshakes(plain: type) -> type:
    """A TLS connection whose handshake comes to an end, and closes its socket when it fails.

    The client's own waits for ever for a broker that hangs, and leaves the socket to the garbage collector.

    Args:
        plain: The client's class of TLS connections.
    """

    class BoundedTransport(plain):  # type: ignore[misc] # the client carries no types
        _net: Clock
        _sock: ssl.SSLSocket

        async def handshake(self) -> None:
            late: list[bool] = []

            def hang_up() -> None:
                late.append(True)
                # Past the TLS layer, which would forget the handshake: it is to end with an error
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

            timer = self._net.call_later(HANDSHAKE_SECONDS, hang_up)
            with ExitStack() as undo:
                undo.callback(self._sock.close)
                try:
                    await super().handshake()
                except OSError as error:
                    if late:
                        raise TimeoutError(f"no answer within {HANDSHAKE_SECONDS:g} s") from error
                    raise
                finally:
                    self._net.cancel(timer)
                undo.pop_all()

    return BoundedTransport


def connect(
    make: Callable[..., Client],
    network: Callable[..., Network],
    options: Mapping[str, object],
    gave_up: type[Exception],
    refused: tuple[type[Exception], ...],
) -> Client:
    """Make a client, which connects; if it cannot, close the sockets it leaves behind, and say why.

    Traps: the client tries again until its time is over, whatever the reason, and then only says that the time is over;
    here it ends with what the last attempt failed of, and soon where a password or a certificate is refused. And it
    asks for the metadata of topics in a way that has a broker create them, however its option
    `allow_auto_create_topics` is set: it does not hand the option on to the part of it that asks.

    Args:
        make: The client's class.
        network: What makes the client's network part.
        options: The client's options.
        gave_up: What the client raises when the time is over.
        refused: What an attempt fails of that will fail again.

    Raises:
        ConnectionError: There is no connection; the message says what the last attempt failed of.
    """
    attempts = _Attempts(refused)
    with ExitStack() as undo:

        def open_network(**configs: object) -> Network:
            opened = network(**configs)
            undo.callback(opened.close)
            opened.cluster.config["allow_auto_create_topics"] = False
            wait_between_attempts(opened._manager)  # noqa: SLF001 - the client has no other place for it
            attempts.watch(opened._manager)  # noqa: SLF001
            return opened

        try:
            client = make(kafka_client=open_network, **options)
        except gave_up as error:
            if attempts.last is None:
                raise
            raise ConnectionError(f"no connection: {attempts.last}") from error
        undo.pop_all()
    attempts.over = True
    return client


def wait_between_attempts(connections: Connections) -> None:
    """Have the client wait before it connects again to a node that takes connections and drops them.

    The client takes a connection that was dropped before its first answer for one that came about, and does not wait:
    over a thousand attempts a second against a proxy whose broker is away.

    Args:
        connections: What the client connects with.
    """
    get_connection = connections.get_connection

    def get_and_wait(node: object, *arguments: object, **options: object) -> Attempt:
        if not options.get("reset_backoff_on_connect", True):  # who says so sees to it
            return get_connection(node, *arguments, **options)
        attempt = get_connection(node, *arguments, **options, reset_backoff_on_connect=False)
        if latest.get(node) is not attempt:  # a connection is asked for with every request
            latest[node] = attempt
            attempt.init_future.add_callback(lambda _: connections.reset_backoff(node))
            attempt.init_future.add_errback(lambda _: connections.update_backoff(node))
        return attempt

    latest: dict[object, Attempt] = {}
    connections.get_connection = get_and_wait


class _Attempts:
    """What became of a client's attempts to connect for the first time."""

    def __init__(self, refused: tuple[type[Exception], ...]) -> None:
        self.last: Exception | None = None
        self.over = False
        self._refused = refused
        self._refusals = 0

    def watch(self, connections: Connections) -> None:
        """Hear how each attempt ends, and allow none after `REFUSALS` refused ones."""
        get_connection = connections.get_connection

        def get_and_hear(*arguments: object, **options: object) -> Attempt:
            if not self.over and self._refusals >= REFUSALS:
                raise ConnectionError(f"no connection: {self.last}")
            attempt = get_connection(*arguments, **options)
            if not self.over:
                attempt.init_future.add_errback(self._failed)
            return attempt

        connections.get_connection = get_and_hear

    def _failed(self, error: Exception) -> None:
        self.last = error
        again = isinstance(error, self._refused) or HANDSHAKE_FAILED in str(error)
        self._refusals = self._refusals + 1 if again else 0
