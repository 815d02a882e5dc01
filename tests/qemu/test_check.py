# SPDX-License-Identifier: GPL-2.0-or-later
"""`livedump qemu --check` and `livedump attach --check`: what they say, and that they touch
nothing."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.errors import UsageError
from livedumpfs.machines.qemu import QemuCommand, asking
from livedumpfs.machines.qemu.beforehand import look_beforehand
from livedumpfs.machines.qemu.preloading import why_not_preloaded
from tests.fixtures.shells import LIVEDUMP
from tests.qemu.running_guests import firmware_words, running

QEMU = "qemu-system-x86_64"
LABELS = ["QEMU", "guest", "way", "stop", "memory here", "left open", "verdict"]
"""Of both commands, in this order."""
BACKEND = "memory-backend-memfd,id=mine,size=64M"
NAMED = ("-machine", "memory-backend=mine")


def labels(text: str) -> list[str]:
    return [line.split("  ")[0] for line in text.splitlines()]


def refused(text: str) -> list[str]:
    return [
        line.removeprefix("refused").strip()
        for line in text.splitlines()
        if line.startswith("refused ")
    ]


def test_both_have_one_layout_and_say_that_it_works(
    firmware: Path, shell: Any, tmp_path: Path
) -> None:
    under, _ = shell.run("qemu", "--check", "--", QEMU, *firmware_words(firmware))
    assert "32 MiB of RAM in a memory backend that is made for it" in under
    assert "QEMU         7" in under or "QEMU         1" in under
    with running(tmp_path, firmware_words(firmware)) as guest:
        attach, _ = shell.run("attach", "--check", guest.socket)
        assert guest.migration() == "none"
        said, _ = shell.run("attach", "--check", "--json", guest.socket)
    for text in (under, attach):
        assert [one for one in labels(text) if one in LABELS] == LABELS
        assert text.splitlines()[-1].endswith("  a dump can be taken")
    found = json.loads(said)
    assert (found["possible"], found["refused"]) == (True, []) and "32 MiB of RAM" in found["guest"]


def test_nothing_is_touched(shell: Any, tmp_path: Path) -> None:
    """No disk is opened, no socket, file or directory made, no wrapper run; the log is of a QEMU
    that is asked."""
    temporary, runtime = tmp_path / "tmp", tmp_path / "run"
    for folder in (temporary, runtime):
        folder.mkdir()
    shell.env |= {"TMPDIR": str(temporary), "XDG_RUNTIME_DIR": str(runtime)}
    disk, made = tmp_path / "disk", tmp_path / "made"
    disk.write_bytes(bytes(4096))
    os.utime(disk, ns=(1, 1))
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\ntouch {made}\nexec {QEMU} "$@"\n')
    wrapper.chmod(0o755)
    words = [
        "-m", "64M", "-drive", f"file={disk},if=virtio,format=raw",
        "-qmp", f"unix:{made},server=on",
        "-pidfile", str(made), "-serial", f"file:{made}", "-D", str(made),
        "-object", f"memory-backend-file,id=other,size=4M,share=on,mem-path={made}",
        "-device", "ivshmem-plain,memdev=other",
    ]  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    for program in (QEMU, str(wrapper)):
        out, _ = shell.run("qemu", "--check", "--", program, *words)
        assert "64 MiB of RAM" in out
    assert f"{wrapper} must pass arguments" in out
    assert sorted(tmp_path.rglob("*")) == before and not made.exists()
    assert (disk.stat().st_atime_ns, disk.stat().st_mtime_ns) == (1, 1)


def test_every_reason_is_listed(shell: Any) -> None:
    words = [
        "-daemonize", "-device", "vfio-pci,host=01:00.0", "-netdev", "tap,id=n,vhost=on",
        "-netdev", "passt,id=p,vhost-user=on", "-object", BACKEND, "-m", "64M",
    ]  # fmt: skip
    text, _ = shell.run("qemu", "--check", "--backend", "sigsegv", "--", QEMU, *words, code=1)
    found = refused(text)
    named = ("-daemonize", "vfio-pci", "vhost=on", "passt,vhost-user=on", "backend mine", "sigsegv")
    assert len(found) == len(named)
    assert all(
        word in one for word, one in zip(named, sorted(found, key=order(named)), strict=True)
    )
    assert "no dump can be taken: 6 reasons" in text
    assert "none: neither under livedump nor by `livedump attach`" in text
    # The first of them is what `qemu` without --check says.
    with pytest.raises(UsageError) as caught:
        QemuCommand.parse([QEMU, *words])
    assert str(caught.value) in found[0]


def order(named: Sequence[str]) -> Callable[[str], int]:
    return lambda one: next(at for at, word in enumerate(named) if word in one)


@pytest.mark.parametrize(
    ("words", "why", "attachable"),
    [
        (("-object", f"{BACKEND},share=off", *NAMED), "it is not shared", True),
        (("-mem-path", "/dev/shm", "-m", "64M"), "its memory is not shared", True),
        (("-m", "64M", "-netdev", "tap,id=n,vhost=on"), "(vhost)", True),
        (("-m", "64M", "-netdev", "vhost-vdpa,id=n"), "a device of the host", False),
        (("-m", "nonsense"), "QEMU ended at once with exit status 1", False),
        (("-M", "none"), "no memory that livedump could make", False),
        (("-help",), "only print text", False),
    ],
    ids=lambda one: one[-1] if isinstance(one, tuple) else None,
)
def test_the_way_that_is_left(words: Sequence[str], why: str, attachable: bool) -> None:
    found = look_beforehand([QEMU, *words])
    (error,) = found.refused
    assert why in str(error) and found.attachable == attachable


def test_your_own_backend() -> None:
    found = look_beforehand([QEMU, "-object", f"{BACKEND}", *NAMED, "-accel", "kvm", "-S"])
    assert (found.refused, found.size, found.accelerator) == ([], "64M", "kvm")
    assert found.command.stopped and found.version


@pytest.mark.parametrize(
    ("program", "why"),
    [("no-such-qemu", "cannot start no-such-qemu"), ("/etc/passwd", "cannot start /etc/passwd")],
)
def test_no_qemu(program: str, why: str) -> None:
    found = look_beforehand([program, "-m", "64M"])
    assert why in str(found.refused[0]) and not found.attachable


def test_another_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file's name says which processor it has, and its own words how old it is."""
    for name in ("qemu-system-i386", "qemu-system-x86_64"):
        (tmp_path / name).write_bytes(Path("/usr/bin/env").read_bytes() + b"QEMU emulator version")
        (tmp_path / name).chmod(0o755)
    (error,) = look_beforehand([str(tmp_path / "qemu-system-i386"), "-version"]).refused[1:2]
    assert "one of i386, only aarch64, riscv64 and x86_64 are known here" in str(error)
    assert "qemu-system-x86_64 runs guests of 32 bits" in str(error)
    said = "QEMU emulator version 6.2.0\n"
    monkeypatch.setattr(asking, "_run", lambda words: type("Done", (), {"stdout": said}))
    old = look_beforehand([str(tmp_path / "qemu-system-x86_64"), "-help"])
    assert "QEMU 6.2.0 does not say what memory" in str(old.refused[1])


def test_programs_that_get_nothing_preloaded(tmp_path: Path, firmware: Path) -> None:
    made = tmp_path / "program"
    made.write_bytes(Path("/usr/bin/env").read_bytes())
    assert why_not_preloaded(str(made)) == ""
    for mode, why in ((0o4755, "it is set-user-ID"), (0o2755, "it is set-group-ID")):
        os.chown(made, os.geteuid() + 1, os.getegid() + 1)
        made.chmod(mode)
        assert why_not_preloaded(str(made)) == why
    # An ELF file without an interpreter: our own core.
    core = next(Path(asking.__file__).parents[2].glob("_shim*.so"))
    assert why_not_preloaded(str(core)) == "it is statically linked"
    assert why_not_preloaded(str(firmware)) == "" == why_not_preloaded(str(tmp_path / "none"))


@pytest.mark.skipif(os.geteuid() != 0, reason="takes rights away from root")
def test_without_the_right_to_userfaultfd(shell: Any, tmp_path: Path) -> None:
    """Nor the one to mount."""
    closed = tmp_path / "closed"
    closed.touch(0)
    rights = "-sys_ptrace,-sys_admin,-dac_override,-dac_read_search"
    command = [
        "unshare", "--mount", "sh", "-c",
        f"mount --bind {closed} /dev/userfaultfd && exec setpriv --bounding-set={rights} "
        f"--inh-caps={rights} {LIVEDUMP} qemu --check -- {QEMU} -m 64M",
    ]  # fmt: skip
    done = subprocess.run(
        command, env=shell.env, capture_output=True, text=True, timeout=300, check=False
    )
    if Path("/proc/sys/vm/unprivileged_userfaultfd").read_text().strip() != "0":
        pytest.skip("every user may use userfaultfd here")
    assert done.returncode == 1, done
    found = refused(done.stdout)
    assert "userfaultfd does not work here: Permission denied" in found[0]
    assert "root without CAP_SYS_ADMIN" in found[1] and len(found) == 2


def test_attach_lists_every_obstacle(firmware: Path, shell: Any, tmp_path: Path) -> None:
    with running(tmp_path, firmware_words(firmware)) as guest:
        for name in ("xbzrle", "postcopy-ram"):
            on = [{"capability": name, "state": True}]
            guest.other.execute("migrate-set-capabilities", {"capabilities": on})
        text, _ = shell.run("attach", "--check", guest.socket, code=1)
        assert "no dump can be taken: 2 reasons" in text
        assert all(name in " ".join(refused(text)) for name in ("xbzrle", "postcopy-ram"))


def test_json_is_of_a_check(shell: Any) -> None:
    assert "--json goes with --check" in shell.fails("qemu", "--json", "--", QEMU, code=2)
    assert "--json goes with --check" in shell.fails("attach", "--json", "/no/where", code=2)
