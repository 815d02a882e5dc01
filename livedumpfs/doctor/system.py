# SPDX-License-Identifier: GPL-2.0-or-later
"""System: what the checks read of this computer. Tests give it a root folder of their own."""

from __future__ import annotations

import contextlib
import ctypes.util
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from livedumpfs.proc import proc_fields, proc_text

CAP_SYS_PTRACE: Final = 19
CAP_SYS_ADMIN: Final = 21
CAP_SYS_NICE: Final = 23

_ANSWER_S: Final = 10.0
"""Seconds that a program may take to say its version."""


@dataclass(frozen=True)
class System:
    """A computer, as this process sees it."""

    root: Path = Path("/")
    """Where its /proc, /sys, /dev, /etc and /run are."""
    user: int = field(default_factory=os.geteuid)
    processor: str = field(default_factory=platform.machine)
    path: str | None = None
    """Folders of programs, as in PATH; None: those of this process."""
    python: tuple[int, ...] = tuple(sys.version_info[:3])

    def place(self, name: str) -> Path:
        """Where a file with the absolute path `name` is."""
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str | None:
        """The file, without blanks at its ends; None: it cannot be read."""
        with contextlib.suppress(OSError):
            return proc_text(self.place(name)).strip()
        return None

    def number(self, name: str) -> int | None:
        """The file as a number; None: it cannot be read, or is none ("max")."""
        text = self.text(name) or ""
        return int(text) if text.removeprefix("-").isdigit() else None

    def chosen(self, name: str) -> str | None:
        """The word in brackets, of files such as "always [madvise] never"."""
        text = self.text(name) or ""
        return text.partition("[")[2].partition("]")[0] or None

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return self.place(name).exists()

    def may_open(self, name: str) -> bool:
        """Whether this process may read and write the file."""
        return os.access(self.place(name), os.R_OK | os.W_OK, effective_ids=True)

    def process(self, name: str) -> str:
        """A field of this process's /proc/self/status; "": there is none."""
        with contextlib.suppress(OSError):
            return proc_fields(self.place("/proc/self/status")).get(name, "").strip()
        return ""

    def capable(self, capability: int) -> bool:
        """Whether this process has the capability."""
        return bool(int(self.process("CapEff") or "0", 16) >> capability & 1)

    def program(self, name: str) -> str | None:
        """Path of a program that this process may run."""
        return shutil.which(name, path=self.path)

    def version_of(self, program: str) -> str:
        """The first line of what `PROGRAM --version` prints; "": it cannot be run."""
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                [program, "--version"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_ANSWER_S,
                check=True,
            )
            return done.stdout.decode(errors="replace").partition("\n")[0].strip()
        return ""

    def has_module(self, name: str) -> bool:
        """Whether Python finds the module; it is not imported."""
        with contextlib.suppress(ImportError, ValueError):
            return importlib.util.find_spec(name) is not None
        return False

    def has_library(self, name: str) -> bool:
        """Whether the loader finds the shared library, such as "fuse"."""
        return ctypes.util.find_library(name) is not None
