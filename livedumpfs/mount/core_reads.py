# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads of a host's mount that the C core answers, without Python: those of images whose memory is
in this process."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import fuse

from livedumpfs.core.capi import CData, ffi, lib
from livedumpfs.dump.core_image import CoreImage
from livedumpfs.formats.snapshot_files import OpenFile
from livedumpfs.mount.operations import OPTIONS, FuseMount, TreeOperations

_READ: Final = int(ffi.cast("uintptr_t", ffi.addressof(lib, "ldfs_fuse_read")))
_OF_OPEN_FILES: Final = {"fgetattr": "getattr", "ftruncate": "truncate"}
"""libfuse's operation, and the method that stands for it."""


class CoreHandle:
    """What the file handle of an open file points to: struct ldfs_open_file."""

    def __init__(self, opened: OpenFile | None, others: int) -> None:
        """`others`: the address of the function that reads what is no image of the core."""
        self._opened = opened
        image = opened.handle if isinstance(opened, CoreImage) else ffi.NULL
        reader = ffi.cast("ldfs_fuse_reader *", others)
        self._file: CData = ffi.new("ldfs_open_file *", (image, reader))
        self.number = int(ffi.cast("uintptr_t", self._file))
        """Of no other open file, as long as this object is there."""


class CoreMount(FuseMount):
    """A mount whose file handles are those of CoreHandle. Not for the main thread: fusepy's own
    start lets libfuse handle signals there."""

    def __init__(
        self,
        operations: TreeOperations,
        mountpoint: str,
        others: Callable[[int], object],
        **options: Any,
    ) -> None:
        """Mounts, and returns when it is unmounted. `others` is called before that with the address
        of the function that reads by Python. RuntimeError: libfuse could not mount."""
        self.operations, self.raw_fi = operations, True
        self.encoding, self.use_ns = "utf-8", True
        calls = self._calls()  # kept as long as libfuse may call them
        by_python = calls["read"]
        others(ctypes.cast(by_python, ctypes.c_void_p).value or 0)
        table = fuse.fuse_operations(**{**calls, "read": type(by_python)(_READ)})
        words = self._normalize_fuse_options(**OPTIONS, **options)
        arguments = [b"fuse", b"-f", b"-o", ",".join(words).encode(), os.fsencode(mountpoint)]
        argv = (ctypes.c_char_p * len(arguments))(*arguments)
        error = fuse._libfuse.fuse_main_real(
            len(arguments), argv, ctypes.pointer(table), ctypes.sizeof(table), None
        )
        if error:
            raise RuntimeError(error)

    def _calls(self) -> dict[str, Any]:
        """A function for each of libfuse's operations that there is a method for, as fusepy makes
        them."""
        return {
            name: prototype(partial(self._wrapper, getattr(self, name)))
            for name, prototype, *_ in fuse.fuse_operations._fields_
            if hasattr(prototype, "argtypes")
            and getattr(self.operations, _OF_OPEN_FILES.get(name, name), None)
        }
