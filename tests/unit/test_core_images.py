# SPDX-License-Identifier: GPL-2.0-or-later
"""Images that the C core reads: their bytes, how long they are good, and what libfuse is told."""

from __future__ import annotations

import errno
import gc
import os

import fuse
import pytest

from livedumpfs import Arena, LiveDump
from livedumpfs.core.capi import ffi
from livedumpfs.dump.core_image import CoreImage
from livedumpfs.formats import Image, lime_image
from livedumpfs.formats.snapshot_files import ImageFile, OpenFile
from livedumpfs.machines import ThreadMachine

MIB = 1 << 20


def started(arena: Arena) -> LiveDump:
    live = LiveDump(ThreadMachine(arena))
    live.init(None)
    live.start()
    return live


def image_of(live: LiveDump) -> Image:
    return lime_image(live.snapshot.machine, live.snapshot.size)


def no_data(file: OpenFile) -> None:
    """Also of bytes that are not the memory's, and of none."""
    for offset, length in ((0, 8), (MIB // 2, 8), (0, 0), (2 * MIB, 1)):
        with pytest.raises(OSError, match="snapshot") as caught:
            file.pread(offset, length)
        assert caught.value.errno == errno.ENODATA


def test_they_are_as_those_that_python_reads() -> None:
    with Arena(MIB) as arena, started(arena) as live:
        arena.live[::4096] = 7
        image = image_of(live)
        file, other = live.snapshot.open_image(image), ImageFile(image, live.snapshot.read_into)
        assert isinstance(file, CoreImage)
        for offset in (0, 1, 31, 32, 33, 5000, image.size - 1, image.size, image.size + 9):
            for length in (0, 1, 40, 5000, 2 * MIB):
                assert file.pread(offset, length) == other.pread(offset, length)
        with pytest.raises(ValueError, match="negative"):
            file.pread(-1, 1)


def test_after_release_there_is_no_data_also_beside_the_next_dump() -> None:
    with Arena(MIB) as arena, started(arena) as live:
        file = live.snapshot.open_image(image_of(live))
        live.release()
        no_data(file)
        live.init(None)
        live.start()
        no_data(file)


def test_an_image_outlives_all_else() -> None:
    """Its dump was not released, and nothing but the image refers to the memory."""
    arena = Arena(MIB)
    arena.live[:] = 7
    live = started(arena)
    file = live.snapshot.open_image(image_of(live))
    before = file.pread(0, 100)
    arena.close()
    del arena, live
    gc.collect()
    others = [os.memfd_create("other") for _ in range(10)]
    try:
        for one in others:
            os.write(one, b"other" * 1000)
        assert file.pread(0, 100) == before and before.endswith(b"\x07" * 50)
    finally:
        for one in others:
            os.close(one)


def test_the_file_handle_is_where_libfuse_has_it() -> None:
    assert ffi.offsetof("ldfs_fuse_file", "handle") == fuse.fuse_file_info.fh.offset
