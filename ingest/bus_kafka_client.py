"""What the Kafka bus uses of its client, and the client's errors as those of the bus.

The modules of the bus take the client's names from here, so that there is one place where it is imported.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from ingest.bus import BusError
from ingest.bus_kafka_connect import Client, bounded_handshakes, closing_socket, connect, last_words
from ingest.bus_kafka_settings import DIRECT_SCHEME

with warnings.catch_warnings():
    # The client reads its protocol's schemas with functions that Python 3.11 and 3.12 call deprecated (3.13 no longer
    # does): of no use to those who read our log, and fatal where warnings are errors.
    warnings.filterwarnings("ignore", r"\w+_text is deprecated", DeprecationWarning)
    import kafka.net.manager
    from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer
    from kafka.admin import ConfigResource, OffsetSpec
    from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
    from kafka.errors import (
        CommitFailedError,
        CoordinatorNotAvailableError,
        IllegalGenerationError,
        KafkaError,
        KafkaTimeoutError,
        MessageSizeTooLargeError,
        RebalanceInProgressError,
        RetriableError,
        SaslAuthenticationFailedError,
        TopicAlreadyExistsError,
        UnknownMemberIdError,
        UnsupportedSaslMechanismError,
        for_code,
    )
    from kafka.net.compat import KafkaNetClient
    from kafka.net.inet import KafkaNetSocket
    from kafka.producer.future import FutureRecordMetadata, RecordMetadata
    from kafka.structs import MemberState, OffsetAndMetadata, TopicPartition

__all__ = [
    "OUR_FAULT",
    "REBALANCED",
    "ClosingSocket",
    "ConfigResource",
    "ConsumerRebalanceListener",
    "CooperativeStickyAssignor",
    "CoordinatorNotAvailableError",
    "FutureRecordMetadata",
    "KafkaAdminClient",
    "KafkaConsumer",
    "KafkaProducer",
    "KafkaTimeoutError",
    "MemberState",
    "OffsetAndMetadata",
    "OffsetSpec",
    "RecordMetadata",
    "RetriableError",
    "TopicAlreadyExistsError",
    "TopicPartition",
    "failures",
    "for_code",
    "opened",
]

REBALANCED: Final = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)
"""A commit refused because the group is being, or has been, shared out anew."""

OUR_FAULT: Final = (MessageSizeTooLargeError, UnicodeError)
"""A failed publish that says nothing against the producer."""

ClosingSocket = closing_socket(KafkaNetSocket, DIRECT_SCHEME)

# The client offers no option for the classes of its connections
kafka.net.manager.KafkaTCPTransport = last_words(kafka.net.manager.KafkaTCPTransport)
kafka.net.manager.KafkaSSLTransport = bounded_handshakes(last_words(kafka.net.manager.KafkaSSLTransport))

# The client logs every attempt to connect, by the dozen. Where nobody has set up the standard library's logging, Python
# would print that to stderr, between the lines of our own log; `BusError` says it once.
logging.getLogger("kafka").addHandler(logging.NullHandler())


def opened(make: Callable[..., Client], options: Mapping[str, object]) -> Client:
    """A client of this class, connected; what it raises otherwise is turned into `BusError` by `failures`."""
    refused = (SaslAuthenticationFailedError, UnsupportedSaslMechanismError)
    return connect(make, KafkaNetClient, options, KafkaTimeoutError, refused)


@contextmanager
def failures(what: str) -> Iterator[None]:
    """Turn what the client may raise into `BusError`, with the cause."""
    try:
        yield
    except (KafkaError, OSError, RuntimeError, ValueError) as error:
        # RuntimeError: the client's event loop is closed; ValueError: an option or a text it cannot use.
        raise BusError(f"{what}: {error}") from error
