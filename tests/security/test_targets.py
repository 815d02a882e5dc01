# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets that are something else than they seem, or become it: nothing is ever written to what was
not looked at."""

from __future__ import annotations

import collections
import errno
import itertools
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import abi
from livedumpfs.client import Client, InitOptions
from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import LivedumpError
from livedumpfs.formats import Plan
from livedumpfs.proc import proc_text
from livedumpfs.rights import folder
from livedumpfs.targets import open_target, retire_sidecar
from tests.fixtures.open_files import no_file_stays_open

Host = Any
"""RunningHost of conftest.py."""
HostMaker = Callable[..., Host]
DumpWriter = Callable[..., Plan]
RunAs = Callable[..., str]
DEADLINE = 300.0
ROUNDS = 20
FOREIGN = b"another program's data\n" * 100


@pytest.fixture
def host(run_host: HostMaker) -> Host:
    return run_host()


def attempt(client: Client, target: Path | str, **options: Any) -> str:
    """INIT, START and RELEASE: "ok", or the errno's name. Every refusal is one sentence."""
    try:
        client.init(str(target), InitOptions(**options))
        client.start()
        client.release()
        return "ok"
    except LivedumpError as error:
        assert "\n" not in str(error) and str(target) in str(error)
        return errno.errorcode[error.errno or errno.EIO]


# --------------------------------------------------------------------------- kinds


@contextmanager
def terminal() -> Iterator[tuple[str, int]]:
    """A terminal's path, and the other end of it."""
    master, slave = os.openpty()
    try:
        yield os.ttyname(slave), master
    finally:
        os.close(master)
        os.close(slave)


def test_what_is_neither_file_nor_device_nor_pipe(host: Host, tmp_path: Path) -> None:
    """By its name and through a link, forced or not; a terminal sees nothing of it."""
    listening = socket.socket(socket.AF_UNIX)
    with terminal() as (tty, master), listening, Client(host.device) as client:
        os.set_blocking(master, False)
        listening.bind(str(tmp_path / "socket"))
        (tmp_path / "loop").symlink_to("loop")
        os.mkfifo(tmp_path / "fifo")
        places = {
            tty: "EINVAL", "/dev/null": "EINVAL", "/dev/zero": "EINVAL", "/dev/tty": "EINVAL",
            "/dev/fuse": "EINVAL", str(tmp_path): "EISDIR", str(tmp_path / "socket"): "EINVAL",
            str(tmp_path / "loop"): "ELOOP", str(tmp_path / "fifo"): "ENXIO", "/": "EISDIR",
        }  # fmt: skip
        for number, (place, code) in enumerate(places.items()):
            link = tmp_path / f"link-{number}"
            link.symlink_to(place)
            assert attempt(client, place, force=bool(number % 2)) == code
            assert attempt(client, link, force=True) == code
        with suppress(BlockingIOError):
            assert not os.read(master, 100)
    host.runs_on()


def test_a_link_leads_to_its_file_and_stays(host: Host, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").touch()
    with Client(host.device) as client:
        assert attempt(client, tmp_path / "link") == "ok"
        assert not (tmp_path / "file").stat().st_size
        with open_dump(str(tmp_path / "file.incomplete")) as dump:
            assert dump.verdict == "incomplete"
        client.init(str(tmp_path / "link"))
        client.start()
        client.sweep()
        client.finish(DEADLINE)
        client.release()
    assert (tmp_path / "link").is_symlink()
    with open_dump(str(tmp_path / "file")) as dump:
        assert dump.verdict == "consistent"
    assert {one.name for one in tmp_path.iterdir()} >= {"file", "link"}
    assert not list(tmp_path.glob("*.incomplete"))


def test_files_of_the_kernel_are_no_targets(host: Host, tmp_path: Path) -> None:
    """They take no size. Some go by the rights of the process that writes, and the host writes as
    itself, in a raw dump the guest's own bytes."""
    with subprocess.Popen(["sleep", "600"]) as other, Client(host.device) as client:
        score = Path(f"/proc/{other.pid}/oom_score_adj")
        try:
            before = score.read_text()
            sidecar = str(tmp_path / "side")
            for options in ({}, {"format": abi.Format.RAW, "sidecar": sidecar}):
                assert attempt(client, score, force=True, **options) == "EINVAL"
                assert "it holds no data" in host.read("control/error")
            for place in (f"/proc/{other.pid}/mem", f"/proc/{other.pid}/comm"):
                assert attempt(client, place, force=True) != "ok"
            assert score.read_text() == before
            assert proc_text(f"/proc/{other.pid}/comm") == "sleep\n"
        finally:
            other.kill()
    host.runs_on()


# ----------------------------------------------------------- swapped in between


def swapping(path: Path, others: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on each open of `path` moves the next of `others` into its place, afterwards."""
    real, left = os.open, iter(others)

    def opened(name: Any, flags: int, *rest: Any, **options: Any) -> int:
        fd = real(name, flags, *rest, **options)
        if os.fsdecode(name) == str(path):
            with suppress(StopIteration):
                os.replace(next(left), path)
        return fd

    monkeypatch.setattr(os, "open", opened)


@pytest.mark.parametrize("kind", ["file", "fifo", "link", "nowhere", "folder", "socket"])
def test_the_helper_opens_what_it_looked_at_or_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "path", tmp_path / "other"
    path.touch()
    if kind == "fifo":
        os.mkfifo(other)
    elif kind == "link":
        other.symlink_to("/dev/null")
    elif kind == "nowhere":
        other.symlink_to(tmp_path / "none")
    elif kind == "folder":
        (tmp_path / "there").mkdir()
        other.symlink_to(tmp_path / "there")
    elif kind == "socket":  # ENXIO, as of a terminal that is not there
        socket.socket(socket.AF_UNIX).bind(str(other))
    else:
        other.write_bytes(FOREIGN)
    swapping(path, [other], monkeypatch)
    with no_file_stays_open(), pytest.raises(folder.Refused) as caught:
        folder.find(str(path), {}, folder.by_name)
    assert caught.value.errno == errno.EAGAIN


def test_a_target_of_ones_own_is_what_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "path", tmp_path / "other"
    path.touch()
    seen = path.stat()
    other.symlink_to("/dev/null")
    swapping(path, [other], monkeypatch)
    with open_target(path) as target:
        assert os.path.samestat(os.fstat(target.fd), seen)


def test_no_device_is_opened_to_look_for_a_sidecar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The open of some does something: a watchdog, a tape."""
    (tmp_path / "out.ldfs").symlink_to("/dev/zero")
    opened = []
    real = os.open

    def watched(name: Any, flags: int, *rest: Any, **options: Any) -> int:
        fd = real(name, flags, *rest, **options)
        if stat.S_ISCHR(os.fstat(fd).st_mode) and not flags & os.O_PATH:
            opened.append(name)
        return fd

    monkeypatch.setattr(os, "open", watched)
    assert not retire_sidecar(str(tmp_path / "out.ldfs"))
    assert not opened


def test_a_path_that_changes_all_the_time(host: Host, tmp_path: Path) -> None:
    """A user who may write the directory moves one thing after the other into the target's
    place."""
    path, folder = tmp_path / "path", tmp_path / "things"
    folder.mkdir()
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    (folder / "empty").touch()
    (folder / "foreign").write_bytes(FOREIGN)
    (folder / "folder").mkdir()
    stop, swaps, piped = threading.Event(), [0], bytearray()

    def drain() -> None:
        """A pipe is a target, too: it gets the beginnings of dumps."""
        while not stop.is_set():
            with suppress(BlockingIOError):
                piped.extend(os.read(reader, 1 << 20))
            stop.wait(0.001)

    def swap() -> None:
        names = itertools.cycle(("empty", "foreign", "/dev/null", "fifo", "folder", "/dev/tty"))
        while not stop.is_set():
            new = tmp_path / "new"
            new.symlink_to(folder / next(names))
            os.replace(new, path)
            swaps[0] += 1

    found: collections.Counter[str] = collections.Counter()
    threads = [threading.Thread(target=one) for one in (swap, drain)]
    for thread in threads:
        thread.start()
    try:
        with Client(host.device) as client:
            end = time.monotonic() + DEADLINE
            while found.total() < ROUNDS or swaps[0] < ROUNDS:
                found[attempt(client, path)] += 1
                assert time.monotonic() < end, (swaps, found)
    finally:
        stop.set()
        for thread in threads:
            thread.join(DEADLINE)
    print(f"{swaps[0]} swaps, {dict(found)}")
    assert not set(found) - {"ok", "EAGAIN", "EINVAL", "EISDIR", "EEXIST", "ESPIPE", "ENOENT"}
    assert (folder / "foreign").read_bytes() == FOREIGN
    assert not piped or piped.startswith(b"makedumpfile")
    os.close(reader)
    assert os.listdir(folder / "folder") == []
    with Client(host.device) as client:
        path.unlink()
        assert attempt(client, path) == "ok"
    host.runs_on()


# ------------------------------------------------------------------------ new files


def test_new_files_are_private_whatever_the_umask(
    host: Host, tmp_path: Path, run_as: RunAs
) -> None:
    """Dumps and sidecars have all of a machine's secrets."""
    folder = tmp_path / "new"
    folder.mkdir()
    for format in abi.Format:
        arguments = (host.device, folder / format.name, int(format))
        found = run_as(0, "init_targets.py", *arguments, umask=0)
        assert found == "done\n"
    names = ("ELF.incomplete", "RAW.incomplete", "RAW.incomplete.ldfs", "KDUMP.incomplete")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == dict.fromkeys(names, 0o600)


def test_a_converted_dump_is_private(tmp_path: Path, write_dump: DumpWriter, run_as: RunAs) -> None:
    write_dump(tmp_path / "in", bytes(range(256)) * 64)
    arguments = ("convert", "--format", "kdump", tmp_path / "in", tmp_path / "out")
    run_as(0, "cli.py", *arguments, umask=0)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600


def test_errors_and_logs_have_nothing_of_memory_or_files(host: Host, tmp_path: Path) -> None:
    """Dumps that succeed and dumps that fail, and what was said about them."""
    marker = "MARKER-IN-A-FOREIGN-FILE"
    (tmp_path / "foreign").write_text(marker * 100)
    said = []
    with Client(host.device) as client:
        for target in (tmp_path / "foreign", tmp_path, tmp_path / "none" / "x"):
            assert attempt(client, target) != "ok"
            said.append(host.read("control/error"))
        client.init(str(tmp_path / "out"), InitOptions(policy=abi.Policy.FAIL, pool=4096))
        client.start()
        client.sweep()
        client.finish(DEADLINE, check=False)
        said += [host.read(name) for name in ("control/error", "stats.json", "livedump")]
        client.release()
    said.append(host.end())
    memory = (tmp_path / "out").read_bytes()
    pieces = {memory[at : at + 16] for at in range(1 << 20, len(memory), 65536)}
    text = "\n".join(said).encode()
    assert marker.encode() not in text
    assert not [piece for piece in pieces if any(piece) and piece in text]
