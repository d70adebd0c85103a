"""The few requests of the S3 protocol that a lake makes itself, signed by Signature Version 4.

What Delta and Arrow ask of a store, their own clients ask. None of them can say "only if there is none yet" of a file
of ours (`If-None-Match: *`, RFC 9110, section 13.1.2), and that is what tells two writers apart. A request is repeated
when the store is busy or the line breaks, for a few seconds; an upload is one request, so a file is there whole or not
at all, and its SHA-256 is signed, so that a store refuses what arrives changed.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final, Literal
from urllib.parse import quote, urlencode, urlsplit

from storage.errors import LakeError

TIMEOUT: Final = 20.0
"""Seconds for one step of a connection, not for a whole upload."""

_PAUSES: Final = (0.1, 0.3, 0.9, 2.0)  # seconds before each repetition
_BUSY: Final = frozenset({409, 429, 500, 502, 503, 504})  # 409: another conditional upload is under way
_SAFE: Final = "-_.~"
_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9.]{1,80})</Code>")
_REFUSED: Final = "the store refuses the key (lake.s3.access_key, lake.s3.secret_key)"
_REGION: Final = "the bucket is in another region (lake.s3.region)"
_MEANINGS: Final[Mapping[str, str]] = {
    "AccessDenied": "the key (lake.s3.access_key) may not do this",
    "InvalidAccessKeyId": _REFUSED,
    "SignatureDoesNotMatch": _REFUSED,
    "ExpiredToken": "the session of the key has ended",
    "RequestTimeTooSkewed": "the clock here differs from the store's by more than it allows",
    "NoSuchBucket": "there is no such bucket: make it first",
    "AuthorizationHeaderMalformed": _REGION,
    "PermanentRedirect": _REGION,
    "NotImplemented": "the store cannot do this",
}


@dataclass(frozen=True, slots=True)
class S3Key:
    """Who asks."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class S3Bucket:
    """Whom: a bucket of a store.

    Attributes:
        name: What to call it in messages.
        endpoint: `https://host[:port]`, or `http://`.
        region: That signatures name.
        bucket: Its name; it stands in the path, not in the host's name.
        key: Who asks.
    """

    name: str
    endpoint: str
    region: str
    bucket: str
    key: S3Key


@dataclass(frozen=True, slots=True)
class Answer:
    """What the store said at last; `unsure` if an earlier try may have been carried out without our hearing of it."""

    status: int
    content: bytes
    unsure: bool


Method = Literal["GET", "PUT", "DELETE"]


def send(
    bucket: S3Bucket,
    method: Method,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    content: bytes = b"",
    headers: Mapping[str, str] | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Answer:
    """Send a request, again if need be; the answer may be a refusal.

    Raises:
        LakeError: The store cannot be reached, or stays busy.
    """
    unsure = False
    for wait in (*_PAUSES, None):
        try:
            answer = _send_once(bucket, method, path, query or {}, content, headers or {})
        except (OSError, http.client.HTTPException) as error:
            if wait is None:
                reason = str(error) or type(error).__name__
                raise LakeError(f"lake {bucket.name}: cannot reach {bucket.endpoint}: {reason}") from error
            unsure = True
        else:
            if wait is None or answer.status not in _BUSY:
                return Answer(answer.status, answer.content, unsure)
            unsure = unsure or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        pause(wait)
    raise AssertionError("the last try returns or raises")


def refusal(bucket: S3Bucket, what: str, answer: Answer) -> LakeError:
    """The error that an answer means."""
    found = _CODE.search(answer.content)
    code = found[1].decode() if found else HTTPStatus(answer.status).phrase
    meaning = _MEANINGS.get(code)
    told = f"{meaning} ({code})" if meaning else f"the store answers {answer.status} {code}"
    return LakeError(f"lake {bucket.name}: cannot {what}: {told}")


def _send_once(
    bucket: S3Bucket, method: Method, path: str, query: Mapping[str, str], content: bytes, headers: Mapping[str, str]
) -> Answer:
    host = urlsplit(bucket.endpoint)
    kind = http.client.HTTPSConnection if host.scheme == "https" else http.client.HTTPConnection
    target = "/" + quote(f"{bucket.bucket}/{path}" if path else bucket.bucket, safe=_SAFE + "/")
    text = urlencode(sorted(query.items()), quote_via=quote, safe=_SAFE)
    signed = signature(bucket, method, target, text, content, datetime.now(UTC))
    connection = kind(host.netloc, timeout=TIMEOUT)
    try:
        connection.request(method, f"{target}?{text}" if text else target, content, {**headers, **signed})
        response = connection.getresponse()
        return Answer(response.status, response.read(), unsure=False)
    finally:
        connection.close()


def signature(
    bucket: S3Bucket, method: Method, target: str, query: str, content: bytes, now: datetime
) -> dict[str, str]:
    """The headers that sign a request (AWS Signature Version 4, "Authenticating requests: Authorization header")."""
    moment, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    digest = hashlib.sha256(content).hexdigest()
    headers = {"host": urlsplit(bucket.endpoint).netloc, "x-amz-content-sha256": digest, "x-amz-date": moment}
    if bucket.key.session_token:
        headers["x-amz-security-token"] = bucket.key.session_token
    names = ";".join(sorted(headers))
    canonical = "\n".join(
        [method, target, query, *(f"{name}:{headers[name]}" for name in sorted(headers)), "", names, digest]
    )
    scope = f"{day}/{bucket.region}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    secret = f"AWS4{bucket.key.secret_key}".encode()
    for part in (*scope.split("/"), to_sign):
        last = hmac.new(secret, part.encode(), hashlib.sha256)
        secret = last.digest()
    return headers | {
        "Authorization": f"AWS4-HMAC-SHA256 Credential={bucket.key.access_key}/{scope}, "
        f"SignedHeaders={names}, Signature={last.hexdigest()}"
    }
