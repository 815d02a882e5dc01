# SPDX-License-Identifier: GPL-2.0-or-later
"""What a store has after a power loss: a disk as it is at one moment, without what the kernel has
not written to it yet. A dump that is published has all of its chunks then."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from livedumpfs.errors import TargetError
from livedumpfs.stores import Store, create_store, file_calls, open_store
from tests.fixtures.loop_devices import LoopMaker
from tests.fixtures.small_stores import chunk_file, keep_file

DISK = 32 << 20
Mounter = Callable[..., None]
_MKFS = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
needs_ext4 = pytest.mark.skipif(not _MKFS, reason="mkfs.ext4 (e2fsprogs) is not installed")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=300)


@pytest.fixture
def mount() -> Iterator[Mounter]:
    """mount(device, folder, options=""): until the end of the test."""
    with ExitStack() as stack:

        def do(device: str, folder: Path, options: str = "") -> None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # What is not asked for is not written by itself while the test runs.
            _run("mount", "-t", "ext4", "-o", f"commit=300{options}", device, str(folder))
            stack.callback(_run, "umount", str(folder))
            folder.chmod(0o700)

        yield do


@pytest.fixture
def new_disk(loop_device: LoopMaker) -> str:
    device = loop_device(DISK)
    _run(str(_MKFS), "-q", device)
    return device


def cut_off(device: str, loop_device: LoopMaker) -> str:
    """Another disk with what is on that one now."""
    copy = loop_device(DISK)
    with open(device, "rb") as here, open(copy, "wb") as there:
        shutil.copyfileobj(here, there)
    return copy


@needs_ext4
def test_chunks_on_a_disk_of_their_own(
    tmp_path: Path, dump: Path, new_disk: str, loop_device: LoopMaker, mount: Mounter
) -> None:
    """One is mounted at the folder of the chunks."""
    with ExitStack() as stack:
        store = stack.enter_context(create_store(str(tmp_path / "store")))
        folder = Path(store.url, "default.castr")
        mount(new_disk, folder)
        index = keep_file(store, dump, "a")
        mount(cut_off(new_disk, loop_device), tmp_path / "after")
        for one in index.unique():
            there = tmp_path / "after" / chunk_file(store, one).relative_to(folder)
            assert there.read_bytes() == chunk_file(store, one).read_bytes()


@needs_ext4
@pytest.mark.parametrize("mode", [0o700, 0o2770], ids=["own", "of-a-group"])
def test_a_chunk_that_two_dumps_put(
    tmp_path: Path, dump: Path, new_disk: str, loop_device: LoopMaker, mount: Mounter, mode: int
) -> None:
    """The second one comes when the first dump is published, on a file system that writes names
    before bytes."""
    mount(new_disk, tmp_path / "disk", ",noauto_da_alloc")
    with ExitStack() as stack:
        (tmp_path / "disk" / "store").mkdir()
        (tmp_path / "disk" / "store").chmod(mode)
        first = stack.enter_context(create_store(str(tmp_path / "disk" / "store")))
        second = stack.enter_context(open_store(first.url))
        index = keep_file(first, dump, "a")
        for one in index.unique():
            second.chunks.put(one, first.chunks.get(one))
        with open(tmp_path / "disk" / "other", "w") as other:  # another program's
            os.fsync(other.fileno())
        mount(cut_off(new_disk, loop_device), tmp_path / "after")
    with open_store(str(tmp_path / "after" / "store")) as after:
        assert after.names() == ["a"]
        for one in index.unique():
            after.chunks.get(one)


@pytest.fixture(params=["renameat2", "without", "refused"])
def any_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems like NFS's refuse a name that replaces nothing; other C libraries lack it."""
    if request.param == "without":
        monkeypatch.setattr(file_calls, "renameat2", None)
    elif request.param == "refused":
        monkeypatch.setattr(file_calls, "_NO_REPLACE", 1 << 20)  # EINVAL


@pytest.mark.usefixtures("any_kernel")
@pytest.mark.parametrize("mode", [0o700, 0o2770], ids=["own", "of-a-group"])
def test_a_full_chunk_stays_and_nothing_else_does(store: Store, tmp_path: Path, mode: int) -> None:
    Path(store.url).chmod(mode)
    one, text = bytes(32), b"x" * 1000
    with open_store(store.url) as again:
        again.chunks.put(one, text)
        chunk = chunk_file(again, one)
        before = chunk.stat().st_ino
        again.chunks.put(one, text)
        assert chunk.stat().st_ino == before
        chunk.write_bytes(b"")
        again.chunks.put(one, text)
        assert chunk.stat().st_size
        chunk.rename(tmp_path / "elsewhere")
        chunk.symlink_to(tmp_path / "elsewhere")
        again.chunks.put(one, text)
        assert not chunk.is_symlink() and chunk.stat().st_size
        chunk.unlink()
        chunk.mkdir()
        with pytest.raises(TargetError, match="cannot write"):
            again.chunks.put(one, text)
        assert [entry.name for entry in chunk.parent.iterdir()] == [chunk.name]
