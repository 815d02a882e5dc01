# SPDX-License-Identifier: GPL-2.0-or-later
"""IcechunkGroup: a Zarr group in an Icechunk repository, local or in an object store. A save is one
commit: readers see the last one, or any before it, and never a part of one. Chunks that did not
change are those of the commit before.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from livedumpfs.errors import LivedumpError, TargetError, os_cause
from livedumpfs.named import nodes
from livedumpfs.named.extra import extra
from livedumpfs.named.group_target import GroupTarget, Stamp, gone
from livedumpfs.named.library_errors import cannot_reach, cannot_write
from livedumpfs.named.local_group import is_empty_folder, lock_folder
from livedumpfs.named.places import is_object_store
from livedumpfs.named.save_record import KEY, SaveRecord, read_record

BRANCH: Final = "main"
_REFERENCES: Final = "refs"
"""A folder that each repository has."""
_ID: Final = "livedumpfs_dump_id"
"""In what a commit says of itself: the save that made it."""


class IcechunkGroup(GroupTarget):
    """See above."""

    sharded = False

    def __init__(self, path: str, *, force: bool = False) -> None:
        """TargetError EEXIST: something else is there, or a group of another program."""
        self.path = path.rstrip("/")
        self._force = force
        self._names: set[str] = set()
        self._same: dict[str, bytes] = {}
        self._before: SaveRecord | None = None
        self._folder = -1
        """Of a local repository: locked and open."""
        try:
            self._repository = open_repository(self.path, create=True)
            self._lock()
            self._session = self._repository.writable_session(BRANCH)
            self._look()
        except (LivedumpError, ImportError):
            self.close()
            raise
        except Exception as error:
            self.close()
            raise cannot_reach(self.path, error) from error

    def _lock(self) -> None:
        """Two commits at once would spoil a repository in a directory."""
        if not is_object_store(self.path):
            self._folder = lock_folder(os.path.realpath(self.path))

    def _look(self) -> None:
        document = nodes.read(self._session.store, nodes.DOCUMENT)
        if document is None:
            return
        with nodes.quiet():
            group = extra("zarr").open_group(self._session.store, mode="r")
            self._names = set(group.keys())
            attributes = group.attrs.asdict()
        try:
            self._before = read_record(attributes)
        except LivedumpError:
            self._before = None
        if self._before is None and not self._force:
            raise TargetError(
                f"branch {BRANCH} of {self.path} has a group that was not saved by livedumpfs",
                errno=errno.EEXIST,
                hint="<force> replaces it by a commit",
            )
        last = next(iter(self._repository.ancestry(branch=BRANCH)))
        # A later commit of another program may have changed chunks without a word in the record.
        if self._before and last.metadata.get(_ID) == self._before.dump_id:
            self.previous = self._before

    def begin(self, documents: Mapping[str, bytes]) -> None:
        """See GroupTarget."""
        try:
            store = self._session.store
            for name in gone(self._names, documents):
                self._remove(name)
            for name, document in documents.items():
                key = f"{name}/{nodes.DOCUMENT}"
                there = nodes.read(store, key)
                if there is not None and json.loads(there) == json.loads(document):
                    self._same[name] = document
                    continue
                self._remove(name)
                nodes.write(store, key, document)
        except Exception as error:
            raise cannot_write(self.path, error) from error

    def _remove(self, name: str) -> None:
        extra("zarr.core.sync").sync(self._session.store.delete_dir(name))

    @property
    def store(self) -> Any:
        """See GroupTarget."""
        return self._session.store

    def previous_document(self, name: str) -> bytes | None:
        """See GroupTarget: what `begin` left as it was."""
        return self._same.get(name)

    def keep(self, key: str, stamp: Stamp | None) -> bool:
        """It is there."""
        del key, stamp
        return True

    def leave_out(self, key: str) -> None:
        """See GroupTarget."""
        nodes.delete(self._session.store, key)

    def publish(self, record: SaveRecord) -> None:
        """A commit."""
        self.expect_its_turn(record.verdict, self._before, force=self._force)
        try:
            document = nodes.group_document({KEY: record.to_json()})
            nodes.write(self._session.store, nodes.DOCUMENT, document)
            said = {_ID: record.dump_id, "verdict": record.verdict}
            self._sync()
            self._session.commit(f"livedumpfs: {record.verdict}", metadata=said)
            self._sync()
        except extra("icechunk").ConflictError as error:
            raise TargetError(
                f"another save was committed to {self.path} meanwhile",
                errno=errno.EBUSY,
                hint="save again",
            ) from error
        except Exception as error:
            raise cannot_write(self.path, error) from error

    def _sync(self) -> None:
        """Icechunk leaves it to the file system when its files are on the disk."""
        libc = ctypes.CDLL(None, use_errno=True)
        if self._folder >= 0 and libc.syncfs(self._folder):
            code = ctypes.get_errno()
            raise OSError(code, os_cause(code), self.path)

    def close(self) -> None:
        """What is not committed does not exist."""
        if self._folder >= 0:
            os.close(self._folder)
        self._folder = -1


def open_repository(path: str, *, create: bool) -> Any:
    """Of icechunk. TargetError."""
    icechunk = extra("icechunk")
    if not is_object_store(path):
        _expect_repository(path, create=create)
    storage = _storage(path)
    if icechunk.Repository.exists(storage):
        return icechunk.Repository.open(storage)
    if not create:
        raise TargetError(f"there is no Icechunk repository {path}", errno=errno.ENOENT)
    return icechunk.Repository.create(storage)


def _expect_repository(path: str, *, create: bool) -> None:
    """What the library panics of. TargetError: EEXIST, EROFS and others."""
    if create:
        try:
            if not os.path.lexists(path):
                os.mkdir(path)
            elif os.path.isdir(path) and not os.access(path, os.W_OK):
                with tempfile.TemporaryFile(dir=path):  # raises, and says why
                    pass
        except OSError as error:
            raise cannot_write(path, error) from error
    if not os.path.lexists(path) or is_empty_folder(path):
        return
    if not os.path.isdir(os.path.join(path, _REFERENCES)):
        raise TargetError(
            f"{path} is there, and is no Icechunk repository",
            errno=errno.EEXIST,
            hint="take it away, or choose another name",
        )


def _storage(path: str) -> Any:
    """Of icechunk, with the environment's credentials. TargetError: no such kind of store."""
    icechunk = extra("icechunk")
    if not is_object_store(path):
        if "ICECHUNK_LOG" not in os.environ:  # it warns of commits at once, which a lock prevents
            icechunk.set_logs_filter("error")
        return icechunk.local_filesystem_storage(os.path.realpath(path))
    parts = urlsplit(path)
    bucket, prefix = parts.netloc, parts.path.strip("/")
    makers: dict[str, Callable[[], Any]] = {
        "s3": lambda: icechunk.s3_storage(
            bucket=bucket, prefix=prefix, from_env=True, **_endpoint()
        ),
        "gs": lambda: icechunk.gcs_storage(bucket=bucket, prefix=prefix, from_env=True),
    }
    if parts.scheme not in makers:
        raise TargetError(
            f"{path}: an Icechunk repository is in a directory, s3:// or gs://", errno=errno.EINVAL
        )
    return makers[parts.scheme]()


def _endpoint() -> dict[str, Any]:
    """Of an S3 server that is not Amazon's, by the variables that obstore takes, too."""
    url = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT")
    if not url:
        return {}
    return {"endpoint_url": url, "allow_http": url.startswith("http:"), "force_path_style": True}
