# SPDX-License-Identifier: GPL-2.0-or-later
"""What completion offers: hosts, targets, dumps. A shell asks at each Tab, with
`livedump __complete KIND WORD`: nothing slow is imported, and no host is asked."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

COMMAND: Final = "__complete"
"""First word of a command line that is such a question."""
_INDEX: Final = ".caibx"
"""Ending of a dump in a store."""
_STORE: Final = "store:"
_VIRTUAL: Final = ("ram", "zram", "sr", "fd")
"""Block devices that are no targets; loop devices count when they have a file."""


def hosts(word: str) -> Iterator[str]:
    """Names of the hosts that run here, and of their machines where only one has that."""
    from livedumpfs.hosts import registry

    running = registry.running()
    machines = [one.machine for one in running]
    yield from (one.name for one in running)
    yield from (name for name in machines if machines.count(name) == 1)


def targets(word: str, root: Path = Path("/")) -> Iterator[str]:
    """Block devices with a size, and stores beside which the word is; shells add files."""
    for device in sorted((root / "sys/class/block").glob("*")):
        try:
            sectors = int((device / "size").read_text())
        except (OSError, ValueError):
            continue
        if sectors and device.name.rstrip("0123456789") not in _VIRTUAL:
            yield f"/dev/{device.name}"
    yield _STORE
    if word.startswith(_STORE):
        yield from (_STORE + one for one in _folders(word.removeprefix(_STORE)))


def dumps(word: str) -> Iterator[str]:
    """Dumps of the store before the `#`, and `latest`; without one, the stores there are."""
    store, mark, _ = word.partition("#")
    if not mark:
        yield from (f"{one}#latest" for one in _folders(word) if _names(one))
        return
    names = _names(store.removeprefix(_STORE))
    yield from (f"{store}#{one}" for one in [*names, *(["latest"] if names else [])])


def _folders(word: str) -> list[str]:
    return [one for one in sorted(glob.glob(f"{glob.escape(word)}*")) if os.path.isdir(one)]


def _names(store: str) -> list[str]:
    found = sorted(Path(store).glob(f"*{_INDEX}"))
    return [one.name.removesuffix(_INDEX) for one in found]


KINDS: Final[dict[str, Callable[[str], Iterator[str]]]] = {
    "hosts": hosts,
    "targets": targets,
    "dumps": dumps,
}


def candidates(kind: str, word: str) -> list[str]:
    """Those that begin with the word. Names with a line's end in them cannot be offered."""
    find = KINDS.get(kind)
    found = find(word) if find else iter(())
    return [one for one in dict.fromkeys(found) if one.startswith(word) and "\n" not in one]
