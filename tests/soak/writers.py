# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads in C that write an arena at full speed, without the GIL; see writers.c."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cffi import FFI

from livedumpfs import Arena
from livedumpfs.closing import Closing

SOURCE = Path(__file__).with_name("writers.c")
PATTERNS = ("hot", "uniform", "sequential", "crossing", "blocks", "kernel")
"""In the order of enum pattern."""
TIMEOUT_MS = 60_000
_KERNEL_BYTES = 64 << 10


def build(folder: Path) -> Path:
    """The shared library, made there."""
    library = folder / "writers.so"
    command = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command += [str(SOURCE), "-o", str(library), "-pthread"]
    subprocess.run(command, check=True, timeout=TIMEOUT_MS / 1000)
    return library


def _load(library: Path) -> tuple[FFI, Any]:
    text = SOURCE.read_text()
    ffi = FFI()
    ffi.cdef(text[text.index("/* cffi: begin */") : text.index("/* cffi: end */")])
    return ffi, ffi.dlopen(str(library))


class Writers(Closing):
    """They write from the first moment on."""

    def __init__(self, library: Path, arena: Arena, patterns: Sequence[str], seed: int) -> None:
        self._ffi, self._lib = _load(library)
        self._source = os.memfd_create("soak-source")
        words = np.random.default_rng(seed).integers(0, 1 << 63, _KERNEL_BYTES // 64)
        os.write(self._source, words.repeat(8).tobytes())  # compressible, as memory is
        numbers = [PATTERNS.index(name) for name in patterns]
        memory = self._ffi.cast("uint8_t *", arena.address)
        self._live = arena.live  # keeps it mapped
        self._all = self._lib.writers_begin(
            memory, arena.size, numbers, len(numbers), seed, self._source
        )
        assert self._all, "cannot make the writers"

    def quiesce(self) -> None:
        """TimeoutError: one does not come to its end of a round."""
        if self._lib.writers_hold(self._all, TIMEOUT_MS):
            raise TimeoutError("the writers cannot be held")

    def resume(self) -> None:
        """Undo one quiesce."""
        self._lib.writers_go(self._all)

    def rounds(self) -> int:
        """Of stores, of all, so far."""
        return int(self._lib.writers_rounds(self._all))

    def close(self) -> None:
        """TimeoutError: one does not end."""
        if not self._all:
            return
        if self._lib.writers_end(self._all, TIMEOUT_MS):
            raise TimeoutError("the writers do not end")
        self._all = None
        os.close(self._source)
        del self._live
