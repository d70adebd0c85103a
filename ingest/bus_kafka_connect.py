"""Connect a Kafka client so that a failure leaves nothing behind. Imports no client."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Protocol, TypeVar

Client = TypeVar("Client")


class Network(Protocol):
    """The part of a client that holds its sockets."""

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


def connect(make: Callable[..., Client], network: Callable[..., Network], options: Mapping[str, object]) -> Client:
    """Make a client, which connects; if it cannot, close the sockets it leaves behind.

    Args:
        make: The client's class.
        network: What makes the client's network part.
        options: The client's options.
    """
    with ExitStack() as undo:

        def open_network(**configs: object) -> Network:
            opened = network(**configs)
            undo.callback(opened.close)
            return opened

        client = make(kafka_client=open_network, **options)
        undo.pop_all()
    return client
