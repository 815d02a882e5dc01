# SPDX-License-Identifier: GPL-2.0-or-later
"""S3File: one object of S3 that is written in any order, and is there whole or not at all.

A multipart upload takes parts in any order, but each part at once, and none can be read before all
is complete. So parts wait as objects of their own, in KEY.parts/TOKEN/, where they can be changed,
and at the end the server itself copies them into the upload. The token is random: two processes
that write one object do not mix.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from livedumpfs.closing import Closing
from livedumpfs.errors import LivedumpError, TargetError, UsageError
from livedumpfs.stores.parts import PART_SIZE, Parts
from livedumpfs.stores.remote_objects import deadline, without_secrets

T = TypeVar("T")

SCHEMES: Final = ("s3://", "s3a://")
_PARTS_MOST: Final = 10_000
_PATIENCE_S: Final = 5.0
"""For a server that hangs; what it still takes, a later dump to that name removes."""
_LEFT_S: Final = 86400.0
"""A process that has put no part aside for so long, by the server's clock, has ended."""
_PART: Final = re.compile(r"([0-9a-f]{16})/(\d{5}|zeros)", re.ASCII)
"""Behind KEY.parts/. What has another form is not ours."""
_ZEROS: Final = -1
"""The number of a part that is all zeros."""
_CREDENTIALS: Final = "see docs/object-stores.md for the variables that name the credentials"
_CAUSES: Final = {
    "NoCredentialsError": (errno.EACCES, "there are no credentials", _CREDENTIALS),
    "PartialCredentialsError": (errno.EACCES, "there are no credentials", _CREDENTIALS),
    "ProfileNotFound": (errno.EACCES, "AWS_PROFILE names no profile", _CREDENTIALS),
    "NoRegionError": (errno.EINVAL, "no region is named", "set AWS_REGION"),
    "EndpointConnectionError": (errno.ENXIO, "the server cannot be reached", ""),
    "ConnectTimeoutError": (errno.ETIMEDOUT, "the server does not answer in time", ""),
    "ReadTimeoutError": (errno.ETIMEDOUT, "the server does not answer in time", ""),
    "ConnectionClosedError": (errno.ECONNRESET, "the connection was cut", ""),
    "HTTPClientError": (errno.EIO, "the connection failed", ""),
}
_CODES: Final = {
    "NoSuchBucket": (errno.ENXIO, "there is no such bucket", "make the bucket first"),
    "NoSuchKey": (errno.ENOENT, "there is no such object", ""),
    "404": (errno.ENOENT, "there is no such object", ""),
}


class S3File(Closing):
    """One thread calls. Without finish() there is no object of that name, or still the old one."""

    def __init__(self, place: str, *, force: bool = False, part_size: int = PART_SIZE) -> None:
        """`place`: s3://BUCKET/KEY. UsageError: it is none, or has secrets; TargetError: it cannot
        be written; EEXIST: there is such an object, and no `force`."""
        self.url = without_secrets(place)
        parts = urlsplit(self.url)
        self._bucket, self._key = parts.netloc, parts.path.lstrip("/")
        if not self._bucket or not self._key:
            raise UsageError(f"{self.url} names no object in a bucket")
        self._client = self._do("open", _client)
        self._upload = ""
        self._parts = Parts(self, part_size)
        self._token = os.urandom(8).hex()
        self._force = force
        self._expect_free()
        self._remove_left_parts()

    def _expect_free(self) -> None:
        if not self._force and self._is_there():
            raise TargetError(
                f"cannot dump to {self.url}: there is such an object",
                errno=errno.EEXIST,
                hint="<force> replaces it",
            )

    def _do(self, action: str, call: Callable[[], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return call()
        except (BotoCoreError, ClientError) as error:
            number, cause, hint = _meaning(error)
            raise TargetError(
                f"cannot {action} {self.url}: {cause}", errno=number, hint=hint
            ) from None

    def _is_there(self) -> bool:
        try:
            self._do(
                "look for", lambda: self._client.head_object(Bucket=self._bucket, Key=self._key)
            )
        except TargetError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    # Aside, for Parts.

    def _part_key(self, number: int) -> str:
        return f"{self._folder}{self._token}/{'zeros' if number == _ZEROS else f'{number:05}'}"

    @property
    def _folder(self) -> str:
        return f"{self._key}.parts/"

    def put(self, number: int, data: bytes | bytearray) -> None:
        """See Aside."""
        self._do(
            "write",
            lambda: self._client.put_object(
                Bucket=self._bucket, Key=self._part_key(number), Body=data
            ),
        )

    def get(self, number: int) -> bytes:
        """See Aside."""
        return bytes(
            self._do(
                "read back",
                lambda: self._client.get_object(Bucket=self._bucket, Key=self._part_key(number))[
                    "Body"
                ].read(),
            )
        )

    def write(self, offset: int, data: memoryview) -> None:
        """Bytes for that place; bytes that never come are zeros. TargetError; EFBIG: it is more
        than S3 takes."""
        if offset + len(data) > _PARTS_MOST * self._parts.size:
            raise TargetError(
                f"cannot write {self.url}: it is too large for one object", errno=errno.EFBIG
            )
        self._parts.write(offset, data)

    def finish(self) -> None:
        """The object is there, whole. TargetError; EEXIST: another process has made it meanwhile,
        and no `force`."""
        self._expect_free()
        forms = self._parts.finish()
        names = {"Bucket": self._bucket, "Key": self._key}
        data = forms[0] if forms else b""
        if len(forms) <= 1 and isinstance(data, bytes | bytearray):
            self._do("write", lambda: self._client.put_object(**names, Body=data))
        else:
            self._assemble(forms, names)

    def _assemble(self, forms: list[bytes | bytearray | int | None], names: dict[str, str]) -> None:
        if None in forms:
            self.put(_ZEROS, bytes(self._parts.size))
        made = self._do("write", lambda: self._client.create_multipart_upload(**names))
        self._upload = made["UploadId"]
        upload: dict[str, Any] = {**names, "UploadId": self._upload}
        done = []
        for number, form in enumerate(forms, 1):
            tag = self._do("write", functools.partial(self._add, upload, number, form))
            done.append({"PartNumber": number, "ETag": tag})
        self._complete(upload, done)
        self._upload = ""

    def _complete(self, upload: dict[str, Any], done: list[dict[str, Any]]) -> None:
        whole = {"Parts": done}
        try:
            self._do(
                "write",
                lambda: self._client.complete_multipart_upload(**upload, MultipartUpload=whole),
            )
        except TargetError:
            # The server may have done it, and its answer was lost: then there is no such upload.
            if self._tag() != _tag_of(done):
                raise

    def _tag(self) -> str:
        try:
            names = {"Bucket": self._bucket, "Key": self._key}
            return str(self._do("look for", lambda: self._client.head_object(**names)["ETag"]))
        except TargetError:
            return ""

    def _add(
        self, upload: dict[str, Any], number: int, form: bytes | bytearray | int | None
    ) -> Any:
        if isinstance(form, bytes | bytearray):
            return self._client.upload_part(**upload, PartNumber=number, Body=form)["ETag"]
        key = self._part_key(_ZEROS if form is None else form)
        source = {"Bucket": self._bucket, "Key": key}
        found = self._client.upload_part_copy(**upload, PartNumber=number, CopySource=source)
        return found["CopyPartResult"]["ETag"]

    def _parts_there(self, prefix: str) -> Iterator[tuple[str, str, float]]:
        """Key, token and age in seconds, by the server's clock, of each part."""
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
            now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
            for one in page.get("Contents", []):
                form = _PART.fullmatch(one["Key"].removeprefix(self._folder))
                if form:
                    yield one["Key"], form[1], (now - one["LastModified"]).total_seconds()

    def _remove_left_parts(self) -> None:
        """Of this object, those that killed processes have left."""
        every = self._do("list the parts of", lambda: list(self._parts_there(self._folder)))
        last: dict[str, float] = {}
        for _, token, age in every:
            last[token] = min(age, last.get(token, age))
        self._remove([key for key, token, _ in every if last[token] > _LEFT_S])

    def _remove_parts(self) -> None:
        """Those of this process."""
        own = f"{self._folder}{self._token}/"
        every = self._do("list the parts of", lambda: list(self._parts_there(own)))
        self._remove([key for key, _, _ in every])

    def _remove(self, keys: list[str]) -> None:
        for at in range(0, len(keys), 1000):
            batch = [{"Key": key} for key in keys[at : at + 1000]]
            gone = {"Objects": batch, "Quiet": True}
            call = functools.partial(self._client.delete_objects, Bucket=self._bucket, Delete=gone)
            self._do("remove the parts of", call)

    def close(self) -> None:
        """Remove the parts; and the upload, if it is not finished."""
        self._parts.stop(_PATIENCE_S)
        with suppress(LivedumpError):
            if self._upload:
                self._do(
                    "give up",
                    lambda: self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=self._key, UploadId=self._upload
                    ),
                )
                self._upload = ""
            self._remove_parts()


def _tag_of(done: list[dict[str, Any]]) -> str:
    """What S3 calls an object of these parts: the MD5 of the parts' MD5s, and their number. A name,
    no proof; with encryption by the server it is another."""
    try:
        sums = b"".join(bytes.fromhex(one["ETag"].strip('"')) for one in done)
    except ValueError:
        return "none"
    return f'"{hashlib.md5(sums, usedforsecurity=False).hexdigest()}-{len(done)}"'


def _client() -> Any:
    import boto3
    from botocore.config import Config

    seconds = deadline()
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    config = Config(
        connect_timeout=min(5.0, seconds),
        read_timeout=max(1.0, seconds / 3),
        retries={"total_max_attempts": 3, "mode": "standard"},
    )
    return boto3.client("s3", region_name=region, config=config)


def _meaning(error: Exception) -> tuple[int, str, str]:
    response: Any = getattr(error, "response", None)
    if response:
        code = str(response.get("Error", {}).get("Code", ""))
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _CODES:
            return _CODES[code]
        word = f" ({code})" if code.isalnum() and not code.isdigit() else ""
        if status in (401, 403):
            return errno.EACCES, f"the server does not allow it{word}", _CREDENTIALS
        return errno.EIO, f"the server answers with error {status}{word}", ""
    for kind in type(error).__mro__:
        if kind.__name__ in _CAUSES:
            return _CAUSES[kind.__name__]
    return errno.EIO, f"boto3's {type(error).__name__}", ""
