# SPDX-License-Identifier: GPL-2.0-or-later
"""How a QEMU may be started, with a real one that runs no kernel: with few rights, in a sandbox,
with files of its caller's, paused by another program."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.core.capi import lib
from livedumpfs.dump import DumpSettings, LiveDump, remote
from livedumpfs.dumpfile import open_dump, verify_dump
from livedumpfs.errors import MachineError, StateError, UsageError
from livedumpfs.machines import shim
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.machines.qemu.guest_memory import find_mapping
from livedumpfs.proc import proc_text
from tests.fixtures.program_files import program_command
from tests.qemu.this_qemu import as_nobody

BASE = (
    "qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-nodefaults", "-m", "64M",
)  # fmt: skip
DEADLINE_S = 300.0
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
"""As libvirt has it."""


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("-sandbox", SANDBOX),
        ("USER",),
        ("USER", "-sandbox", "on"),
        ("-S",),
    ],
    ids=lambda words: " ".join(words)[:24],
)
def test_a_dump_of_a_qemu_with_few_rights(tmp_path: Path, words: Sequence[str]) -> None:
    """What it may not do itself it gets from the host: /dev/userfaultfd, the open target."""
    given = [one for word in words for one in (as_nobody() if word == "USER" else (word,))]
    with QemuMachine([*BASE, *given]) as machine:
        machine.start()
        assert LiveDump(machine).save(tmp_path / "dump") == "consistent"
        assert machine.monitor.status() == ("prelaunch" if "-S" in words else "running")
    with open_dump(tmp_path / "dump") as dump:
        assert verify_dump(dump).ok


def in_core_files(pid: int, size: int) -> list[str]:
    """Mappings of the guest's memory, at least `size` bytes, that a core file would have."""
    found, mapping = [], ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            start, end = (int(one, 16) for one in words[0].split("-"))
            mapping = line if end - start >= size and "memfd:" in line else ""
        elif mapping and words[0] == "VmFlags:" and "dd" not in words:
            found.append(mapping)
    return found


def test_memory_that_is_kept_out_of_core_files_stays_out(tmp_path: Path) -> None:
    with QemuMachine([*BASE, "-machine", "pc,dump-guest-core=off"]) as machine:
        machine.start()
        for name in ("one", "two"):
            assert in_core_files(machine._process.pid, 64 << 20) == []
            live = LiveDump(machine)
            live.init(tmp_path / name)
            live.start()
            assert in_core_files(machine._process.pid, 64 << 20) == []
            live.release()
    with QemuMachine(BASE) as machine:
        machine.start()
        assert in_core_files(machine._process.pid, 64 << 20)


def advice(pid: int, address: int) -> set[str]:
    """What the kernel knows of the mapping that begins there."""
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            inside = int(words[0].split("-")[0], 16) == address
        elif inside and words[0] == "VmFlags:":
            return set(words[1:])
    return set()


def test_what_qemu_has_told_of_its_memory_stays(tmp_path: Path) -> None:
    with QemuMachine(BASE) as machine:
        machine.start()
        maps = proc_text(f"/proc/{machine.pid}/maps")
        live = find_mapping(maps, 64 << 20).address
        before = advice(machine.pid, live)
        assert "hg" in before  # QEMU wants huge pages
        for name in ("one", "two"):
            assert LiveDump(machine).save(tmp_path / name) == "consistent"
            assert advice(machine.pid, live) - {"nr"} == before  # ours reserves no swap


def test_where_qemu_makes_no_dump_its_monitor_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with QemuMachine(BASE) as machine:
        machine.start()
        monkeypatch.setattr(machine._states, "prepare", lambda: None)  # no file to write into
        live = LiveDump(machine)
        assert live.save(tmp_path / "dump") == "consistent"
        assert machine.monitor.status() == "running"
    with open_dump(tmp_path / "dump") as dump:
        assert [set(one) >= {"rip", "gs_base"} for one in dump.registers] == [True]


def test_without_the_right_it_is_told_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_USERFAULTFD", str(tmp_path / "none"))
    with QemuMachine([*BASE, *as_nobody()]) as machine:
        machine.start()
        if Path("/proc/sys/vm/unprivileged_userfaultfd").read_text().strip() != "0":
            pytest.skip("every user may use userfaultfd here")
        with pytest.raises(MachineError, match=r"vm\.unprivileged_userfaultfd=1") as caught:
            LiveDump(machine).init(tmp_path / "dump")
        assert caught.value.errno == errno.EACCES
        assert machine.monitor.status() == "running"


def test_files_of_the_caller_are_qemus_too() -> None:
    """As those that libvirt opens for it."""
    reader, writer = os.pipe()
    words = ["-add-fd", f"fd={writer},set=7,opaque=theirs"]
    try:
        with pytest.raises(MachineError, match="ended at once"):
            QemuMachine([*BASE, *words])
        os.set_inheritable(writer, True)
        with QemuMachine([*BASE, *words]) as machine:
            sets = machine.monitor.execute("query-fdsets")
            assert isinstance(sets, list) and [one["fdset-id"] for one in sets] == [7]
    finally:
        os.close(reader)
        os.close(writer)


def test_children_of_qemu_get_nothing_of_ours() -> None:
    own = Path("/proc/self/fd")
    # Of the process that started the tests.
    given = {os.readlink(one) for one in own.iterdir() if one.exists() and inheritable(one)}
    with QemuMachine(BASE) as machine:
        folder = Path(f"/proc/{machine._process.pid}")
        kept = [
            int(path.name)
            for path in (folder / "fd").iterdir()
            if "socket:" in os.readlink(path)
            and os.readlink(path) not in given
            and inheritable(path)
        ]
        assert kept == []


def inheritable(path: Path) -> bool:
    text = (path.parents[1] / "fdinfo" / path.name).read_text()
    flags = next(line.split()[1] for line in text.splitlines() if line.startswith("flags:"))
    return not int(flags, 8) & os.O_CLOEXEC


@pytest.mark.parametrize("paused", [False, True])
def test_last_words_are_for_a_guest_that_we_hold(
    paused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program's pause is not ended by our death."""
    said: list[bytes] = []
    with QemuMachine(BASE) as machine:
        machine.start()
        if paused:
            machine.monitor.execute("stop")
        assert machine.shim is not None
        monkeypatch.setattr(machine.shim, "last_words", lambda text, *rest: said.append(text))
        machine.quiesce()
        machine.resume()
        assert machine.monitor.status() == ("paused" if paused else "running")
    assert any(said) is not paused


def test_one_deadline_for_the_whole_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked of QEMU between stop and cont has what is left of it."""
    asked: list[tuple[str, float]] = []
    with QemuMachine(BASE) as machine:
        machine.start()
        real = machine.monitor._ask

        async def ask(command: str, arguments: dict[str, object] | None, timeout: float) -> object:
            asked.append((command, timeout))
            return await real(command, arguments, timeout)

        monkeypatch.setattr(machine.monitor, "_ask", ask)
        live = LiveDump(machine)
        live.init(None, DumpSettings(quiesce_deadline=DEADLINE_S).without_target())
        live.start()
        names = [name for name, _ in asked]
        pause = asked[names.index("stop") : names.index("cont") + 1]
        assert [name for name, _ in pause] == ["stop", "dump-guest-memory", "cont"]
        left = [timeout for _, timeout in pause]
        assert DEADLINE_S > left[0] > left[1] > left[2] > 0
        live.release()


def test_a_qemu_that_is_late_in_the_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with QemuMachine(BASE) as machine:
        machine.start()
        live = LiveDump(machine)
        live.init(tmp_path / "dump")

        def take(*, timeout: float) -> None:
            assert machine.monitor.status() == "paused"
            raise MachineError(f"QEMU does not answer within {timeout}", errno=errno.ETIMEDOUT)

        monkeypatch.setattr(machine._states, "take", take)
        with pytest.raises(MachineError, match="does not answer"):
            live.start()
        assert machine.monitor.status() == "running"
        monkeypatch.undo()
        live.start()
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent"
        live.release()


def test_a_dump_into_a_pipe(tmp_path: Path) -> None:
    """Two processes write to it; what comes out is one file."""
    flat, plain = tmp_path / "flat", tmp_path / "plain"
    reader, writer = os.pipe()
    with QemuMachine(BASE) as machine:
        os.pwrite(machine.arena.fd, os.urandom(24 << 20), 8 << 20)
        machine.start()
        with open(flat, "wb") as out, open(reader, "rb") as source, open(writer, "wb"):
            cat = subprocess.Popen(["cat"], stdin=source, stdout=out)
            target = f"/proc/self/fd/{writer}"
            assert LiveDump(machine).save(target, DumpSettings(format="kdump")) == "consistent"
        assert cat.wait(300) == 0
    with open(flat, "rb") as stream:
        done = ["makedumpfile", "-R", str(plain)]
        subprocess.run(done, stdin=stream, check=True, capture_output=True, timeout=300)
    with open_dump(plain) as dump:
        assert dump.verdict == "consistent" and verify_dump(dump).ok
        at = dump.memory_map[0].arena_offset
        assert dump.read_arena(at + (9 << 20), 1 << 20).strip(b"\0")


def test_a_pipe_whose_reader_goes_away(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with QemuMachine(BASE) as machine:
        os.pwrite(machine.arena.fd, os.urandom(24 << 20), 8 << 20)
        machine.start()
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        live = LiveDump(machine)
        live.init(pipe, DumpSettings(format="kdump", compression="none"))
        live.start()
        os.close(reader)
        live.sweep()
        assert live.finish(300, check=False) == "incomplete"
        live.release()
        assert machine.monitor.status() == "running"
        assert LiveDump(machine).save(tmp_path / "next") == "consistent"


def test_an_init_that_took_too_long_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host has given it up: QEMU's side must not keep what came of it."""
    with QemuMachine(BASE) as machine:
        machine.start()
        real, real_last = shim._exchange, shim._last_chance
        qemu = machine._process.pid

        def impatient(
            sock: socket.socket, asked: shim._Request, patience: float | None = None
        ) -> shim.Answer:
            if asked.operation != lib.LDFS_SHIM_INIT:
                return real(sock, asked, DEADLINE_S)
            os.kill(qemu, signal.SIGSTOP)
            return real(sock, asked, 0.05)

        def last_chance(sock: socket.socket) -> shim.Answer:
            answer = real_last(sock)
            os.kill(qemu, signal.SIGCONT)
            return answer

        monkeypatch.setattr(shim, "_exchange", impatient)
        monkeypatch.setattr(shim, "_last_chance", last_chance)
        live = LiveDump(machine)
        with pytest.raises(MachineError, match="in time") as caught:
            live.init(tmp_path / "dump")
        assert caught.value.errno == errno.ETIMEDOUT
        monkeypatch.undo()
        end = time.monotonic() + DEADLINE_S
        while True:
            try:
                assert LiveDump(machine).save(tmp_path / "next") == "consistent"
                break
            except StateError as error:  # it is still at the first
                assert "has a dump already" in str(error) and time.monotonic() < end
                time.sleep(0.05)


def test_a_killed_host_whose_pipe_nobody_reads(
    tmp_path: Path, protection: Callable[..., Any]
) -> None:
    """QEMU's side waits for the reader while it sees the host go."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    host = subprocess.Popen(
        program_command(__file__, "sweep_into_pipe.py", str(pipe), *BASE),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    qemu = 0
    try:
        assert host.stdin and host.stdout
        qemu = int(host.stdout.readline())
        protected = protection(qemu, 64 << 20)
        host.stdin.write("\n")
        host.stdin.flush()
        assert host.stdout.readline() == "sweeping\n"
        assert protected.count() > 0
        host.kill()
        host.wait()
        end = time.monotonic() + DEADLINE_S
        while protected.count():
            assert time.monotonic() < end, protected.count()
            time.sleep(0.1)
    finally:
        host.kill()
        host.wait()
        os.close(reader)
        if qemu:
            os.kill(qemu, signal.SIGKILL)


@pytest.mark.parametrize(
    ("name", "said"),
    [("x" * 100, "its path is longer than 107 bytes"), ('a"b', "QEMU takes no quotation marks in")],
    ids=["long", "quote"],
)
def test_a_directory_for_temporary_files_that_will_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    place = tmp_path / name
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    with pytest.raises(MachineError) as caught:
        QemuMachine(BASE)
    assert said in caught.value.message and str(place) in caught.value.message
    assert "TMPDIR" in caught.value.hint
    assert not list(place.iterdir())


def test_memory_in_a_file_on_a_disk_is_refused(tmp_path: Path) -> None:
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout.strip()
    backend = f"memory-backend-file,id=ram,size=64M,mem-path={tmp_path}/ram,share=on"
    words = [*BASE, "-object", backend, "-machine", "memory-backend=ram"]
    if kind == "tmpfs":
        QemuMachine(words).close()
        return
    with pytest.raises(UsageError, match="file on a disk"):
        QemuMachine(words)
