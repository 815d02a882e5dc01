# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets that are something else than they seem, or become it: nothing is ever written to what was
not looked at, nor with rights that the caller has not."""

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
from livedumpfs.rights import folder
from livedumpfs.targets import open_target, retire_sidecar
from tests.fixtures.program_files import program_command

Host = Any
"""RunningHost of conftest.py."""
HostMaker = Callable[..., Host]
DumpWriter = Callable[..., Plan]
RunAs = Callable[..., str]
DEADLINE = 300.0
ROUNDS = 20
USER, GROUP = 3_000_111, 54321
FOREIGN = b"somebody else's data\n" * 100


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
    """They take no size. Some go by the rights of who writes, and the host writes as itself, in a
    raw dump the guest's own bytes."""
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
            assert Path(f"/proc/{other.pid}/comm").read_text() == "sleep\n"
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


@pytest.mark.parametrize("kind", ["file", "fifo", "link"])
def test_the_helper_opens_what_it_looked_at_or_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "path", tmp_path / "other"
    path.touch()
    if kind == "fifo":
        os.mkfifo(other)
    elif kind == "link":
        other.symlink_to("/dev/null")
    else:
        other.write_bytes(FOREIGN)
    swapping(path, [other], monkeypatch)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(folder.Refused) as caught:
        folder.find(str(path), {}, folder.by_name)
    assert caught.value.errno == errno.EAGAIN
    assert len(os.listdir("/proc/self/fd")) == before


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
    """Who may write the directory moves one thing after the other into the target's place."""
    path, folder = tmp_path / "path", tmp_path / "things"
    folder.mkdir()
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    (folder / "empty").touch()
    (folder / "foreign").write_bytes(FOREIGN)
    (folder / "folder").mkdir()
    stop, swaps = threading.Event(), [0]

    def swap() -> None:
        names = itertools.cycle(("empty", "foreign", "/dev/null", "fifo", "folder", "/dev/tty"))
        while not stop.is_set():
            new = tmp_path / "new"
            new.symlink_to(folder / next(names))
            os.replace(new, path)
            swaps[0] += 1

    found: collections.Counter[str] = collections.Counter()
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        with Client(host.device) as client:
            end = time.monotonic() + DEADLINE
            while found.total() < ROUNDS or swaps[0] < ROUNDS:
                found[attempt(client, path)] += 1
                assert time.monotonic() < end, (swaps, found)
    finally:
        stop.set()
        thread.join(DEADLINE)
    print(f"{swaps[0]} swaps, {dict(found)}")
    assert not set(found) - {"ok", "EAGAIN", "EINVAL", "EISDIR", "EEXIST", "ESPIPE", "ENOENT"}
    assert (folder / "foreign").read_bytes() == FOREIGN
    with suppress(BlockingIOError):
        assert not os.read(reader, 100)
    os.close(reader)
    assert os.listdir(folder / "folder") == []
    with Client(host.device) as client:
        path.unlink()
        assert attempt(client, path) == "ok"
    host.runs_on()


# --------------------------------------------------------------- the caller's rights


def init_as(run_as: RunAs, host: Host, target: Path | str, *words: str, **options: Any) -> str:
    groups = options.pop("groups", (GROUP,))
    arguments = (host.device, target, *words)
    return run_as(USER, "init_targets.py", *arguments, groups=groups, **options).strip()


@pytest.fixture
def shared(open_folder: Path, run_host: HostMaker) -> Host:
    """A host that USER may control as a member of GROUP."""
    return run_host(group=GROUP, folder=open_folder)


def test_a_sidecar_is_not_looked_at_or_removed_with_the_hosts_rights(
    shared: Host, open_folder: Path, run_as: RunAs, write_dump: DumpWriter
) -> None:
    """Root's dump that the caller may overwrite, and its sidecar that he may neither read nor
    remove."""
    target, sidecar = open_folder / "out", open_folder / "out.ldfs"
    write_dump(target, bytes(range(256)) * 64, format="raw")
    target.chmod(0o666)
    content = sidecar.read_bytes()
    assert init_as(run_as, shared, target).startswith("EEXIST ")
    assert init_as(run_as, shared, target, "force") == "done"
    assert sidecar.read_bytes() == content
    with open_dump(str(target)) as dump:
        assert dump.format == "elf"


def test_a_sidecar_of_ones_own_stays_until_it_would_be_wrong(
    shared: Host, open_folder: Path, run_as: RunAs, write_dump: DumpWriter
) -> None:
    """Then it goes, with the caller's rights: it would describe what lies there no more."""
    own = open_folder / "own"
    own.mkdir()
    write_dump(own / "out", bytes(range(256)) * 64, format="raw")
    for path in (own, own / "out", own / "out.ldfs"):
        os.chown(path, USER, USER)
    assert init_as(run_as, shared, own / "out") == "done"
    with open_dump(str(own / "out")) as dump:
        assert (dump.format, dump.verdict) == ("raw", "consistent")
    assert init_as(run_as, shared, own / "out", "sweep") == "done"
    assert [one.name for one in own.iterdir()] == ["out"]
    assert (own / "out").stat().st_uid == USER
    with open_dump(str(own / "out")) as dump:
        assert (dump.format, dump.verdict) == ("elf", "consistent")


def test_a_link_beside_the_target_leads_to_nobodys_sidecar(
    shared: Host, open_folder: Path, run_as: RunAs, write_dump: DumpWriter
) -> None:
    own, private = open_folder / "own", open_folder / "private"
    for place in (own, private):
        place.mkdir(mode=0o700)
    os.chown(own, USER, USER)
    write_dump(private / "roots", bytes(range(256)) * 64, format="raw")
    content = (private / "roots.ldfs").read_bytes()
    (own / "out.ldfs").symlink_to(private / "roots.ldfs")
    assert init_as(run_as, shared, own / "out") == "done"
    assert (own / "out.ldfs").is_symlink()
    assert (private / "roots.ldfs").read_bytes() == content


def test_descriptors_of_others_are_not_reached_by_proc(
    shared: Host, open_folder: Path, run_as: RunAs
) -> None:
    """/proc/PID/fd of root's process, of the host and of the helper itself."""
    secret = open_folder / "secret"
    secret.touch(mode=0o600)
    with open(secret, "r+b") as file:
        places = [
            f"/proc/{os.getpid()}/fd/{file.fileno()}", f"/proc/{shared.process.pid}/mem",
            f"/proc/{os.getpid()}/cwd/x", "/proc/self/mem", "/proc/self/exe",
            *(f"/proc/self/fd/{number}" for number in range(10)),
        ]  # fmt: skip
        answers = init_as(run_as, shared, "\n".join(places), "force").split("\n")
        assert len(answers) == len(places) and "done" not in answers
    assert secret.stat().st_size == 0
    shared.runs_on()


def test_root_of_a_user_namespace_is_who_he_is_outside(
    shared: Host, open_folder: Path, run_as: RunAs
) -> None:
    private, own = open_folder / "private", open_folder / "own"
    private.mkdir(mode=0o700)
    own.mkdir()
    os.chown(own, USER, USER)
    for place, answer in ((private, "EACCES "), (own, "done")):
        arguments = (shared.device, place / "out")
        found = run_as(USER, "root_of_a_namespace.py", *arguments, groups=(GROUP,))
        if found.startswith("SKIP"):
            pytest.skip(f"no user namespaces here: {found}")
        assert found.startswith(answer)
    assert (own / "out.incomplete").stat().st_uid == USER


def test_the_file_system_uid_is_what_counts(shared: Host, open_folder: Path) -> None:
    """Of a file server of root's, which acts as its client for one call."""
    private = open_folder / "private"
    private.mkdir(mode=0o700)
    done = subprocess.run(
        [*program_command(__file__, "file_system_ids.py", str(USER), str(GROUP)), shared.device,
         private / "out"],
        env=shared.environment, capture_output=True, text=True, timeout=DEADLINE, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("EACCES cannot open "), done.stdout
    assert not list(private.iterdir())


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
