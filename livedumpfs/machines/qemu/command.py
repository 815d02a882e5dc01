# SPDX-License-Identifier: GPL-2.0-or-later
"""QemuCommand: the user's QEMU command line, and what is added to it."""

from __future__ import annotations

import mmap
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from livedumpfs.errors import UsageError
from livedumpfs.machines.qemu.options import (
    Option,
    Values,
    is_on,
    parse_qemu_size,
    quote,
    read_options,
)
from livedumpfs.machines.qemu.refusals import check_options, refuse

_DEFAULT_RAM: Final = 128 << 20
_RAM_ALIGNMENT: Final = 8192
_BACKEND: Final = "memory-backend-"
_SHAREABLE: Final = {
    "memory-backend-file": False,
    "memory-backend-memfd": True,
    "memory-backend-shm": True,
}
"""Backends with a file behind them, and whether they are shared when nothing is said."""
_NAMED_SO: Final = re.compile(r"qemu-system-.*|(?:qemu-)?kvm")
_QEMU: Final = re.compile(r"(?:[^,=]*/)?qemu-system-\w+|[^,=]*/(?:qemu-)?kvm", re.ASCII)
"""A word behind the first: no value of an option, as far as can be seen."""
_QEMU_SAYS: Final = b"QEMU emulator version"
_ELF: Final = b"\x7fELF"
_NO_PATH: Final = "x-use-canonical-path-for-ramblock-id=off"
_USUAL_IDS: Final = (("microvm", "microvm.ram"), ("", "pc.ram"))
"""By how the machine's type begins: what QEMU calls the RAM that it makes itself (default-ram-id of
`query-machines`), so that snapshots and migrations go to a QEMU without us, and come from there."""
_ONE_BACKEND: Final = "give the guest one memory backend with share=on"
_LEAVE_IT_OUT: Final = (
    "leave it out: livedump makes a shared memory backend; or write "
    "-object memory-backend-memfd,id=ram,size=SIZE,share=on -machine memory-backend=ram"
)


@dataclass(frozen=True)
class QemuCommand:
    """A command line whose guest can be dumped live."""

    argv: tuple[str, ...]
    """As the user wrote it, the program first."""
    backend: str
    """Id of the memory backend that is the guest's RAM."""
    ram_size: int
    """Bytes of it."""
    own_backend: bool
    """The backend is not the user's: prepared() adds it."""
    stopped: bool
    """The user asked that the guest does not start by itself (-S)."""

    @classmethod
    def parse(cls, argv: Sequence[str]) -> QemuCommand:
        """Look at a command line. UsageError: it has something with which live dumps cannot be;
        the sentence says what and why, the hint what to do."""
        if not argv:
            raise UsageError("no QEMU to run", hint="write: -- qemu-system-x86_64 OPTIONS")
        at = _find_qemu(argv)
        options = read_options(argv[at + 1 :])
        check_options(options)
        stopped = any(option.name == "S" for option in options)
        named = _named_backend(options)
        if named is None:
            return cls(tuple(argv), _usual_id(options), _ram_size(options), True, stopped)
        return cls(tuple(argv), named["id"], _backend_size(named), False, stopped)

    @property
    def program(self) -> str:
        """What is started, as the user wrote it: QEMU, or what starts that."""
        return self.argv[0]

    @property
    def qemu(self) -> str:
        """QEMU's program, which env, taskset or numactl may stand before."""
        return self.argv[_find_qemu(self.argv)]

    def prepared(self, qmp_socket: str) -> list[str]:
        """What to run: RAM in a shared memory backend, a QMP server of ours at `qmp_socket`
        besides those that are there, and a guest that waits for `cont`."""
        return [
            *self.argv,
            *(self._memory() if self.own_backend else ()),
            *(() if self.stopped else ("-S",)),
            *("-qmp", f"unix:{quote(qmp_socket)},server=on,wait=off"),
        ]

    def _memory(self) -> list[str]:
        # Without the last, old machine types put a path before the name of the RAM.
        made = f"memory-backend-memfd,id={self.backend},size={self.ram_size},share=on,{_NO_PATH}"
        # QEMU merges all its -machine options; the type stays what it was.
        return ["-object", made, "-machine", f"memory-backend={self.backend}"]


def _find_qemu(argv: Sequence[str]) -> int:
    """Where the program stands whose options follow; the first word unless that is no QEMU and
    another is named so."""
    if _NAMED_SO.fullmatch(os.path.basename(argv[0])) or qemu_file(argv[0]):
        return 0
    return next((at for at, word in enumerate(argv) if _QEMU.fullmatch(word)), 0)


def qemu_file(program: str) -> str:
    """Name of the file that runs when `program` is started, if it is a QEMU, whatever it is called;
    empty: a script, a shell, or some other program that starts one."""
    path = os.path.realpath(shutil.which(program) or program)
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
            if content[: len(_ELF)] == _ELF and content.find(_QEMU_SAYS) >= 0:
                return os.path.basename(path)
    except (OSError, ValueError):  # it will be told when it is started; or it is empty
        pass
    return ""


def _merged(options: Sequence[Option], name: str) -> Values:
    """All options of a name that QEMU takes together; the last one that says a thing wins."""
    merged: dict[str, str] = {}
    for option in options:
        if option.name == name:
            merged.update(option.values)
    return merged


def _usual_id(options: Sequence[Option]) -> str:
    kind = _merged(options, "machine").get("type", "")
    return next(name for start, name in _USUAL_IDS if kind.startswith(start))


def _ram_size(options: Sequence[Option]) -> int:
    memory, machine = _merged(options, "m"), _merged(options, "machine")
    size = _DEFAULT_RAM
    if "size" in memory:
        size = parse_qemu_size(memory["size"], unit="m")
    elif "memory.size" in machine:
        size = parse_qemu_size(machine["memory.size"])
    if size <= 0:
        raise UsageError("the guest has no memory", hint="write -m SIZE")
    return -(-size // _RAM_ALIGNMENT) * _RAM_ALIGNMENT


def _named_backend(options: Sequence[Option]) -> Values | None:
    """The user's own backend of the guest's RAM. UsageError: it will not do."""
    made = _made_backends(options)
    ram = _ram_backends(options)
    spare = made.keys() - set(ram) - _other_backends(options)
    if len(set(ram)) > 1:
        ids = ", ".join(sorted(set(ram)))
        raise refuse(f"memory backends {ids}", "the guest's RAM is in pieces", _ONE_BACKEND)
    if not ram and not spare:
        return None
    if spare:
        one = min(spare)
        raise refuse(
            f"memory backend {one}",
            "it is not the guest's RAM",
            f"name it with -machine memory-backend={one}, or leave it out",
        )
    if ram[0] not in made:
        raise UsageError(f"no -object makes the memory backend {ram[0]!r}")
    _check_backend(made[ram[0]])
    return made[ram[0]]


def _made_backends(options: Sequence[Option]) -> dict[str, Values]:
    found = (option.values for option in options if option.name == "object")
    backends = (values for values in found if values.get("qom-type", "").startswith(_BACKEND))
    return {values.get("id", ""): values for values in backends}


def _ram_backends(options: Sequence[Option]) -> list[str]:
    """Ids of what the machine and its NUMA nodes name."""
    nodes = (option.values.get("memdev") for option in options if option.name == "numa")
    machine = _merged(options, "machine").get("memory-backend")
    return [one for one in (machine, *nodes) if one is not None]


def _other_backends(options: Sequence[Option]) -> set[str]:
    """Ids of memory that is not RAM. UsageError: a device that is more RAM (DIMM, virtio-mem)."""
    found: set[str] = set()
    for option in options:
        values = option.values if option.name == "device" else {}
        if "memdev" not in values:
            continue
        driver = values.get("driver", "")
        if not driver.startswith("ivshmem"):
            raise refuse(f"-device {driver}", "it is RAM in a backend of its own", _ONE_BACKEND)
        found.add(values["memdev"])
    return found


def _check_backend(backend: Values) -> None:
    kind, name = backend["qom-type"], backend["id"]
    what = f"memory backend {name}"
    if kind not in _SHAREABLE:
        raise refuse(what, f"{kind} has no memory that can be shared", _LEAVE_IT_OUT)
    if not is_on(backend.get("share"), default=_SHAREABLE[kind]):
        raise refuse(what, "it is not shared", f"add share=on to -object {kind},id={name}")
    if is_on(backend.get("hugetlb")):
        raise refuse(what, "it has huge pages", "use hugetlb=off; pages are saved one by one")
    if is_on(backend.get("readonly")):
        raise refuse(what, "it is read-only", "leave out readonly=on")
    if parse_qemu_size(backend.get("offset", "0")):
        raise refuse(what, "it does not begin where its file does", "leave out offset=")


def _backend_size(backend: Values) -> int:
    if "size" not in backend:
        raise UsageError(f"memory backend {backend['id']} has no size", hint="add size=SIZE")
    return parse_qemu_size(backend["size"])
