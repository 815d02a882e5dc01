# SPDX-License-Identifier: GPL-2.0-or-later
"""Terminals: what a guest, a dump's author or another user of the mount chose does not get there as
it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.cli import text
from livedumpfs.cli.outcome import complain, note
from livedumpfs.client import Client
from livedumpfs.errors import HostError, InvalidDump, LivedumpError, UsageError, printable
from livedumpfs.formats import MachineInfo, MemoryRange, Plan
from livedumpfs.machines.kernels.vmcoreinfo import MAX_SIZE, find_vmcoreinfo
from tests.fixtures import forks

Host = Any
"""RunningHost of conftest.py."""
HostMaker = Callable[..., Host]
DumpWriter = Callable[..., Plan]
DEADLINE = 300.0
PAGE = 4096
EVIL = "\x1b]0;title\a\x1b[2J\x1b[31m\r\b\x9b5n\u202e\u2066\x7f\x00evil"
"""Sets the title, clears the screen, asks the terminal to type something, turns the text round."""


def harmless(shown: str) -> None:
    """One can see all of it, and nothing but lines."""
    assert "evil" in shown
    assert all(line.isprintable() for line in shown.split("\n")), repr(shown)


def test_printable() -> None:
    assert printable("añ/ü 漢字 €") == "añ/ü 漢字 €"
    harmless(printable(EVIL + "\udcff\n"))


@pytest.mark.parametrize("kind", [LivedumpError, HostError, InvalidDump, UsageError])
def test_every_sentence_is_one_line(kind: type[LivedumpError]) -> None:
    sentence = str(kind(f"cannot open {EVIL}\nlivedump: released", hint=EVIL))
    harmless(sentence)
    assert "\n" not in sentence


def test_what_commands_print(capsys: pytest.CaptureFixture[str]) -> None:
    complain(EVIL)
    note(EVIL)
    print(text.table([("target", EVIL), ("failure", "first\nsecond")]))
    out, err = capsys.readouterr()
    harmless(out)
    harmless(err)
    assert len((out + err).splitlines()) == 4


def hostile_machine() -> MachineInfo:
    return MachineInfo(EVIL, vcpus=1, memory_map=(MemoryRange(0, 4 * PAGE, 0),), architecture=EVIL)


@pytest.mark.parametrize("format", ["elf", "raw", "kdump"])
def test_dumps_with_names_for_the_terminal(
    format: str, tmp_path: Path, write_dump: DumpWriter
) -> None:
    """Each command that opens one, in a process of its own, with both of its outputs."""
    dump = tmp_path / "dump"
    arrays = [{"name": EVIL, "dtype": "<i8", "shape": [4], "offset": 0}]
    meta = {
        "policy": EVIL, "backend": EVIL, "arming": EVIL, "host_version": EVIL, "arrays": arrays,
        "machine": {"name": EVIL}, "instant": {"wall_ns": EVIL}, "counters": {"stall_max_ns": EVIL},
    }  # fmt: skip
    write_dump(
        dump, bytes(range(256)) * 64, format=format, machine=hostile_machine(), meta=meta,
        verdict="torn", states=[1, 1, 1, 3],
    )  # fmt: skip
    for command in (
        ("info", dump), ("info", "--json", dump), ("verify", dump), ("verify", "--json", dump),
        ("compare", dump, dump), ("convert", dump, tmp_path / "flat"),
        ("convert", "--format", "raw", dump, tmp_path / "raw"), ("info", tmp_path / EVIL[:-5]),
    ):  # fmt: skip
        shown = run(*map(str, command))
        assert shown and all(line.isprintable() for line in shown.split("\n")), repr(shown)
        if command[0] == "info" and command[-1] == dump:
            assert "evil" in shown


def run(*arguments: str) -> str:
    """Both outputs of a command."""
    arguments = tuple(one.replace("\0", "") for one in arguments)
    return forks.run(
        [sys.executable, "-m", "livedumpfs.cli", *arguments], stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=DEADLINE, check=False,
    ).stdout  # fmt: skip


def test_paths_that_other_users_of_a_mount_chose(run_host: HostMaker, tmp_path: Path) -> None:
    """In control/error, in the line of status, and in what the commands say of the host."""
    host = run_host()
    odd = EVIL.replace("\0", "") + "\n"
    with Client(host.device) as client, pytest.raises(LivedumpError):
        client.init(str(tmp_path / odd / "x"))
    harmless(host.read("control/error"))
    with Client(host.device) as client:
        client.init(str(tmp_path / odd))
        harmless(host.read("livedump"))
        assert host.read("livedump").count("\n") == 1
        harmless(run("status", "--device", host.device))
        client.release()
    with pytest.raises(OSError, match="Invalid argument"):
        host.write("control/policy", EVIL)
    harmless(host.read("control/error"))


VMCOREINFO = (
    b"OSRELEASE=6.1.0\nKERNELOFFSET=0\nNUMBER(phys_base)=0\n"
    b"SYMBOL(swapper_pg_dir)=ffffffff82000000\n"
)


def test_vmcoreinfo_is_text_and_no_longer_than_its_page() -> None:
    """A guest can write its own; crash and drgn print it."""
    memory = VMCOREINFO.ljust(PAGE, b"\0")
    assert find_vmcoreinfo(memory_reader(memory), len(memory)) == VMCOREINFO
    for byte in (0x1B, 0x07, 0x7F, 0x9B, 0x0D):
        evil = VMCOREINFO.replace(b"6.1.0", b"6.1" + bytes([byte]) + b"0")
        assert find_vmcoreinfo(memory_reader(evil), len(evil)) is None
    long = VMCOREINFO + b"x=" + b"1" * (2 * MAX_SIZE) + b"\n"
    assert find_vmcoreinfo(memory_reader(long), len(long)) is None


def memory_reader(memory: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: memory[offset : offset + length]
