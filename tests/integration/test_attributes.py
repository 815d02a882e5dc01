# SPDX-License-Identifier: GPL-2.0-or-later
"""What stat, statfs and readdir say of every file of a host's mount, and of a finished dump's."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.client import Client
from livedumpfs.formats import MachineInfo, MemoryRange, Plan
from livedumpfs.formats.table import HOLE, LOST, SAVED
from tests.fixtures import forks

pytestmark = pytest.mark.together  # they share a host, and a mount

Host = Any
"""RunningHost of conftest.py."""
WriteDump = Callable[..., Plan]
DEADLINE = 300.0
PAGE = 4096
RAM = 8 << 20
SECOND = 1_000_000_000
INSTANT = 1_700_000_000_123_456_789
LOW, HIGH = 16, 48
"""Pages of the two ranges of the finished dump's machine; the second begins at 4 MiB."""
MACHINE = MachineInfo(
    "flat",
    vcpus=1,
    memory_map=(MemoryRange(0, LOW * PAGE, 0), MemoryRange(4 << 20, HIGH * PAGE, LOW * PAGE)),
)
MEMORY = b"".join(bytes([i]) * PAGE for i in range(1, LOW + HIGH + 1))
STATES = [SAVED] * 40 + [HOLE] * 20 + [LOST] * 4
IMAGES = ("vmcore", "mem.raw", "mem.lime")
CHANGING = ("mem", "livedump", "stats.json", "metrics", "machine/", "control/error")
"""Of a running machine: these may say something else at each look."""


def everything(root: Path) -> Iterator[Path]:
    """The root, and all below it."""
    yield root
    for folder, folders, files in os.walk(root):
        yield from (Path(folder, name) for name in (*folders, *files))


def is_folder(path: Path) -> bool:
    """Not a link to one."""
    return stat.S_ISDIR(os.lstat(path).st_mode)


def whole(path: Path) -> bytes:
    """As cat reads: to the end, whatever stat says."""
    return path.read_bytes()


@contextmanager
def started(host: Host) -> Iterator[dict[str, Any]]:
    """A snapshot in memory; its info.json."""
    with Client(host.device) as client:
        client.init(None)
        client.start()
        try:
            yield json.loads(host.read("snapshot/info.json"))
        finally:
            client.release()


@contextmanager
def mounted(source: Path, place: Path, *options: str) -> Iterator[Path]:
    """`livedump mount` of a dump."""
    place.mkdir(exist_ok=True)
    process = forks.start(
        [sys.executable, "-m", "livedumpfs.cli", "mount", str(source), str(place), *options],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(place.parent)},
    )  # fmt: skip
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line == f"snapshot {place}/snapshot\n", process.communicate(timeout=DEADLINE)
        yield place
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, write_dump: WriteDump) -> Iterator[Path]:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("the mount needs /dev/fuse")
    folder = tmp_path_factory.mktemp("finished")
    write_dump(
        folder / "dump", MEMORY, machine=MACHINE, states=STATES, verdict="torn",
        meta={"instant": {"wall_ns": INSTANT, "mono_ns": 1}},
    )  # fmt: skip
    with mounted(folder / "dump", folder / "mount") as place:
        yield place


@pytest.fixture(params=["host", "finished"])
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Of each mount, with a snapshot."""
    if request.param == "finished":
        yield request.getfixturevalue("finished")
        return
    host = request.getfixturevalue("module_host")
    with started(host):
        yield host.mountpoint


# ------------------------------------------------------------------------- both mounts


def test_numbers_are_unique_and_those_of_readdir(root: Path) -> None:
    """d_ino and d_type are st_ino and the kind of st_mode, of `.` and `..` too."""
    numbers = [os.lstat(path).st_ino for path in everything(root)]
    assert len(set(numbers)) == len(numbers) and min(numbers) > 0
    assert numbers == [os.lstat(path).st_ino for path in everything(root)], "they are not stable"
    for path in everything(root):
        if not is_folder(path):
            continue
        for entry in os.scandir(path):
            assert entry.inode() == entry.stat(follow_symlinks=False).st_ino, entry.path
            mode = os.lstat(entry.path).st_mode
            assert entry.is_dir(follow_symlinks=False) == stat.S_ISDIR(mode)
            assert entry.is_symlink() == stat.S_ISLNK(mode)
        listed = subprocess.run(
            ["ls", "-a", "-i", "-f", str(path)], capture_output=True, text=True, check=True
        ).stdout.split()
        found = dict(zip(listed[1::2], map(int, listed[::2]), strict=True))
        assert found["."] == os.lstat(path).st_ino
        if path != root:
            assert found[".."] == os.lstat(path.parent).st_ino


def test_links_owner_and_kind(root: Path) -> None:
    for path in everything(root):
        found = os.lstat(path)
        below = [one for one in path.iterdir() if is_folder(one)] if is_folder(path) else []
        assert found.st_nlink == (2 + len(below) if is_folder(path) else 1), path
        assert (found.st_uid, found.st_gid, found.st_rdev) == (os.geteuid(), os.getegid(), 0)
        assert found.st_dev == os.lstat(root).st_dev
        if path.is_symlink():
            assert os.readlink(path) == f"dumps/{path.resolve().name}" and path.resolve().exists()
            assert found.st_size == len(os.readlink(path))
        else:
            assert stat.S_IMODE(found.st_mode) & 0o077 == 0


def test_no_file_has_fewer_blocks_than_data(root: Path) -> None:
    """Of each that is read: blocks for all that is not zeros, and a block size that they are in."""
    for path in everything(root):
        found = os.lstat(path)
        assert found.st_blksize == PAGE and found.st_blocks % (PAGE // 512) == 0, path
        if path.is_dir() or path.name in CHANGING:
            continue
        filled = 0
        fd = os.open(path, os.O_RDONLY)
        try:
            for at in range(0, found.st_size, PAGE):
                try:
                    filled += PAGE - os.pread(fd, PAGE, at).ljust(PAGE, b"\0").count(0)
                except OSError as error:
                    assert error.errno == errno.EIO  # what lost pages count is looked at below
        finally:
            os.close(fd)
        assert found.st_blocks * 512 >= filled, path
        assert found.st_blocks * 512 < found.st_size + PAGE, path


def test_sizes_are_those_of_what_is_read(root: Path) -> None:
    """Of small files too: what fstat said is what the same task then reads."""
    for path in everything(root):
        if path.is_dir() or path.name == "mem" or path.name in IMAGES:
            continue
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            assert len(file.read(1 << 20)) == size, path


def test_statfs_is_full_of_what_is_there(root: Path) -> None:
    found = os.statvfs(root)
    paths = list(everything(root))
    assert (found.f_bsize, found.f_frsize, found.f_namemax) == (PAGE, PAGE, 255)
    assert (found.f_bfree, found.f_bavail, found.f_ffree, found.f_favail) == (0, 0, 0, 0)
    assert found.f_files == len(paths)
    used = sum(os.lstat(path).st_blocks for path in paths) * 512 // PAGE
    # Small files that no program has looked at count as one block.
    assert abs(found.f_blocks - used) <= 4
    for command, column in (("du", 0), ("df", 2)):
        options = ["-s", "-B1"] if command == "du" else ["-B1"]
        said = subprocess.run(
            [command, *options, str(root)], capture_output=True, text=True, check=True
        ).stdout.splitlines()[-1]
        assert abs(int(said.split()[column]) - used * PAGE) <= 4 * PAGE


# ------------------------------------------------------------------------ a host's mount


def test_times_of_a_host(module_host: Host) -> None:
    """Files of a snapshot: its instant. `mem`: now. The root: when snapshot/ came and went."""
    root = module_host.mountpoint
    before = os.stat(root).st_mtime_ns
    with started(module_host) as info:
        came = os.stat(root).st_mtime_ns
        assert came > before
        instant = info["instant"]["wall_ns"]
        for path in (root / "snapshot", *(root / "snapshot" / name for name in IMAGES)):
            found = os.stat(path)
            assert found.st_mtime_ns == found.st_ctime_ns == found.st_atime_ns
            # In a later second than that of this host's snapshot before, if that is later.
            assert 0 <= found.st_mtime_ns - instant < 30 * SECOND, path
        low = time.time_ns()
        assert low <= os.stat(root / "mem").st_mtime_ns <= time.time_ns()
        assert os.stat(root / "control").st_mtime_ns <= before
    assert os.stat(root).st_mtime_ns > came


def test_a_snapshot_is_not_taken_for_the_one_before(module_host: Host) -> None:
    """Numbers, and times in whole seconds, of files of one name and size."""
    seen: set[object] = set()
    last = 0
    for _ in range(4):
        with started(module_host):
            for path in everything(module_host.mountpoint / "snapshot"):
                found = os.lstat(path)
                assert found.st_ino not in seen
                seen.add(found.st_ino)
            second = os.stat(module_host.mountpoint / "snapshot/mem.raw").st_mtime_ns // SECOND
            assert second > last
            last = second


def test_an_open_file_of_an_old_dump(module_host: Host) -> None:
    """It is never the next one's: the end is the old end, what is read ENODATA, and the name's
    number another."""
    path = module_host.mountpoint / "snapshot/mem.raw"
    with started(module_host):
        fd = os.open(path, os.O_RDONLY)
        old = os.fstat(fd)
    try:
        with started(module_host):
            assert os.stat(path).st_ino != old.st_ino
            assert os.lseek(fd, 0, os.SEEK_END) == RAM
            now = os.fstat(fd)
            assert (now.st_ino, now.st_mtime_ns, now.st_nlink) == (old.st_ino, old.st_mtime_ns, 0)
            with pytest.raises(OSError) as caught:
                os.pread(fd, PAGE, 0)
            assert caught.value.errno == errno.ENODATA
    finally:
        os.close(fd)


def test_a_setting_changes_when_it_is_set(module_host: Host) -> None:
    control = module_host.mountpoint / "control"
    before = {path: os.stat(path).st_mtime_ns for path in control.iterdir()}
    module_host.write("control/max_age", "77")
    changed = {path.name for path, then in before.items() if os.stat(path).st_mtime_ns != then} - {
        "error"
    }
    assert changed == {"max_age"}
    assert os.stat(control / "max_age").st_size == len("77\n")
    low = before[control / "max_age"]
    assert low < os.stat(control / "max_age").st_mtime_ns <= time.time_ns()
    module_host.write("control/max_age", "0")


def test_what_a_step_changes_has_changed_then(module_host: Host) -> None:
    """Also for a program that reads with the descriptor it had a stat of before the step."""
    path = module_host.mountpoint / "control/state"
    fd = os.open(path, os.O_RDONLY)
    try:
        before = os.fstat(fd)
        with started(module_host):
            assert os.pread(fd, 1, 0) == b"2"
            assert os.stat(path).st_mtime_ns > before.st_mtime_ns
            assert os.stat(module_host.mountpoint / "stats.json").st_mtime_ns > before.st_mtime_ns
    finally:
        os.close(fd)


def test_info_changes_with_the_state(module_host: Host) -> None:
    path = module_host.mountpoint / "snapshot/info.json"
    with started(module_host), Client(module_host.device) as client:
        start = os.stat(path)
        assert start.st_mtime_ns == os.stat(path.parent).st_mtime_ns
        client.sweep()
        assert json.loads(path.read_text())["state"] == "finish"
        assert os.stat(path).st_mtime_ns > start.st_mtime_ns
        assert os.stat(path).st_ino == start.st_ino


# ------------------------------------------------------------------------ a finished dump


def test_blocks_of_a_finished_dump(finished: Path) -> None:
    """What the map and the table know as holes takes no room; what is lost is no hole."""
    there = (LOW + HIGH - 20) * PAGE
    for name in IMAGES:
        found = os.stat(finished / "snapshot" / name)
        head = {"mem.raw": 0, "mem.lime": 64}.get(name, found.st_size - len(MEMORY))
        assert found.st_blocks * 512 == -(-(there + head) // PAGE) * PAGE
    assert os.stat(finished / "snapshot/mem.raw").st_size == (4 << 20) + HIGH * PAGE
    assert os.statvfs(finished).f_flag & os.ST_RDONLY


def test_times_and_numbers_of_a_finished_dump_are_its_own(
    finished: Path, tmp_path: Path, write_dump: WriteDump
) -> None:
    """The instant; the same numbers in each mount of it, other ones for another dump."""
    source = finished.parent / "dump"
    with mounted(source, tmp_path / "again") as again:
        for path in everything(finished):
            found, other = os.lstat(path), os.lstat(again / path.relative_to(finished))
            assert found.st_mtime_ns == found.st_ctime_ns == INSTANT
            assert (found.st_ino, found.st_mtime_ns) == (other.st_ino, other.st_mtime_ns)
    write_dump(tmp_path / "next", MEMORY, machine=MACHINE)
    os.utime(tmp_path / "next", ns=(5 * SECOND, 5 * SECOND))
    with mounted(tmp_path / "next", tmp_path / "again") as another:
        for path in everything(another / "snapshot"):
            assert os.lstat(path).st_ino != os.lstat(finished / path.relative_to(another)).st_ino
            # It does not say its instant: when it was written.
            assert os.lstat(path).st_mtime_ns == 5 * SECOND
