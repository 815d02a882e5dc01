# SPDX-License-Identifier: GPL-2.0-or-later
"""Command lines as we read them, beside what the same QEMU makes of them without us."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.errors import LivedumpError, UsageError
from livedumpfs.machines.qemu import EndedAtOnce, QemuCommand, QemuMachine
from livedumpfs.machines.qemu.asking import Ram, takes_value
from livedumpfs.machines.qemu.qemu_options import FLAGS, VALUED
from tests.qemu.this_qemu import skip_what_it_refuses

QEMU = "qemu-system-x86_64"
MIB = 1 << 20
DEADLINE_S = 300.0
BARE = ("-nodefaults", "-display", "none")
ID = "memory-backend-memfd,id=ram0,share=on"
USED = ("-machine", "memory-backend=ram0")


def run(*words: str, asked: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, input=asked, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def alone(*words: str) -> Ram:
    """Size and name of the RAM of a QEMU without us."""
    names = ("qmp_capabilities", "query-memory-size-summary", "query-memdev", "quit")
    asked = "".join(json.dumps({"execute": name}) + "\n" for name in names)
    said = run(QEMU, *words, *BARE, "-S", "-qmp", "stdio", asked=asked)
    found = [json.loads(line) for line in said.stdout.splitlines()]
    answers: list[Any] = [one["return"] for one in found if "return" in one]
    assert len(answers) == len(names), (said.stdout, said.stderr)
    (memory,) = answers[2]
    assert memory["size"] == answers[1]["base-memory"]
    return Ram(memory["size"], memory["id"])


CONFIG = '[memory]\n  size = "0x60"\n[machine]\n  type = "q35"\n[smp-opts]\n  cpus = "2"\n'


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("-m", "96"),
        ("-m", "0x60"),
        ("-m", "0x6000000b"),
        ("-m", "96m"),
        ("-m", "0.5G"),
        ("--m", "100000001B"),
        ("-m", "1000001K"),
        ("-m", "size=96M,slots=2,maxmem=256M"),
        ("-m", "96M,maxmem=0x200M,slots=1"),
        ("-m", "slots=2,maxmem=1G", "-m", "size=96M"),
        ("-m", "96M", "-m", "128M"),
        ("-M", "q35,memory.size=96M"),
        ("-machine", "type=pc", "-machine", "memory.size=0x6000000"),
        ("-M", "memory.size=96M", "-m", "64M"),
        ("-M", "microvm"),
        ("-M", "pc-i440fx-4.0", "-smp", "2,maxcpus=4"),
        ("-M", "isapc"),
        ("-M", "q35", "-cpu", "max", "-smp", "cpus=2,sockets=1,cores=2,threads=1"),
        ("-readconfig", "CONFIG"),
        ("-m", "64M", "-readconfig", "CONFIG"),
    ],
    ids=" ".join,
)
def test_the_ram_is_what_qemu_makes_of_it(tmp_path: Path, words: Sequence[str]) -> None:
    (tmp_path / "vm.cfg").write_text(CONFIG)
    given = [str(tmp_path / "vm.cfg") if word == "CONFIG" else word for word in words]
    skip_what_it_refuses(given)
    assert QemuCommand.parse([QEMU, *given]).ask_ram() == alone(*given)


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "0x40"),
        ("-m", "64M,maxmem=1G,slots=2"),
        ("-readconfig", "CONFIG"),
        ("-m", "64M", "-object", f"{ID},size=0x4000000", *USED),
        ("-m", "64M", "-object", f"{ID},size=64M", "-numa", "node,memdev=ram0"),
        (
            "-m",
            "64M",
            "-object",
            '{"qom-type":"memory-backend-memfd","id":"ram0","size":67108864,"share":true}',
            *USED,
        ),
    ],
    ids=" ".join,
)
def test_a_guest_with_that_memory_is_started(tmp_path: Path, words: Sequence[str]) -> None:
    (tmp_path / "vm.cfg").write_text(CONFIG.replace("0x60", "64"))
    given = [str(tmp_path / "vm.cfg") if word == "CONFIG" else word for word in words]
    skip_what_it_refuses(given)
    with QemuMachine([QEMU, *given, *BARE]) as machine:
        assert machine.arena.size == 64 * MIB
        summary = machine.monitor.execute("query-memory-size-summary")
        assert isinstance(summary, dict) and summary["base-memory"] == 64 * MIB


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("-object", "memory-backend-ram,id=ram0,size=64M", *USED), "no memory that can be shared"),
        (("-object", f"{ID[:-2]}off,size=64M", *USED), "it is not shared"),
        (("-object", "memory-backend-file,id=ram0,size=64M,mem-path=MEM", *USED), "not shared"),
    ],
    ids=["ram", "memfd", "file"],
)
def test_a_backend_that_cannot_be_dumped(tmp_path: Path, words: Sequence[str], why: str) -> None:
    given = [word.replace("MEM", str(tmp_path / "ram")) for word in words]
    with pytest.raises(UsageError, match=f"memory backend ram0: .*{why}"):
        QemuMachine([QEMU, "-m", "64M", *given, *BARE])


def test_what_only_qemu_shows_is_refused_when_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line does not say so; no DIMM is read from one either way."""
    monkeypatch.setattr("livedumpfs.machines.qemu.command_line.refused_options", lambda options: ())
    words = ["-m", "64M,slots=1,maxmem=1G", "-object", "memory-backend-ram,id=more,size=128M"]
    monkeypatch.setattr(
        "livedumpfs.machines.qemu.command_line._other_backends", lambda options: {"more"}
    )
    with pytest.raises(UsageError, match="memory was plugged into the guest"):
        QemuMachine([QEMU, *words, "-device", "pc-dimm,memdev=more", *BARE])


# ------------------------------------------------------------------- option by option


def test_every_option_of_this_qemu_is_known() -> None:
    shown = set(re.findall(r"^--?([\w-]+)", run(QEMU, "-help").stdout, re.MULTILINE))
    assert len(shown) > 90
    assert not shown - FLAGS - VALUED
    assert not FLAGS & VALUED


def test_options_that_take_a_value() -> None:
    """As QEMU looks for values before it looks at any of them: each gets one that is no option."""
    left = sorted(VALUED)
    while True:
        words = [word for name in left for word in (f"-{name}", "-livedump-value")]
        said = run(QEMU, *words, "-livedump-end").stderr
        found = re.search(r"-([\w-]+): invalid option", said)
        assert found, said
        if found[1] == "livedump-end":
            break
        left.remove(found[1])  # not one of this QEMU's; a flag here would name its "value"
    assert len(left) > 60


def test_options_that_take_none() -> None:
    asked = {name: takes_value([[QEMU]], f"-{name}") for name in sorted(FLAGS)}
    assert not any(asked.values()), asked


def test_an_option_that_is_not_known_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livedumpfs.machines.qemu.qemu_options.VALUED", frozenset())
    monkeypatch.setattr("livedumpfs.machines.qemu.qemu_options.FLAGS", frozenset())
    options = QemuCommand.parse([QEMU, "-S", "-m", "64M", "-nographic", "-name", "-daemonize"])
    texts = [str(one) for one in options.options]
    assert texts == ["-S", "-m 64M", "-nographic", "-name -daemonize"]


# --------------------------------------------------------------------- in QEMU's words


@pytest.mark.parametrize(
    "words",
    [
        ("-nosuchoption",),
        ("-m", "lots"),
        ("-m", "1G,maxmem=512M,slots=1"),
        ("-m",),
        ("-M", "nosuch"),
        ("-m", "1e2"),
        ("-smp", "3,sockets=2,cores=1,threads=1"),
        ("-device", "nosuch"),
        ("-machine", "memory-backend=gone"),
        ("-object", "memory-backend-memfd,id=ram0,share=on", *USED),
        ("-readconfig", "/nosuch/file"),
        ("-drive", "file=/nosuch/disk"),
    ],
    ids=" ".join,
)
def test_what_is_wrong_is_said_as_qemu_says_it(
    words: Sequence[str], capfd: pytest.CaptureFixture[str]
) -> None:
    ended = run(QEMU, *BARE, *words)
    assert ended.returncode == 1 and ended.stderr
    with pytest.raises(LivedumpError, match="QEMU ended at once with exit status 1") as caught:
        QemuMachine([QEMU, *BARE, *words])
    said = capfd.readouterr().err + str(caught.value)
    for line in ended.stderr.splitlines():
        assert "warning:" in line or line.strip() in said, said


@pytest.mark.parametrize(
    "words",
    [("-version",), ("-help",), ("-machine", "help"), ("-M", "?"), ("-device", "virtio-rng,help")],
    ids=" ".join,
)
def test_what_only_asks_is_answered(words: Sequence[str]) -> None:
    host = [sys.executable, "-m", "livedumpfs.cli", "qemu", "--"]
    expected, found = run(QEMU, *words), run(*host, QEMU, *words)
    assert (found.returncode, found.stdout) == (expected.returncode, expected.stdout)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize(("words", "status"), [(("-version",), 0), (("-device", "odd"), 1)])
def test_how_it_ended_is_known_where_nothing_is_left_of_it(
    monkeypatch: pytest.MonkeyPatch, words: Sequence[str], status: int
) -> None:
    """A look whether it lives may have taken its entry from the process table."""

    def too_late(pid: int) -> int:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        raise ProcessLookupError(errno.ESRCH, "No such process")

    monkeypatch.setattr(os, "pidfd_open", too_late)
    with pytest.raises(EndedAtOnce) as caught:
        QemuMachine([QEMU, *BARE, *words])
    assert caught.value.status == status


# ---------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("limit", "memory", "said"),
    [
        (
            "-f 1024",
            "64M",
            "QEMU ended at once by SIGXFSZ (its memory is a file of 64 MiB, and `ulimit -f` allows "
            "files of 1 MiB at the most)",
        ),
        (
            "-v 3000000",
            "4G",
            "QEMU ended at once with exit status 1 (`ulimit -v` allows it 2.861 GiB of addresses, "
            "its memory included)",
        ),
    ],
    ids=["file size", "addresses"],
)
def test_a_limit_of_the_shell_is_named(limit: str, memory: str, said: str) -> None:
    host = f"exec {sys.executable} -m livedumpfs.cli qemu -- {QEMU} -m {memory} {' '.join(BARE)}"
    done = run("bash", "-c", f"ulimit {limit}; {host}")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"livedump: error: {said}")


@pytest.mark.parametrize(
    ("mode", "content", "said"),
    [
        (None, "", "No such file or directory (is it installed, and in PATH?)"),
        (0o644, "#!/bin/sh\n", "Permission denied (it must be executable for this user)"),
        (0o755, "MZ", "Exec format error (it is a program for another machine, or a script"),
    ],
    ids=["missing", "not executable", "no program"],
)
def test_what_does_not_start(tmp_path: Path, mode: int | None, content: str, said: str) -> None:
    program = tmp_path / QEMU
    if mode is not None:
        program.write_text(content)
        program.chmod(mode)
    with pytest.raises(LivedumpError) as caught:
        QemuMachine([str(program), *BARE])
    assert str(caught.value).startswith(f"cannot start {program}: {said}")
