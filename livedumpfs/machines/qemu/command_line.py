# SPDX-License-Identifier: GPL-2.0-or-later
"""QemuCommand: the user's QEMU command line, and the options that are added to it."""

from __future__ import annotations

import mmap
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from livedumpfs.errors import UsageError
from livedumpfs.machines.qemu.asking import (
    Ram,
    ask_ram,
    ask_version,
    misses_value,
    takes_value,
)
from livedumpfs.machines.qemu.config_file import read_config
from livedumpfs.machines.qemu.qemu_options import QemuOption, read_options
from livedumpfs.machines.qemu.refusals import OR_ATTACH, OptionRefused, refuse, refused_options

_BACKEND: Final = "memory-backend-"
_ENDING: Final = frozenset({"h", "help", "version"})
"""Options for which QEMU only prints text and ends."""
_NAMED_SO: Final = re.compile(r"qemu-system-.*|(?:qemu-)?kvm")
_QEMU: Final = re.compile(r"(?:[^,=]*/)?qemu-system-\w+|[^,=]*/(?:qemu-)?kvm", re.ASCII)
"""A word that names a QEMU program, behind a wrapper such as taskset; never the value of an option,
as far as can be seen."""
_USUAL: Final = "qemu-system-x86_64"
_QEMU_SAYS: Final = b"QEMU emulator version"
_ELF: Final = b"\x7fELF"
_NO_PATH: Final = "x-use-canonical-path-for-ramblock-id=off"
_ONE_BACKEND: Final = f"give the guest one memory backend with share=on{OR_ATTACH}"


@dataclass(frozen=True)
class QemuCommand:
    """The command line of a guest that can be dumped live."""

    argv: tuple[str, ...]
    """The words as given, the program first."""
    options: tuple[QemuOption, ...]
    """QEMU's options; each -readconfig is replaced by the options in its file."""
    named: str
    """Id of the user's own memory backend for the guest's RAM; empty: prepared() adds one."""
    stopped: bool
    """Whether the guest must not start by itself (-S)."""

    @classmethod
    def parse(cls, argv: Sequence[str]) -> QemuCommand:
        """Parse a command line. UsageError: an option makes live dumps impossible; the sentence
        says which one and why, the hint what to do."""
        command, refused = cls.look(argv)
        if refused:
            raise refused[0]
        return command

    @classmethod
    def look(
        cls, argv: Sequence[str], *, run_wrappers: bool = True
    ) -> tuple[QemuCommand, list[OptionRefused]]:
        """Parse a command line, whether it can be dumped or not: also all that `parse` raises for
        it. `run_wrappers`: what starts QEMU may be run to ask QEMU. UsageError: it makes no
        sense."""
        if not argv:
            raise UsageError("no QEMU to run", hint="write: -- qemu-system-x86_64 OPTIONS")
        words, qemus = argv[_find_qemu(argv) + 1 :], _askable(argv, run_wrappers=run_wrappers)
        found = read_options(words, partial(takes_value, qemus), partial(misses_value, qemus))
        refused: list[OptionRefused] = []
        options = _with_files(found, refused)
        refused += refused_options(options)
        named = ""
        try:
            named = _named_backend(options)
        except OptionRefused as error:
            refused.append(error)
        stopped = any(option.name == "S" for option in options)
        return cls(tuple(argv), tuple(options), named, stopped), refused

    @property
    def program(self) -> str:
        """The first word: QEMU, or a wrapper that starts it."""
        return self.argv[0]

    @property
    def qemu(self) -> str:
        """QEMU's program; env, taskset or numactl may stand before it."""
        return self.argv[_find_qemu(self.argv)]

    def ask_ram(self, *, run_wrappers: bool = True) -> Ram | None:
        """The memory that QEMU itself would make. None: help is asked for, or the user has a
        backend. MachineError: the options are wrong, in QEMU's words."""
        if self.named or self.ends:
            return None
        return ask_ram(_askable(self.argv, run_wrappers=run_wrappers), self.options)

    def ask_version(self) -> str:
        """As QEMU says it, such as "7.2.22 (Debian ...)"; empty: there is no QEMU. No wrapper is
        run."""
        return ask_version(_askable(self.argv, run_wrappers=False))

    @property
    def ends(self) -> bool:
        """QEMU only prints text, and no guest runs."""
        return any(option.name in _ENDING for option in self.options)

    def prepared(self, config: str, ram: Ram | None) -> list[str]:
        """The command line to run: with RAM in a shared memory backend, the file `config`, and a
        guest that waits for `cont`."""
        return [
            *self.argv,
            *(_memory(ram) if ram else ()),
            *(() if self.stopped else ("-S",)),
            *("-readconfig", config),
        ]


def _memory(ram: Ram) -> list[str]:
    # Without _NO_PATH, old machine types put a path before the name of the RAM.
    made = f"memory-backend-memfd,id={ram.name},size={ram.size},share=on,{_NO_PATH}"
    # QEMU merges all its -machine options, so the type stays as given.
    return ["-object", made, "-machine", f"memory-backend={ram.name}"]


def _with_files(options: Sequence[QemuOption], refused: list[OptionRefused]) -> list[QemuOption]:
    found: list[QemuOption] = []
    for option in options:
        read = read_config(option.value) if option.name == "readconfig" else [option]
        if read is None:
            unread = refuse(
                f"-readconfig {option.value}",
                "what it says is not known here",
                "give it a regular file, or write its options on the command line",
            )
            refused.append(unread)
        found += read or []
    return found


def _find_qemu(argv: Sequence[str]) -> int:
    """Index of the program whose options follow: the first word, or a later one if only that names
    a QEMU."""
    if _is_qemu(argv[0]):
        return 0
    return next((at for at, word in enumerate(argv) if _QEMU.fullmatch(word)), 0)


def _askable(argv: Sequence[str], *, run_wrappers: bool = True) -> list[Sequence[str]]:
    """Command lines that start a QEMU to be asked, the best one first. A wrapper whose effect is
    not known comes last, so that it is not run twice without need; or none is run."""
    at = _find_qemu(argv)
    if not run_wrappers:
        return [[argv[at] if _is_qemu(argv[at]) else _USUAL]]
    if _is_qemu(argv[at]):
        return [argv[: at + 1]]
    options = next((at for at, word in enumerate(argv) if word.startswith("-")), len(argv))
    return [[_USUAL], argv[: max(options, 1)]]


def _is_qemu(program: str) -> bool:
    return bool(_NAMED_SO.fullmatch(os.path.basename(program)) or qemu_file(program))


def qemu_file(program: str) -> str:
    """Name of the executable file that runs when `program` is started, if it is a QEMU by any name;
    empty: a script, a shell, or another program that starts one."""
    path = os.path.realpath(shutil.which(program) or program)
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
            if content[: len(_ELF)] == _ELF and content.find(_QEMU_SAYS) >= 0:
                return os.path.basename(path)
    except (OSError, ValueError):  # the error comes when it is started; or the name is empty
        pass
    return ""


def _named_backend(options: Sequence[QemuOption]) -> str:
    """Id of the user's own backend for the guest's RAM; empty: there is none. UsageError: it cannot
    be dumped."""
    made = _made_backends(options)
    ram = _ram_backends(options)
    spare = made - set(ram) - _other_backends(options)
    if len(set(ram)) > 1:
        ids = ", ".join(sorted(set(ram)))
        raise refuse(f"memory backends {ids}", "the guest's RAM is in pieces", _ONE_BACKEND)
    if spare:
        one = min(spare)
        raise refuse(
            f"memory backend {one}",
            "it is not the guest's RAM",
            f"name it with -machine memory-backend={one}, or leave it out{OR_ATTACH}",
        )
    return ram[0] if ram else ""


def _made_backends(options: Sequence[QemuOption]) -> set[str]:
    found = (option.values for option in options if option.name == "object")
    return {
        values.get("id", "") for values in found if values.get("qom-type", "").startswith(_BACKEND)
    }


def _ram_backends(options: Sequence[QemuOption]) -> list[str]:
    """Ids of the backends that the machine and its NUMA nodes name."""
    nodes = (option.values.get("memdev") for option in options if option.name == "numa")
    # QEMU merges all -machine options; the last value of a key counts.
    machine = [
        option.values["memory-backend"]
        for option in options
        if option.name == "machine" and "memory-backend" in option.values
    ]
    return [one for one in (*machine[-1:], *nodes) if one is not None]


def _other_backends(options: Sequence[QemuOption]) -> set[str]:
    """Ids of memory that is not RAM. UsageError: a device with more RAM (DIMM, virtio-mem)."""
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
