# SPDX-License-Identifier: GPL-2.0-or-later
"""A dump that is refused leaves names and bytes as they were, whatever it is refused for; and
nothing is made where only the kernel, or a host, makes files."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import Arena, LiveDump
from livedumpfs.abi import Format, Table
from livedumpfs.client import Client, InitOptions
from livedumpfs.dump import DumpSettings, dump_files
from livedumpfs.dumpfile import NewFile
from livedumpfs.errors import LivedumpError, MachineError, TargetError
from livedumpfs.targets import Target, open_in_place, open_sidecar, open_target

MIB = 1 << 20
SIZE = 4 * MIB
Host = Any
HostMaker = Callable[..., Host]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def live() -> Iterator[LiveDump]:
    with Arena(SIZE) as arena, LiveDump(arena) as made:
        arena.live[:] = 1
        yield made


@pytest.fixture
def host(run_host: HostMaker) -> Host:
    return run_host()


def listing(folder: Path) -> dict[str, object]:
    """Names, kinds, inodes and bytes of all below."""
    found: dict[str, object] = {}
    for one in sorted(folder.rglob("*")):
        status = one.lstat()
        content = one.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(one.relative_to(folder))] = (status.st_mode, status.st_ino, content)
    return found


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    before = listing(folder)
    yield
    assert listing(folder) == before


def furnish(folder: Path, write_dump: Callable[..., object]) -> None:
    """Everything that a path can lead to: good dumps of each kind, what a broken-off one left, and
    what is no dump."""
    memory = bytes(range(256)) * 256
    write_dump(folder / "elf", memory)
    write_dump(folder / "raw", memory, format="raw")
    write_dump(folder / "elf.incomplete", memory, until="started")
    write_dump(folder / "raw.incomplete", memory, format="raw", until="started")
    write_dump(folder / "whole.incomplete", memory)
    (folder / "foreign").write_text("a letter\n")
    (folder / "beside.incomplete").write_text("another letter\n")
    (folder / "side.incomplete.ldfs").write_text("a third letter\n")
    (folder / "folder").mkdir()
    (folder / "lost").symlink_to("nowhere")
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))


RAW = {"format": "raw"}
REFUSED: dict[str, tuple[str, int, dict[str, Any]]] = {
    "a foreign file": ("foreign", errno.EEXIST, {}),
    "a foreign file beside": ("beside", errno.EEXIST, {}),
    "a foreign sidecar beside": ("side", errno.EEXIST, RAW),
    "a whole dump beside": ("whole", errno.EEXIST, {}),
    "a folder": ("folder", errno.EISDIR, {}),
    "a folder by its slash": ("folder/", errno.EISDIR, {}),
    "a file with a slash": ("elf/", errno.ENOTDIR, {}),
    "in a file": ("elf/dump", errno.ENOTDIR, {}),
    "no folder": ("none/dump", errno.ENOENT, {}),
    "no folder by its slash": ("none/", errno.ENOENT, {}),
    "a link to nowhere": ("lost", errno.EEXIST, {}),
    "a socket": ("socket", errno.EINVAL, {}),
    "a pipe without a reader": ("fifo", errno.ENXIO, {"format": "kdump"}),
    "a name too long": ("n" * 256, errno.ENAMETOOLONG, {}),
    "a name too long with what goes behind it": ("n" * 250, errno.ENAMETOOLONG, {}),
    "a sidecar's name too long": ("n" * 241, errno.ENAMETOOLONG, RAW),
    "a path too long": ("d/" * 2100 + "dump", errno.ENAMETOOLONG, {}),
    "a sidecar in no folder": ("elf", errno.ENOENT, {**RAW, "sidecar": "none/side"}),
    "a sidecar that is foreign": ("elf", errno.EEXIST, {**RAW, "sidecar": "foreign"}),
    "a sidecar that is a folder": ("new", errno.EISDIR, {**RAW, "sidecar": "folder"}),
    "a sidecar that is a pipe": ("new", errno.ENXIO, {**RAW, "sidecar": "fifo"}),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_refused_target_is_as_it_was(
    live: LiveDump, tmp_path: Path, write_dump: Callable[..., object], why: str
) -> None:
    name, code, how = REFUSED[why]
    furnish(tmp_path, write_dump)
    if "sidecar" in how:
        how = {**how, "sidecar": str(tmp_path / how["sidecar"])}
        if why == "a sidecar in no folder":  # which is made where the folder above is one
            how["sidecar"] = str(tmp_path / "foreign" / "none" / "side")
            code = errno.ENOTDIR
    with untouched(tmp_path), pytest.raises(LivedumpError) as caught:
        live.init(os.path.join(tmp_path, name), DumpSettings(**how))
    assert caught.value.errno == code, caught.value
    assert "\n" not in str(caught.value)


def test_a_host_leaves_what_it_refuses(
    host: Host, tmp_path: Path, write_dump: Callable[..., object]
) -> None:
    """The same by way of the helper with the caller's rights."""
    folder = tmp_path / "targets"
    folder.mkdir()
    furnish(folder, write_dump)
    more = {
        "an option of another format": ("new", errno.EINVAL, {"level": 3, "format": "elf"}),
        "a level that there is not": ("new", errno.EINVAL, {"level": 99, "format": "kdump"}),
        "a granule that cannot be": ("new", errno.EINVAL, {"granule": 5000}),
        "a sidecar for an elf": ("new", errno.EINVAL, {"sidecar": "side2"}),
        "a sidecar in no folder": ("elf", errno.ENOENT, {**RAW, "sidecar": "none/side"}),
    }
    with untouched(folder), Client(host.device) as client:
        for why, (name, code, how) in {**REFUSED, **more}.items():
            how = dict(how)
            if "format" in how:
                how["format"] = Format[how["format"].upper()]
            if "sidecar" in how:
                how["sidecar"] = str(folder / how["sidecar"])
            with pytest.raises(LivedumpError) as caught:
                client.init(os.path.join(folder, name), InitOptions(**how))
            assert caught.value.errno == code, (why, caught.value)
            assert "\n" not in str(caught.value)
    host.runs_on()


@pytest.mark.parametrize("fails", ["prepare", "reserve", "sync", "pwrite", "make_core"])
@pytest.mark.parametrize("format", ["elf", "raw", "kdump"])
def test_an_init_that_fails_late_leaves_the_last_dump(
    live: LiveDump,
    tmp_path: Path,
    write_dump: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
    fails: str,
    format: str,
) -> None:
    """No memory, a disk that gives up: all up to the first byte of the memory."""

    def fail(*_: object, **__: object) -> None:
        raise MachineError("no more", errno=errno.ENOMEM)

    write_dump(tmp_path / "raw", bytes(range(256)) * 256, format="raw")
    if fails == "make_core":
        monkeypatch.setattr("livedumpfs.dump.preparation.make_core", fail)
    else:
        monkeypatch.setattr(Target, fails, fail)
    for name in ("raw", "new"):
        with untouched(tmp_path), pytest.raises(MachineError, match="no more"):
            live.init(tmp_path / name, DumpSettings(format=format))


def test_a_pipe_takes_no_raw_and_is_left_open(live: LiveDump, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with untouched(tmp_path), pytest.raises(LivedumpError, match="it is a pipe"):
            live.init(tmp_path / "fifo", DumpSettings(**RAW))
        assert os.read(reader, 10) == b""
    finally:
        os.close(reader)


# --------------------------------------------------------- where nothing of ours is made

KERNELS = {
    "/dev/nosuch": "there is no device /dev/nosuch",
    "/dev/../dev/nosuch": "there is no device /dev/../dev/nosuch",
    "/proc/nosuch": "/proc/nosuch: there is no nosuch in /proc, which is proc",
    "/proc/self/nosuch": "which is proc",
    "/sys/nosuch": "there is no nosuch in /sys, which is sysfs",
    "/sys/kernel/nosuch": "which is sysfs",
    "/dev/pts/nosuch": "which is devpts",
    "/dev/nosuch/dump": "there is no directory /dev/nosuch",
}
WAYS: dict[str, Callable[[str], object]] = {
    "target": open_target,
    "in place": open_in_place,
    "sidecar": open_sidecar,
    "convert": NewFile,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", KERNELS)
def test_nothing_is_made_among_the_kernels_files(path: str, way: str) -> None:
    if not os.path.isdir(os.path.dirname(path)) and path != "/dev/nosuch/dump":
        pytest.skip(f"there is no {os.path.dirname(path)} here")
    try:
        with pytest.raises(TargetError) as caught:
            WAYS[way](path)
        assert caught.value.errno == errno.ENOENT
        assert KERNELS[path] in str(caught.value)
        assert not os.path.lexists(path)
        assert not os.path.exists("/dev/nosuch")
    finally:
        for made in ("/dev/nosuch/dump", "/dev/nosuch"):
            with suppress(OSError):
                (os.rmdir if os.path.isdir(made) else os.unlink)(made)


def test_a_file_that_is_in_dev_by_mistake_is_no_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier livedump made it."""
    if not os.access("/dev", os.W_OK):
        pytest.skip("needs root")
    path = f"/dev/livedump-test-{os.getpid()}"
    with open(path, "x"):
        pass
    try:
        with pytest.raises(TargetError, match="it is a file in /dev, and no device"):
            open_target(path)
        assert os.path.getsize(path) == 0
    finally:
        os.unlink(path)


def test_memory_files_below_dev_are_files(tmp_path: Path) -> None:
    """/dev/shm is a file system of its own, made for that."""
    if not os.path.ismount("/dev/shm"):
        pytest.skip("/dev/shm is no mount here")
    path = f"/dev/shm/livedump-test-{os.getpid()}"
    open_target(path).abandon()
    assert not os.path.exists(f"{path}.incomplete")


@as_root
def test_the_kernels_file_systems_elsewhere(tmp_path: Path) -> None:
    """Told by what they are, not by where they are."""
    for kind in ("devtmpfs", "proc"):
        place = tmp_path / kind
        place.mkdir()
        command = ["mount", "-t", kind, "none", str(place)]
        if subprocess.run(command, check=False, timeout=300, capture_output=True).returncode:
            pytest.skip(f"no {kind} may be mounted here")
        try:
            with pytest.raises(TargetError) as caught:
                open_target(place / "nosuch")
            assert caught.value.errno == errno.ENOENT, caught.value
            assert not (place / "nosuch").exists()
        finally:
            subprocess.run(["umount", str(place)], check=True, timeout=300)


def test_a_mount_of_ours_takes_no_dump(host: Host, live: LiveDump) -> None:
    """Neither its own host's nor another's; also through a host that would have to answer."""
    for name in ("nosuch", "machine/nosuch", "livedump", "mem"):
        path = host.mountpoint / name
        with pytest.raises(TargetError, match="livedumpfs") as caught:
            live.init(path)
        assert caught.value.errno in (errno.EROFS, errno.EINVAL)
        with Client(host.device) as client, pytest.raises(TargetError, match="livedumpfs"):
            client.init(str(path))
    host.runs_on()


@pytest.mark.parametrize("table", [None, Table.TAIL])
def test_a_host_makes_no_device(host: Host, table: Table | None) -> None:
    with Client(host.device) as client:
        options = InitOptions(format=Format.RAW, table=table)
        with pytest.raises(TargetError) as caught:
            client.init("/dev/nosuch", options)
        assert (str(caught.value), caught.value.errno) == (
            "there is no device /dev/nosuch",
            errno.ENOENT,
        )
        host.write("control/output", "/dev/nosuch")
        with pytest.raises(OSError, match="No such file"):
            host.write("control/state", "1")
        assert host.read("control/error") == "there is no device /dev/nosuch\n"
    assert not os.path.exists("/dev/nosuch")
    host.runs_on()


# ------------------------------------------------------------------------------ no room


def full(free: int) -> Callable[[int], Any]:
    """A statvfs of a file system with so many bytes for all, and a sixteenth more for root."""

    class Vfs:
        f_blocks, f_frsize, f_bavail = 1 << 20, 4096, free // 4096
        f_bfree = f_bavail + f_bavail // 16

    return lambda _: Vfs


@pytest.mark.parametrize("format", ["elf", "raw"])
def test_a_full_disk_is_foreseen(
    live: LiveDump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    live.machine.arena.live[:] = 1
    monkeypatch.setattr(os, "fstatvfs", full(3 * MIB))
    with untouched(tmp_path), pytest.raises(TargetError) as caught:
        live.init(tmp_path / "dump", DumpSettings(format=format))
    assert caught.value.errno == errno.ENOSPC
    said = str(caught.value)
    assert "the dump needs 4" in said and "has 3" in said and "force=True goes on" in said, said
    live.init(tmp_path / "dump", DumpSettings(format=format, force=True))
    live.release()
    monkeypatch.setattr(os, "fstatvfs", full(8 * MIB))
    live.init(tmp_path / "dump", DumpSettings(format=format))
    live.release()


def test_what_needs_no_room_is_not_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holes of the memory; what a broken-off dump gives back; a kdump; a file system that does not
    say."""
    monkeypatch.setattr(os, "fstatvfs", full(2 * MIB))
    with Arena(64 * MIB) as arena, LiveDump(arena) as live:
        arena.live[:MIB] = 1
        live.init(tmp_path / "sparse")
        live.release()
        arena.live[: 6 * MIB] = 1
        with pytest.raises(TargetError, match="the dump needs"):
            live.init(tmp_path / "dump")
        live.init(tmp_path / "dump", DumpSettings(format="kdump"))
        live.release()
        (tmp_path / "dump.incomplete").write_bytes(b"x" * 8 * MIB)
        with pytest.raises(TargetError, match="not a dump"):
            live.init(tmp_path / "dump")
        (tmp_path / "dump.incomplete").unlink()
        live.init(tmp_path / "dump", DumpSettings(force=True, granule=65536))
        live.start()
        arena.live[:] = 2
        live.sweep()
        live.release()
        arena.live[:] = 0
        monkeypatch.setattr(os, "fstatvfs", lambda _: type("None", (), {"f_blocks": 0}))
        live.init(tmp_path / "other")
        live.release()


def test_files_are_asked_in_this_order() -> None:
    """What can be refused is, before what is there is touched."""
    names = dump_files.DumpFiles.__init__.__code__.co_names
    assert names.index("_expect_room") < names.index("_make_room")
