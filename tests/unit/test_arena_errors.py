# SPDX-License-Identifier: GPL-2.0-or-later
"""An arena that cannot be made says how large, why, and what to do."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from livedumpfs import Arena
from livedumpfs.core.capi import lib
from livedumpfs.errors import MachineError
from livedumpfs.units import PAGE_SIZE

MIB = 1 << 20


@contextmanager
def limited(kind: int, most: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def refused(size: int | str) -> MachineError:
    with pytest.raises(MachineError) as caught:
        Arena(size)
    return caught.value


@pytest.mark.parametrize(
    ("size", "said"), [(0, "0 B"), (2**63, "8.389e+06 TiB"), ("17000000T", "1.7e+07 TiB")]
)
def test_a_size_that_none_has(size: int | str, said: str) -> None:
    error = refused(size)
    assert error.errno == errno.EINVAL
    assert str(error) == (
        f"cannot make an arena of {said}: it must have from one page to 1.049e+06 TiB "
        "(choose another size)"
    )


def test_more_than_there_are_addresses() -> None:
    error = refused("100TiB")
    assert error.errno == errno.ENOMEM
    assert "an arena of 100 TiB: no room for its views, 400 TiB of addresses" in str(error)
    assert "smaller size" in error.hint


def test_under_ulimit_v() -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE_SIZE
    with limited(resource.RLIMIT_AS, mapped + 512 * MIB):
        error = refused("1GiB")
    assert error.errno == errno.ENOMEM
    assert "of 1 GiB: its views take 5 GiB of addresses, and ulimit -v leaves" in str(error)
    assert "raise it" in error.hint and "page" not in str(error)


def test_under_ulimit_f() -> None:
    with limited(resource.RLIMIT_FSIZE, 8 * MIB):
        error = refused(16 * MIB)
        Arena(8 * MIB).close()
    assert error.errno == errno.EFBIG
    assert "of 16 MiB: its memory is a file, and files may have 8 MiB at the most" in str(error)
    assert "ulimit -f" in error.hint


def test_under_ulimit_n() -> None:
    with limited(resource.RLIMIT_NOFILE, 0):
        error = refused(MIB)
    assert error.errno == errno.EMFILE
    assert "of 1 MiB: this process has" in str(error) and "ulimit -n" in error.hint


def test_too_many_arenas() -> None:
    arenas: list[Arena] = []
    try:
        with pytest.raises(MachineError) as caught:
            while len(arenas) <= lib.LDFS_MAX_ARENAS:
                arenas.append(Arena(PAGE_SIZE))
    finally:
        for arena in arenas:
            arena.close()
    assert caught.value.errno == errno.ENFILE
    assert f"of 4 KiB: this process has {lib.LDFS_MAX_ARENAS} arenas" in str(caught.value)
