# SPDX-License-Identifier: GPL-2.0-or-later
"""RemoteObjects: objects in an object store (S3, Google Cloud Storage, Azure), through obstore.

A put there is atomic, and durable when it returns. What such a store has not is a lock: lease.py.
"""

from __future__ import annotations

import datetime
import errno
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

from livedumpfs.errors import TargetError, UsageError
from livedumpfs.stores.lease import FOLDER, Lease, take_lease
from livedumpfs.stores.object_sizes import most_bytes
from livedumpfs.stores.objects import Bytes, Listed
from livedumpfs.stores.refusal import refused

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore, RetryConfig

T = TypeVar("T")

DEADLINE_S: Final = 180.0
"""Seconds for which a request is tried again, by default."""
DEADLINE_VARIABLE: Final = "LIVEDUMP_REMOTE_DEADLINE"
"""The variable that says other seconds."""
_DEADLINES: Final = (1.0, 300.0)
_REQUEST_S: Final = 120.0
"""Most seconds of one try. It must be long enough for a pack over a slow line."""
_RETRIES: Final = 10
_LISTS: Final = 3
"""How often a list is asked for whose answer is cut."""
_YES: Final = ("true", "1", "yes", "on", "y")
_OTHERS: Final = ("abfs", "abfss")
"""Schemes that have the container where others have a user."""


class RemoteObjects:
    """See Objects."""

    def __init__(self, place: str, deadline_s: float | None = None) -> None:
        """`place`: as obstore's from_url takes it, without secrets. `deadline_s`: for which a
        request is tried again; None: the variable, or the default. UsageError: it has secrets, or
        is of no known kind; TargetError: no credentials are to be had."""
        self.url = without_secrets(place)
        self.deadline_s = deadline() if deadline_s is None else deadline_s
        self._leases: set[Lease] = set()
        self._guard = threading.Lock()
        self._store = _open(self.url, self.deadline_s)

    def _place(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _do(self, action: str, name: str, call: Callable[[], T]) -> T:
        from obstore.exceptions import BaseError

        try:
            return call()
        except (BaseError, OSError, ValueError, NotImplementedError) as error:
            raise refused(action, self._place(name), error) from None

    def _held(self) -> list[Lease]:
        with self._guard:
            return list(self._leases)

    def _expect_lease(self) -> None:
        for lease in self._held():
            lease.expect_held()

    def get(self, name: str) -> bytes:
        """See Objects."""
        import obstore

        most = most_bytes(name)

        def read() -> bytes | int:
            found = obstore.get(self._store, name)
            size = found.meta["size"]
            return bytes(found.bytes()) if size <= most else size

        found = self._do("read", name, read)
        if isinstance(found, int):
            raise TargetError(
                f"cannot read {self._place(name)}: it has {found} bytes, more than {most}",
                errno=errno.EFBIG,
            )
        return found

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """See Objects."""
        import obstore

        if not length:
            return b""
        return self._do(
            "read",
            name,
            lambda: bytes(obstore.get_range(self._store, name, start=start, length=length)),
        )

    def put(self, name: str, data: Bytes) -> None:
        """See Objects. TargetError ESTALE: the lock that is held has been lost."""
        self._expect_lease()
        if "/" in name:  # what comes late of it is garbage, whatever others did meanwhile
            self._put(name, data)
            return
        with self._given_up_in_doubt():
            self._put(name, data)
        # Of gc that took the lock for over, and of what was written, one sees the other.
        try:
            for lease in self._held():
                lease.look()
        except TargetError:
            with suppress(TargetError):
                self.withdraw([name])
            raise

    @contextmanager
    def _given_up_in_doubt(self) -> Iterator[None]:
        """For requests that must not be done after the lock was let go. One that failed may have
        been given up alone: the server does it later."""
        try:
            yield
        except TargetError:
            for lease in self._held():
                lease.doubt()
            raise

    def _put(self, name: str, data: Bytes) -> None:
        import obstore

        whole = data if isinstance(data, bytes) else bytes(data)
        # One request: what a killed process leaves of a multipart upload is invisible, and costs.
        self._do("write", name, lambda: obstore.put(self._store, name, whole, use_multipart=False))

    def has(self, name: str) -> bool:
        """See Objects."""
        import obstore

        try:
            self._do("look for", name, lambda: obstore.head(self._store, name))
        except TargetError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    def names(self, prefix: str, *, deep: bool = True) -> Iterator[Listed]:
        """See Objects."""
        import obstore

        where = prefix.rstrip("/") or None
        if deep:
            for page in self._pages(prefix, where):
                yield from (_listed(one) for one in page if not _is_lock(one["path"]))
            return
        for left in reversed(range(_LISTS)):
            try:
                found = self._do(
                    "list", prefix, lambda: obstore.list_with_delimiter(self._store, where)
                )
                break
            except TargetError as error:
                if error.errno != errno.ECONNRESET or not left:
                    raise
        yield from (_listed(one) for one in found["objects"])

    def _pages(self, prefix: str, where: str | None) -> Iterator[Sequence[ObjectMeta]]:
        """Where an answer was cut, the list goes on behind its last object: obstore does not try
        again what it has begun to read."""
        import obstore

        left, last = _LISTS, None
        while True:
            stream = obstore.list(self._store, where, offset=last, chunk_size=1000)
            following = functools.partial(next, stream, None)
            try:
                while (page := self._do("list", prefix, following)) is not None:
                    yield page
                    last = page[-1]["path"] if page else last
                return
            except TargetError as error:
                left -= 1
                if error.errno != errno.ECONNRESET or not left:
                    raise

    def delete(self, names: Iterable[str]) -> None:
        """See Objects. TargetError ESTALE: the lock that is held has been lost."""
        batch = list(names)
        for at in range(0, len(batch), 1000):
            self._expect_lease()
            with self._given_up_in_doubt():
                self._delete(batch[at : at + 1000])

    def withdraw(self, names: Iterable[str]) -> None:
        """See Objects: also when the lock that is held has been lost."""
        for name in names:
            self._delete([name])

    def _delete(self, names: list[str]) -> None:
        import obstore

        try:
            self._do("remove", names[0], lambda: obstore.delete(self._store, names))
        except TargetError as error:
            if error.errno != errno.ENOENT:
                raise
            if len(names) > 1:  # the store ends at the first that is not there
                for name in names:
                    self._delete([name])

    def clean(self) -> int:
        """See Objects: what was not put whole is not there."""
        return 0

    def sync(self) -> None:
        """See Objects: all is durable when put() returns."""

    @contextmanager
    def lock(self, *, alone: bool, wait_s: float) -> Iterator[None]:
        """See Objects: an object below `locks/`, see lease.py."""
        lease = take_lease(self, alone=alone, wait_s=wait_s)
        with self._guard:
            self._leases.add(lease)
        try:
            with lease:
                yield
                lease.expect_held()
        finally:
            with self._guard:
                self._leases.discard(lease)

    # What lease.py needs beside the public calls.

    def put_lock(self, name: str, data: bytes) -> None:
        """Write a lock's object."""
        self._put(name, data)

    def delete_locks(self, names: list[str]) -> None:
        """Remove locks' objects."""
        self._delete(names)

    def locks(self) -> list[Listed]:
        """The locks' objects."""
        return list(self.names(FOLDER, deep=False))

    def close(self) -> None:
        """See Objects: nothing is held."""


def _is_lock(path: str) -> bool:
    return path.startswith(FOLDER)


def _listed(found: ObjectMeta) -> Listed:
    changed = int(found["last_modified"].timestamp() * 1000) * 1_000_000
    return Listed(found["path"], found["size"], changed)


def deadline() -> float:
    """Seconds for which a request is tried again. UsageError: the variable says something else."""
    said = os.environ.get(DEADLINE_VARIABLE)
    if not said:
        return DEADLINE_S
    least, most = _DEADLINES
    try:
        found = float(said)
    except ValueError:
        found = 0
    if not least <= found <= most:
        raise UsageError(f"{DEADLINE_VARIABLE} is not a number of seconds from 1 to 300: {said!r}")
    return found


def without_secrets(place: str) -> str:
    """UsageError: it has some: they would be in the list of processes, in logs and in messages."""
    parts = urlsplit(place)
    user, at, rest = parts.netloc.rpartition("@")
    clean = urlunsplit((parts.scheme, rest, parts.path.rstrip("/"), "", ""))
    if parts.query or parts.fragment or ":" in user or (at and parts.scheme not in _OTHERS):
        raise UsageError(
            f"the address of {clean} has more than a place in it: credentials do not go there",
            hint="credentials come from the environment; docs/object-stores.md names the variables",
        )
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def _of_client() -> dict[str, Any]:
    """What the environment says of connections. obstore asks it only where it is given no options
    at all."""
    found: dict[str, Any] = {}
    for word in ("allow_http", "allow_invalid_certificates", "proxy_url", "proxy_excludes"):
        for family in ("AWS", "AZURE", "GOOGLE"):
            said = os.environ.get(f"{family}_{word.upper()}")
            if said:
                found[word] = said.lower() in _YES if word.startswith("allow") else said
    return found


def _open(place: str, deadline_s: float) -> ObjectStore:
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    request = min(_REQUEST_S, deadline_s)
    options = {"timeout": f"{int(request * 1000)}ms", "connect_timeout": "5s"} | _of_client()
    retry: RetryConfig = {
        "max_retries": _RETRIES,
        "retry_timeout": datetime.timedelta(seconds=deadline_s),
        "backoff": {
            "init_backoff": datetime.timedelta(milliseconds=100),
            "max_backoff": datetime.timedelta(seconds=min(15.0, deadline_s / 4)),
            "base": 2,
        },
    }
    more: dict[str, Any] = {"client_options": options, "retry_config": retry}
    if place.startswith(("s3://", "s3a://")) and os.environ.get("AWS_PROFILE"):
        more["credential_provider"] = _profile(place)
    if place.startswith("memory:"):
        more = {}
    opened: Callable[..., ObjectStore] = from_url
    try:
        return opened(place, **more)
    except (BaseError, ValueError) as error:
        if "Unrecognised" in str(error):
            raise UsageError(f"{place} is no place of a known kind: s3, gs, az, https") from None
        raise refused("open", place, error) from None


def _profile(place: str) -> Any:
    """What boto3 finds for AWS_PROFILE."""
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except (BotoCoreError, ValueError):
        raise TargetError(
            f"cannot open {place}: the profile that AWS_PROFILE names has no credentials",
            errno=errno.EACCES,
        ) from None
