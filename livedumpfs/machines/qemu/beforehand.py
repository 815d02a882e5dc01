# SPDX-License-Identifier: GPL-2.0-or-later
"""What would become of a QEMU command line under livedumpfs. Its guest is not started: no file of
it is opened, no socket is made. QEMU itself is asked for its version, and what memory it would
make."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from livedumpfs.errors import LivedumpError, MachineError, UsageError
from livedumpfs.machines.qemu.asking import Ram
from livedumpfs.machines.qemu.backend import check_backend
from livedumpfs.machines.qemu.command_line import QemuCommand, qemu_file
from livedumpfs.machines.qemu.config_file import monitor_config
from livedumpfs.machines.qemu.ends import EndedAtOnce, cannot_start
from livedumpfs.machines.qemu.guest_kind import guest_kind
from livedumpfs.machines.qemu.preloading import why_not_preloaded
from livedumpfs.machines.qemu.process import expect_short, shim_path
from livedumpfs.machines.qemu.qemu_options import is_on

_OLDEST: Final = (7, 1)
_SYSTEM: Final = re.compile(r"qemu-system-(\w+)")
_FOLDER: Final = "livedump-qemu-12345678"
"""A name such as tempfile would make."""
_SHARED_UNASKED: Final = frozenset({"memory-backend-memfd", "memory-backend-shm"})
"""Backends with share=on by default."""


@dataclass
class Beforehand:
    """Of one command line."""

    command: QemuCommand
    version: str = ""
    """In QEMU's own words; empty: no QEMU answers."""
    ram: Ram | None = None
    """The memory that would be made for it; None: the user's own backend, or it is not known."""
    size: str = ""
    """Of the user's own backend, as written."""
    refused: list[LivedumpError] = field(default_factory=list)
    """Each reason why no dump could be taken."""
    attachable: bool = True
    """None of these reasons stands in the way of `attach`, once QEMU runs without livedumpfs."""
    left_open: list[str] = field(default_factory=list)
    """What is not known before QEMU runs."""

    @property
    def accelerator(self) -> str:
        """As the options say it."""
        found = "tcg"
        for option in self.command.options:
            if option.name == "enable-kvm":
                found = "kvm"
            elif option.name in ("accel", "machine"):
                found = option.values.get("accel", found).split(":")[0]
        return found

    def refuse(self, error: LivedumpError, *, attachable: bool) -> None:
        """One more reason."""
        self.refused.append(error)
        self.attachable &= attachable

    def expect(self, check: Callable[[], object], *, attachable: bool) -> None:
        """One more reason if `check` raises it."""
        try:
            check()
        except LivedumpError as error:
            self.refuse(error, attachable=attachable)


def look_beforehand(argv: Sequence[str]) -> Beforehand:
    """UsageError: the command line makes no sense."""
    command, refused = QemuCommand.look(argv, run_wrappers=False)
    found = Beforehand(command)
    for one in refused:
        found.refuse(one, attachable=not one.unseen)
    if command.ends:
        ends = UsageError("QEMU would only print text and end", hint="leave -help or -version out")
        found.refuse(ends, attachable=False)
    _look_at_program(found)
    _look_at_memory(found)
    found.expect(shim_path, attachable=True)
    folder = os.path.join(tempfile.gettempdir(), _FOLDER)
    found.expect(lambda: expect_short(os.path.join(folder, "shim")), attachable=True)
    found.expect(lambda: monitor_config(os.path.join(folder, "qmp")), attachable=True)
    return found


def _look_at_program(found: Beforehand) -> None:
    command = found.command
    for program in dict.fromkeys((command.program, command.qemu)):
        if not shutil.which(program):
            gone = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            found.refuse(cannot_start(program, gone), attachable=False)
            return
    name = qemu_file(command.qemu)
    if not name or command.program != command.qemu:
        found.left_open.append(
            f"{command.program} must pass arguments and LD_PRELOAD on to QEMU; it was not run"
        )
    system = _SYSTEM.fullmatch(name)
    if system:
        found.expect(lambda: guest_kind(system[1]), attachable=False)
    why = why_not_preloaded(shutil.which(command.qemu) or "") if name else ""
    if why:
        static = MachineError(
            f"our part cannot be loaded into {command.qemu}: {why}", errno=errno.ENOTSUP
        )
        found.refuse(static, attachable=True)
    found.version = command.ask_version()
    if not found.version:
        silent = MachineError("QEMU does not say its version", errno=errno.EPROTO)
        found.refuse(silent, attachable=False)
    elif not command.named and _number(found.version) < _OLDEST:
        old = MachineError(
            f"QEMU {found.version} does not say what memory it would make, 7.1 does",
            errno=errno.ENOTSUP,
            hint="name a memory backend with share=on",
        )
        found.refuse(old, attachable=_number(found.version) >= (6, 0))


def _number(version: str) -> tuple[int, int]:
    major, minor, *_ = re.findall(r"\d+", version)
    return int(major), int(minor)


def _look_at_memory(found: Beforehand) -> None:
    command = found.command
    if command.named:
        found.expect(lambda: _check_named(found), attachable=True)
    elif found.version:
        try:
            found.ram = command.ask_ram(run_wrappers=False)
        except EndedAtOnce as error:  # an option that is wrong, in QEMU's words
            found.refuse(error, attachable=False)
        except MachineError as error:
            found.refuse(error, attachable=True)
        if found.ram and not (found.ram.name and found.ram.size):
            none = MachineError(
                "this type of machine has no memory that livedump could make", errno=errno.ENOTSUP
            )
            found.refuse(none, attachable=False)


def _check_named(found: Beforehand) -> None:
    """UsageError: the user's memory backend will not do, as far as its options say it."""
    for option in found.command.options:
        values = option.values if option.name == "object" else {}
        if values.get("id") == found.command.named:
            kind = values.get("qom-type", "")
            properties: dict[str, object] = {
                name: is_on(values.get(name), default=usual)
                for name, usual in (
                    ("share", kind in _SHARED_UNASKED), ("hugetlb", False), ("readonly", False),
                )
            }  # fmt: skip
            found.size = values.get("size", "")
            offset = values.get("offset", "0").strip("0x")
            check_backend(found.command.named, {**properties, "type": kind, "offset": offset})
            return
