# SPDX-License-Identifier: GPL-2.0-or-later
"""Store: a place of chunks, with an index and a record for each dump."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from livedumpfs.closing import Closing
from livedumpfs.errors import InvalidDump, LivedumpError, TargetError, UsageError, os_cause
from livedumpfs.stores.about import (
    ABOUT,
    SEALED_ABOUT,
    About,
    StoreLayout,
    check_chunk_size,
    parse_about,
)
from livedumpfs.stores.caibx import Index, parse_index
from livedumpfs.stores.chunk import CHUNK_SIZE, DIGEST, Digest
from livedumpfs.stores.chunks import CastrChunks, Chunks
from livedumpfs.stores.coder import Coder, PlainCoder
from livedumpfs.stores.folder_objects import FolderObjects
from livedumpfs.stores.objects import Objects, folder_path
from livedumpfs.stores.packs import PackChunks
from livedumpfs.stores.record import DumpRecord, parse_record
from livedumpfs.stores.seal import KEY_SIZE, Seal, SealedCoder, SealedObjects
from livedumpfs.stores.store_key import ENCRYPTION, KEY, expect_known, unwrap_key, wrap_key

SCHEME: Final = "store:"
"""Before the place of a store, where a path could also name a file."""
_FILE: Final = "file://"
INDEX: Final = ".caibx"
"""Behind a dump's name: its index."""
RECORD: Final = ".json"
"""Behind a dump's name: its record."""
ENCRYPTED_VARIABLE: Final = "LIVEDUMP_ENCRYPTED"
"""The variable that is 1 where only encrypted stores are to be opened or made."""
LATEST: Final = "latest"
"""Means the dump that was taken last, where none has that name."""
_MAKING_S: Final = 30.0
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)
_DATED: Final = re.compile(r"\d{8}T\d{6}Z-", re.ASCII)
_DATE: Final = len("20261129T153400Z")
"""Letters of the time in a name, to the second."""


class Store(Closing):
    """Use open_store or create_store. Any number of threads may read and put chunks."""

    def __init__(self, objects: Objects, about: About, key: bytes = b"") -> None:
        """`key`: of an encrypted store."""
        self._objects: Objects = objects
        self._folder = objects if isinstance(objects, FolderObjects) else None
        self.about = about
        coder: Coder = PlainCoder()
        if key:
            seal = Seal(key)
            self._objects, coder = SealedObjects(objects, seal), SealedCoder(seal)
        self.chunks: Chunks = CastrChunks(objects)
        if about.layout == "packs":
            self.chunks = PackChunks(objects, self._objects, coder, self.needed)

    @property
    def url(self) -> str:
        """Where it is, for messages."""
        return self._objects.url

    @property
    def objects(self) -> Objects:
        """All that is in it."""
        return self._objects

    def expect_no_links(self) -> None:
        """TargetError ELOOP: a folder in it is a link. Object stores have none."""
        if self._folder:
            self._folder.expect_no_links()

    def names(self) -> list[str]:
        """The names of its dumps, sorted: as they begin with the time, the oldest first."""
        found = (one.name for one in self._objects.names("", deep=False))
        return sorted(n.removesuffix(INDEX) for n in found if n.endswith(INDEX))

    def resolve(self, name: str) -> str:
        """The one dump with that name, or whose name begins so; LATEST: the last one.
        TargetError ENOENT: there is none, or several."""
        every = self.names()
        if name == LATEST and every and name not in every:
            return self._latest(every)
        found = [name] if name in every else [one for one in every if one.startswith(name)]
        if not name:
            found = []
        if len(found) != 1:
            which = "no dump" if not found else f"{len(found)} dumps"
            raise TargetError(
                f"the store {self.url} has {which} {name!r}",
                errno=errno.ENOENT,
                hint=f"livedump list {self.url}",
            )
        return found[0]

    def _latest(self, names: list[str]) -> str:
        """The dump that was taken last, by its name if it has a time; else by its index."""
        dated = [one for one in names if _DATED.match(one)]
        if not dated:
            return max(names, key=lambda one: (self.written_ns(one), one))
        same = [one for one in dated if one[:_DATE] == dated[-1][:_DATE]]
        return max(same, key=self._instant) if len(same) > 1 else same[0]

    def _instant(self, name: str) -> tuple[int, str]:
        with contextlib.suppress(InvalidDump):
            record = self.record(name)
            return record.instant_ns if record else 0, name
        return 0, name

    def index(self, name: str) -> Index:
        """Of the dump with exactly that name. TargetError; InvalidDump: it is damaged."""
        try:
            return parse_index(self._objects.get(name + INDEX))
        except InvalidDump as error:
            raise InvalidDump(
                f"{self.url}/{name}{INDEX} is damaged: {error.message}", hint=error.hint
            ) from error

    def needed(self) -> set[bytes]:
        """The ids of all chunks of all dumps. TargetError; InvalidDump: an index is damaged."""
        found: set[bytes] = set()
        for name in self.names():
            found |= self.index(name).unique()
        return found

    def record(self, name: str) -> DumpRecord | None:
        """Of the dump with exactly that name; None: it has none, as an index of another program.
        TargetError; InvalidDump: it is damaged."""
        try:
            return parse_record(self._objects.get(name + RECORD))
        except InvalidDump as error:
            raise InvalidDump(f"{self.url}/{name}{RECORD} is damaged: {error.message}") from error
        except TargetError as error:
            if error.errno != errno.ENOENT:
                raise
            return None

    def written_ns(self, name: str) -> int:
        """When the index of the dump with exactly that name was written, in ns since the epoch; 0:
        there is none."""
        listed = self._objects.names("", deep=False)
        return next((one.changed_ns for one in listed if one.name == name + INDEX), 0)

    def publish(self, name: str, index: Index, record: DumpRecord) -> None:
        """Make it a dump of the store, whose chunks are all put: they are made durable first, the
        index comes last. TargetError EEXIST: there is one of that name. After a failure there is no
        such dump, as far as the place lets it be removed."""
        if not _NAME.fullmatch(name):
            raise UsageError(f"a dump cannot have the name {name!r}")
        if self._objects.has(name + INDEX):
            raise TargetError(f"the store {self.url} has a dump {name} already", errno=errno.EEXIST)
        self.chunks.flush()
        try:
            self._objects.put(name + RECORD, record.pack())
            self._objects.put(name + INDEX, index.pack())
            self._objects.sync()
            self.chunks.expect_kept()
        except BaseException:
            with contextlib.suppress(LivedumpError):  # what failed first is told
                self._objects.withdraw([name + INDEX, name + RECORD])
            raise

    def remove(self, name: str) -> None:
        """Take the dump out of the store; its chunks stay until gc. The index goes first: without
        it there is no dump. Only while the store is locked alone."""
        self._objects.delete([name + INDEX])
        self._objects.delete([name + RECORD])

    @contextmanager
    def lock(self, *, alone: bool = False, wait_s: float = 0) -> Iterator[None]:
        """See Objects.lock. A dump holds it from before its first chunk until it is published."""
        with self._objects.lock(alone=alone, wait_s=wait_s):
            self.chunks.renew()
            yield

    def close(self) -> None:
        """Give back what it holds; harmless when done twice."""
        self.chunks.close()
        self._objects.close()


def place_of(url: str) -> str:
    """Without the scheme `store:`."""
    return url.removeprefix(SCHEME)


def is_store(url: str) -> bool:
    """Whether `url` names a store, by its scheme or by what is there."""
    return url.startswith(SCHEME) or os.path.isfile(os.path.join(url, ABOUT))


def takes_dumps(url: str) -> bool:
    """Whether `url` names a store that a new dump can go to. UsageError: it names a dump in one."""
    place, mark, _ = url.rpartition("#")
    if mark and (url.startswith(SCHEME) or (is_store(place) and not os.path.lexists(url))):
        raise UsageError(
            f"no dump can be written to {url}: a store gives its dumps their names",
            hint=f"the store is {place}",
        )
    return is_store(url)


def open_objects(place: str) -> Objects:
    """Of a place without `store:`: a folder, or as obstore names it (s3://...). TargetError: it
    cannot be opened."""
    if not _is_remote(place):
        return FolderObjects(folder_path(place))
    from livedumpfs.stores.remote_objects import RemoteObjects

    return RemoteObjects(place)


def open_store(url: str, *, identity: str | None = None) -> Store:
    """`identity`: the file with the identity that opens an encrypted one; None: the variable
    LIVEDUMP_IDENTITY names it. TargetError: it cannot be opened; ENOENT: there is none.
    InvalidDump: it is damaged, of a newer livedumpfs, or has another key. UsageError: it is not
    encrypted, and an identity is given, or ENCRYPTED_VARIABLE is set."""
    place = place_of(url)
    objects = open_objects(place)
    try:
        about = parse_about(objects.get(ABOUT))
        store = Store(objects, about, _key(objects, about, identity))
        if about.encryption:
            _expect_unchanged(store)
        return store
    except InvalidDump as error:
        objects.close()
        raise InvalidDump(f"{place} is no valid store: {error.message}") from error
    except UsageError as error:
        objects.close()
        raise UsageError(
            f"cannot open the store {place}: {error.message}", hint=error.hint
        ) from error
    except BaseException:
        objects.close()
        raise


def _key(objects: Objects, about: About, identity: str | None) -> bytes:
    expect_known(about.encryption)
    if not about.encryption:
        if objects.has(KEY):
            raise InvalidDump(f"it says that it is not encrypted, and has a {KEY}")
        if identity is not None or _only_encrypted():
            raise UsageError(
                "it is not encrypted, and an identity is named",
                hint=f"that means an encrypted one, and so does {ENCRYPTED_VARIABLE}=1",
            )
        return b""
    if not objects.has(KEY):
        raise InvalidDump(f"its object {KEY} is missing, without which nothing in it can be read")
    return unwrap_key(objects.get(KEY), identity, KEY_SIZE)


def _only_encrypted() -> bool:
    return os.environ.get(ENCRYPTED_VARIABLE) == "1"


def _expect_unchanged(store: Store) -> None:
    """InvalidDump: what the store says of itself is not what it said when it was made."""
    try:
        same = parse_about(store.objects.get(SEALED_ABOUT)) == store.about
    except TargetError as error:
        if error.errno != errno.ENOENT:
            raise
        raise InvalidDump(f"its object {SEALED_ABOUT} is missing") from error
    except InvalidDump as error:
        raise InvalidDump(f"its object {SEALED_ABOUT} is damaged: {error.message}") from error
    if not same:
        raise InvalidDump(f"its {ABOUT} was changed after it was made")


def create_store(
    url: str,
    *,
    chunk_size: int = CHUNK_SIZE,
    digest: Digest = DIGEST,
    layout: StoreLayout | None = None,
    recipients: Sequence[str] = (),
) -> Store:
    """Make a store in a folder that is missing or empty, or in an object store. `layout`: None,
    packs where they are needed. `recipients`: encrypted, for these; see store_key. UsageError: no
    such chunk size or recipient, no such layout with encryption, no recipients where
    ENCRYPTED_VARIABLE is set, or a place with "#"; TargetError: it cannot be made; EEXIST:
    something is there."""
    check_chunk_size(chunk_size)
    place = place_of(url)
    if "#" in place:
        raise UsageError(
            f"cannot make the store {place}: in the names of stores, # is before a dump's name"
        )
    if not recipients and _only_encrypted():
        raise UsageError(
            f"cannot make the store {place}: there is none, and an identity is named for it",
            hint="check that the place is the right one, and mounted; a new one needs a recipient",
        )
    about = About(
        chunk_size=chunk_size,
        digest=digest,
        layout=layout or ("packs" if recipients or _is_remote(place) else "castr"),
        encryption=ENCRYPTION if recipients else "",
    )
    if recipients and about.layout != "packs":
        raise UsageError(
            f"an encrypted store cannot have the layout {about.layout}: the names of its chunks "
            "would tell what is in them",
        )
    key = os.urandom(KEY_SIZE) if recipients else b""
    wrapped = wrap_key(key, recipients) if recipients else b""
    _make_folder(place)
    objects = open_objects(place)
    try:
        _left_by_a_killed_one(objects)  # before there is a file `lock`
        with objects.lock(alone=True, wait_s=_MAKING_S):  # several may want to make it
            objects.delete(_left_by_a_killed_one(objects))
            if recipients:
                objects.put(KEY, wrapped)
            store = Store(objects, about, key)
            if recipients:
                store.objects.put(SEALED_ABOUT, about.pack())
            objects.put(ABOUT, about.pack())
            objects.sync()
        return store
    except BaseException:
        objects.close()
        raise


def _left_by_a_killed_one(objects: Objects) -> set[str]:
    """Names of what is there because a process was killed before it wrote ABOUT: no store yet.
    TargetError EEXIST: something else is there."""
    found = {one.name for one in itertools.islice(objects.names(""), 3)}
    if found - {KEY, SEALED_ABOUT}:
        raise TargetError(
            f"cannot make a store in {objects.url}: it is not empty", errno=errno.EEXIST
        )
    return found


def _is_remote(place: str) -> bool:
    return "://" in place and not place.startswith(_FILE)


def _make_folder(place: str) -> None:
    """Object stores have none."""
    if _is_remote(place):
        return
    path = folder_path(place)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        code = error.errno or errno.EIO
        raise TargetError(f"cannot make the store {path}: {os_cause(code)}", errno=code) from error
