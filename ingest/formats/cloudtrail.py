"""AWS CloudTrail records: JSON told by `eventSource`, `eventName` and `awsRegion`; nested objects become dotted names.

Source: AWS CloudTrail User Guide, "CloudTrail record contents".
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from ingest.formats.piece import EnvelopeNames
from ingest.logsource import LogSource

LOGSOURCE: Final = LogSource("aws", None, "cloudtrail")

NAMES: Final = EnvelopeNames(
    time=(("eventTime", True),),
    host=("eventSource",),
    user=(
        "userIdentity.userName",
        "userIdentity.sessionContext.sessionIssuer.userName",
        "userIdentity.arn",
        "userIdentity.type",
    ),
    source_ip=("sourceIPAddress",),
)


def is_trail(keys: Container[str]) -> bool:
    """Whether an object with these keys is a CloudTrail record."""
    return "eventSource" in keys and "eventName" in keys and "awsRegion" in keys
