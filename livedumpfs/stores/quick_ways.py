# SPDX-License-Identifier: GPL-2.0-or-later
"""QuickWays: to the chunks of a store where this user alone can write. What was a folder there
stays one, so that the way to a file is not walked again for each: a third of the system calls."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from livedumpfs.stores.file_calls import is_full, name_first

_OTHERS: Final = 0o022
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class QuickWays:
    """To files "TOP/FOLDER/FILE" of a place. Any number of threads may call. Where something is not
    as expected the caller walks the whole way, which says why."""

    def __init__(self, place: int, allowed: Callable[[], bool]) -> None:
        """`place`: descriptor of a folder, the caller's; `allowed`: whether there may be any, asked
        when the first one is wanted."""
        self._place, self._allowed = place, allowed
        self._tops: dict[str, _OwnFolders | None] = {}
        self._seen: list[tuple[str, _OwnFolders]] = []
        self._opened: list[int] = []
        self._lock = threading.Lock()

    def has(self, name: str) -> bool | None:
        """Whether there is such a file, and not an empty one; None: walk there."""
        with suppress(OSError):
            if way := self._way(name):
                return way[0].has(way[1])
        return None

    def put(self, name: str, beside: str, data: memoryview) -> bool:
        """Write the file, whole or not at all, if there is none; `beside`: the ending that it has
        until then. False: walk there, nothing was written."""
        with suppress(OSError):
            if way := self._way(name):
                try:
                    way[0].put(way[1], beside, data)
                    return True
                except FileNotFoundError:  # the folder of them all is another one by now
                    self._tops.pop(name.partition("/")[0], None)
        return False

    def watch(self, top: str) -> None:
        """What was found in that folder is relied on: moved() knows it from now on."""
        with suppress(OSError):
            self._way(f"{top}/folder/file")

    def moved(self) -> str:
        """A top folder whose files are not where its name leads any more; "": none."""
        return next((top for top, one in self._seen if not one.is_at(self._place, top)), "")

    def _way(self, name: str) -> tuple[_OwnFolders, str] | None:
        top, _, rest = name.partition("/")
        if rest.count("/") != 1:
            return None
        if top not in self._tops:
            with self._lock:
                if top not in self._tops:
                    self._tops[top] = self._look_at(top)
        found = self._tops.get(top)
        return (found, rest) if found else None

    def _look_at(self, top: str) -> _OwnFolders | None:
        """None: others can change it. OSError: there is none (yet)."""
        fd = os.open(top, _FOLDER, dir_fd=self._place)
        self._opened.append(fd)
        if not (_is_own(self._place) and _is_own(fd) and self._allowed()):
            return None
        own = _OwnFolders(fd)
        self._seen.append((top, own))
        return own

    def close(self) -> None:
        """Harmless when done twice. A thread that hung until now finds nothing: what has the number
        of a closed descriptor by then is another's."""
        self._place = -1
        for _, one in self._seen:
            one.forget()
        self._tops.clear()
        self._seen.clear()
        while self._opened:
            os.close(self._opened.pop())


def _is_own(folder: int) -> bool:
    """Whether no user but this one (and root) can put something into that folder."""
    status = os.fstat(folder)
    return status.st_uid == os.geteuid() and not status.st_mode & _OTHERS


class _OwnFolders:
    """Those of one top folder. OSError: not as expected."""

    def __init__(self, top: int) -> None:
        self._fd = top
        self._known: set[str] = set()

    def forget(self) -> None:
        self._fd = -1

    def has(self, name: str) -> bool:
        try:
            self._know(name[: name.index("/")])
            return is_full(name, self._fd)
        except FileNotFoundError:
            return False

    def is_at(self, place: int, name: str) -> bool:
        with suppress(OSError):
            there = os.stat(name, dir_fd=place, follow_symlinks=False)
            return os.path.samestat(there, os.fstat(self._fd))
        return False

    def _know(self, folder: str) -> None:
        """FileNotFoundError: there is none. NotADirectoryError: a link may be in its place."""
        if folder not in self._known:
            if not stat.S_ISDIR(os.stat(folder, dir_fd=self._fd, follow_symlinks=False).st_mode):
                raise NotADirectoryError
            self._known.add(folder)

    def _make(self, folder: str) -> None:
        if folder not in self._known:
            try:
                os.mkdir(folder, 0o700, dir_fd=self._fd)
                self._known.add(folder)
            except FileExistsError:
                self._know(folder)

    def put(self, name: str, beside: str, data: memoryview) -> None:
        self._make(name[: name.index("/")])
        unfinished = name + beside
        try:
            self._write(unfinished, data)
            name_first(self._fd, unfinished, name)
        except BaseException:
            with suppress(OSError):
                os.unlink(unfinished, dir_fd=self._fd)
            raise

    def _write(self, name: str, data: memoryview) -> None:
        fd = os.open(name, _NEW, 0o600, dir_fd=self._fd)
        try:
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
