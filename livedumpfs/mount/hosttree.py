# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree of a host's mount: which files there are, their attributes, what a small one says.

What a file says is looked at for its stat: its length is its size, and it has changed when it says
something else than at the look before.
"""

from __future__ import annotations

import json
import stat
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from livedumpfs.control import Caller, Control, Shown
from livedumpfs.control.calls import DEVICE, MEMORY
from livedumpfs.formats.snapshot_files import INFO, OpenFile
from livedumpfs.mount.attributes import Attributes, Tree, blocks, dump_numbers, numbered
from livedumpfs.mount.contents import Contents

_LINK: Final = "snapshot"
_DUMPS: Final = "dumps"
_DIRECTORIES: Final = ("control", "machine", _DUMPS)


@dataclass(frozen=True)
class Opened:
    """What an open file needs of the tree."""

    image: OpenFile | None
    """Of a dump, but for info.json: read this. None: a small file, or `mem`."""
    make: Callable[[Caller], bytes]
    """What a small file says now. OSError ENODATA: its dump was released."""
    key: Hashable
    bound: Attributes | None
    """Of a dump's file. The tree may no longer show that dump."""


class HostTree:
    """Any thread may call anything."""

    def __init__(self, control: Control, group_mode: int) -> None:
        """`group_mode`: the rights that a group may have, 0: none."""
        self._control = control
        self._group_mode = group_mode
        self._began = time.time_ns()
        self._lock = threading.Lock()
        self._contents = Contents()
        files = control.names()
        self._numbers = numbered((*_DIRECTORIES, *files), 2)
        self._small = [name for name in files if name != MEMORY]
        self._settings = [name for name in files if control.writable(name)]
        self._shown: tuple[int, Tree] = (0, Tree(self._numbers, _DIRECTORIES))
        self._root_changed = self._began

    # -------------------------------------------------------------------- names

    def now(self) -> Tree:
        """The names of now."""
        return self._tree_with(self._control.snapshot())

    def _tree_with(self, shown: Shown | None) -> Tree:
        number = shown.number if shown else 0
        with self._lock:
            if self._shown[0] != number:
                self._contents.drop((INFO, self._shown[0]))
                self._shown = number, self._make_tree(shown)
                self._root_changed = max(time.time_ns(), self._root_changed + 1)
            return self._shown[1]

    def _make_tree(self, shown: Shown | None) -> Tree:
        if not shown:
            return Tree(self._numbers, _DIRECTORIES)
        numbers = self._numbers | _numbers_of(shown)
        return Tree(numbers, _DIRECTORIES, {_LINK: _folder(shown)})

    # --------------------------------------------------------------- attributes

    def attributes(self, name: str, caller: Caller) -> Attributes:
        """Of one file or directory, for that caller. FileNotFoundError."""
        shown = self._control.snapshot()
        tree = self._tree_with(shown)
        if tree.is_directory(name):
            changed = self._root_changed if name in ("", _DUMPS) else self._began
            if shown and name == _folder(shown):
                changed = shown.changed_ns
            return tree.directory(name, 0o500 | (self._group_mode & 0o050), changed)
        if shown and name in tree.links:
            return tree.link(name, shown.changed_ns)
        mode = stat.S_IFREG | self._rights(name)
        if shown and (own := _own_name(name, shown)):
            return self._of_dump(own, tree.numbers[name], mode, shown, caller)
        if name == MEMORY:
            memory = self._control.memory
            size, stored, changed = memory.size, memory.stored, time.time_ns()
        else:
            make = partial(self._control.read, name, keep_error=False)
            since = self._began if name in self._settings else 0
            changed, size = self._look(name, make, caller, since)
            stored = size
        return Attributes(tree.numbers[name], mode, changed, size, stored)

    def _rights(self, name: str) -> int:
        # The misc device shows 0600, as it would in /dev, though it takes no write.
        write = name == DEVICE or self._control.writable(name)
        return (0o600 if write else 0o400) | (self._group_mode & (0o060 if write else 0o040))

    def _of_dump(
        self, own: str, number: int, mode: int, shown: Shown, caller: Caller
    ) -> Attributes:
        if own == INFO:
            made, key = _info_of(shown), (INFO, shown.number)
            changed, size = self._look(key, made, caller, shown.changed_ns, _without_counters)
            return Attributes(number, mode, changed, size, size)
        size, stored = shown.files.size(own), shown.files.stored(own)
        return Attributes(number, mode, shown.changed_ns, size, stored)

    def _look(
        self,
        key: Hashable,
        make: Callable[[Caller], bytes],
        caller: Caller,
        since: int,
        essence: Callable[[bytes], Hashable] = hash,
    ) -> tuple[int, int]:
        """(time of the last change, size). A file that cannot be read now has what it had."""
        with suppress(OSError):
            made = partial(make, caller)
            self._contents.look(key, caller.tid, made, since=since, essence=essence)
        changed, size = self._contents.known(key)
        return changed or self._began, size

    def totals(self) -> tuple[int, int]:
        """(files and directories, blocks) of all; nothing is looked at anew for that."""
        shown = self._control.snapshot()
        sizes = [self._contents.known(name)[1] or 1 for name in self._small]
        sizes.append(self._control.memory.stored)
        if shown:
            files = shown.files
            sizes += [files.stored(name) for name in files.names if name != INFO]
            sizes.append(self._contents.known((INFO, shown.number))[1] or 1)
        return len(self._tree_with(shown).numbers), sum(map(blocks, sizes))

    # ----------------------------------------------------------------- contents

    def open(self, name: str, caller: Caller) -> Opened:
        """A file as it is now. FileNotFoundError."""
        shown = self._control.snapshot()
        own = _own_name(name, shown) if shown else ""
        if not shown or not own:
            self._tree_with(shown).is_directory(name)
            return Opened(None, partial(self._control.read, name), name, None)
        bound = self.attributes(name, caller)
        image = None if own == INFO else shown.files.open(own)
        return Opened(image, _info_of(shown), (INFO, shown.number), bound)

    def content(self, opened: Opened, caller: Caller) -> bytes:
        """All of a small file: what this caller's stat has just counted, or what it says now."""
        counted = self._contents.take(opened.key, caller.tid)
        if counted is None or opened.bound:
            # Made even so: what has gone with its dump has no content.
            made = opened.make(caller)
            return made if counted is None else counted
        return counted

    @contextmanager
    def changing(self, caller: Caller, *, told: bool = False) -> Iterator[None]:
        """Around a step, or a write: what was seen before is old, and what has changed has changed
        now. `told`: nothing changes, but the caller hears what is the case now."""
        try:
            yield
        finally:
            self._contents.forget()
            if not told:
                self.now()
                for name in self._settings:
                    make = partial(self._control.read, name, keep_error=False)
                    self._look(name, make, caller, self._began)


def _folder(shown: Shown) -> str:
    """Of the dump's files: another one for each dump. So an open file, and what the kernel keeps of
    it, is never met under a later dump's name."""
    return f"{_DUMPS}/{shown.number}"


def _own_name(name: str, shown: Shown) -> str:
    """What the dump's file is called in its folder; "": it is none."""
    folder, _, own = name.rpartition("/")
    return own if folder == _folder(shown) else ""


def _numbers_of(shown: Shown) -> dict[str, int]:
    """Of the dump's folder, its files, and the link: other ones for each dump, also after the host
    began anew."""
    first = dump_numbers(shown.instant_ns.to_bytes(8, "little"), shown.number)
    folder = _folder(shown)
    return numbered((folder, _LINK, *(f"{folder}/{name}" for name in shown.files.names)), first)


def _without_counters(info: bytes) -> Hashable:
    """What makes info.json another one. Its counters change with each fault, and a backup is not to
    fail for that; when they are final, the state is another one, too."""
    found = json.loads(info)
    return hash(json.dumps({**found, "counters": None}))


def _info_of(shown: Shown) -> Callable[[Caller], bytes]:
    return lambda caller: shown.files.info_text()
