"""Connect a Kafka client so that a failure leaves nothing behind. Imports no client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    opened: list[Network] = []

    def open_network(**configs: object) -> Network:
        opened.append(network(**configs))
        return opened[-1]

    try:
        return make(kafka_client=open_network, **options)
    except BaseException:
        for client in opened:
            client.close()
        raise
