"""A lake in an S3-compatible store: a prefix of a bucket.

Two writers are told apart by the store alone: a file that only the first may make is put with `If-None-Match: *`, by
Delta for each version of a table and by `S3Place.create` for the rest. A store that ignores this header would let one
writer put its commit over another's, and events would be gone without a word; so the first write proves that the store
heeds it, and refuses the store otherwise. There are no locks then, and nothing to sync: a store has what it has
acknowledged.
"""

from __future__ import annotations

import configparser
import re
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pyarrow.fs as arrow

from storage.errors import LakeError
from storage.s3_requests import TIMEOUT, Answer, Method, S3Bucket, S3Key, refusal, send

PROOF: Final = ".conditional-put"
"""The file by which a store proves that it heeds `If-None-Match`."""
UPLOADS: Final = 8
"""Files written at the same time: a store takes long to answer, and much at once."""

_URL: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9_=.-]+)*)/?")
_ONLY_IF_NEW: Final = {"If-None-Match": "*"}
_DEFAULT_REGION: Final = "us-east-1"  # what stores that have no regions are content with


class S3Place:
    """See `storage.lake_place.LakePlace`.

    Args:
        url: `s3://BUCKET/PREFIX`; the bucket must be there.
        endpoint: `https://host[:port]` of the store; empty: AWS.
        region: Empty: `us-east-1`.
        key: Who asks.

    Raises:
        LakeError: The store cannot be reached, refuses the key, or has no such bucket.
    """

    def __init__(self, url: str, *, endpoint: str, region: str, key: S3Key) -> None:
        parts = _URL.fullmatch(url)
        if parts is None:
            raise LakeError(f"lake {url}: not s3://BUCKET/PREFIX of letters, digits and _ = . -")
        region = region or _DEFAULT_REGION
        endpoint = (endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/")
        host = urlsplit(endpoint)
        if host.scheme not in ("http", "https") or not host.hostname or host.path or "@" in host.netloc:
            raise LakeError(f"lake {url}: lake.s3.endpoint is no https://HOST or http://HOST:PORT")
        self._prefix = parts[2].strip("/")
        self._bucket = S3Bucket(url.rstrip("/"), endpoint, region, parts[1], key)
        self._proving = threading.Lock()
        self._proven = False
        self._check_reached()
        store = arrow.S3FileSystem(
            access_key=key.access_key,
            secret_key=key.secret_key,
            session_token=key.session_token or None,
            region=region,
            scheme="https" if host.scheme == "https" else "http",
            endpoint_override=host.netloc,
            connect_timeout=TIMEOUT,
            request_timeout=TIMEOUT,
        )
        self._files = arrow.SubTreeFileSystem(f"{parts[1]}/{self._prefix}".rstrip("/"), store)

    @property
    def name(self) -> str:
        """Its URL."""
        return self._bucket.name

    @property
    def options(self) -> dict[str, str] | None:
        """See `LakePlace`."""
        bucket, key = self._bucket, self._bucket.key
        found = {
            "aws_endpoint": bucket.endpoint,
            "aws_region": bucket.region,
            "aws_access_key_id": key.access_key,
            "aws_secret_access_key": key.secret_key,
            "aws_conditional_put": "etag",
            "aws_virtual_hosted_style_request": "false",
            "allow_http": str(bucket.endpoint.startswith("http://")).lower(),
            "timeout": f"{TIMEOUT:.0f}s",
            "connect_timeout": f"{TIMEOUT:.0f}s",
            "max_retries": "4",
            "retry_timeout": f"{TIMEOUT:.0f}s",
        }
        return found | ({"aws_session_token": key.session_token} if key.session_token else {})

    def uri(self, path: str = "") -> str:
        """See `LakePlace`."""
        return f"s3://{self._bucket.bucket}/{self._key(path)}".rstrip("/")

    def filesystem(self) -> arrow.FileSystem:
        """See `LakePlace`."""
        return self._files

    def folders(self, path: str) -> list[str]:
        """See `LakePlace`."""
        return sorted(info.base_name for info in self._listed(path) if info.type == arrow.FileType.Directory)

    def files(self, path: str) -> Mapping[str, int]:
        """See `LakePlace`."""
        found = self._listed(path, recursive=True)
        return {info.path: info.size for info in found if info.type == arrow.FileType.File}

    def read(self, path: str) -> bytes:
        """See `LakePlace`."""
        answer = self._send("GET", path)
        if answer.status == HTTPStatus.NOT_FOUND and b"NoSuchBucket" not in answer.content:
            raise FileNotFoundError(f"lake {self.name}: no file {path}")
        return self._checked(f"read {path}", answer).content

    def write(self, path: str, content: bytes) -> None:
        """See `LakePlace`."""
        self._prove()
        self._checked(f"write {path}", self._send("PUT", path, content))

    def write_all(self, contents: Mapping[str, bytes]) -> None:
        """See `LakePlace`: `UPLOADS` at a time."""
        with ThreadPoolExecutor(min(UPLOADS, max(1, len(contents)))) as pool:
            for _ in pool.map(self.write, contents.keys(), contents.values()):
                pass

    def create(self, path: str, content: bytes) -> bool:
        """See `LakePlace`."""
        self._prove()
        return self._create(path, content)

    def delete(self, path: str) -> None:
        """See `LakePlace`."""
        answer = self._send("DELETE", path)
        if answer.status != HTTPStatus.NOT_FOUND:
            self._checked(f"delete {path}", answer)

    def discard_partial(self, before: datetime) -> int:  # noqa: ARG002 - an upload is there whole, or not at all
        """See `LakePlace`: there are none."""
        return 0

    def sync(self, paths: Iterable[str]) -> None:
        """See `LakePlace`: what a store has acknowledged, it has."""

    def lock(self, name: str, *, wait: bool = True) -> AbstractContextManager[None]:  # noqa: ARG002 - no locks there
        """See `LakePlace`: none; `create` decides."""
        return nullcontext()

    def _create(self, path: str, content: bytes) -> bool:
        answer = self._send("PUT", path, content, _ONLY_IF_NEW)
        if answer.status == HTTPStatus.PRECONDITION_FAILED:
            # A try whose answer was lost may have made it: then it is this very content
            return answer.unsure and self.read(path) == content
        self._checked(f"create {path}", answer)
        return True

    def _prove(self) -> None:
        with self._proving:
            if self._proven:
                return
            if self._create(PROOF, b"") and self._create(PROOF, b""):
                raise LakeError(
                    f"lake {self.name}: the store ignores If-None-Match, so two writers could put one commit over "
                    "another; it cannot hold a lake"
                )
            self._proven = True

    def _check_reached(self) -> None:
        query = {"list-type": "2", "max-keys": "1", "prefix": self._key("")}
        self._checked("open it", send(self._bucket, "GET", "", query=query))

    def _listed(self, path: str, *, recursive: bool = False) -> list[arrow.FileInfo]:
        selector = arrow.FileSelector(path, allow_not_found=True, recursive=recursive)
        try:
            found: list[arrow.FileInfo] = self._files.get_file_info(selector)
        except OSError as error:
            raise LakeError(f"lake {self.name}: cannot list {path}: {error}") from error
        return found

    def _send(
        self, method: Method, path: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        return send(self._bucket, method, self._key(path), content=content, headers=headers)

    def _checked(self, what: str, answer: Answer) -> Answer:
        if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise refusal(self._bucket, what, answer)
        return answer

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path


def found_key(environment: Mapping[str, str]) -> S3Key | None:
    """The key that the AWS tools would find: in the environment, else in the file of credentials; `None` if neither.

    Raises:
        LakeError: The file cannot be read.
    """
    if environment.get("AWS_ACCESS_KEY_ID") and environment.get("AWS_SECRET_ACCESS_KEY"):
        token = environment.get("AWS_SESSION_TOKEN", "")
        return S3Key(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"], token)
    home = Path(environment.get("HOME", "/"))
    file = Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials")
    if not file.is_file():
        return None
    profiles = configparser.RawConfigParser()
    try:
        profiles.read_string(file.read_text())
    except (OSError, ValueError, configparser.Error):
        # The parser's own message would quote the line, and with it the key
        raise LakeError(f"{file}: cannot be read as a file of AWS credentials") from None
    profile = environment.get("AWS_PROFILE", "default")
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    access, secret, token = (profiles.get(profile, name, fallback="") for name in names)
    return S3Key(access, secret, token) if access and secret else None
