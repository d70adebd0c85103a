"""Connect a Kafka client so that a failure leaves nothing behind. Imports no client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Protocol, TypeVar

Client = TypeVar("Client")


class Network(Protocol):
    """The part of a client that holds its sockets."""

    def close(self) -> None:
        """Close them."""


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
