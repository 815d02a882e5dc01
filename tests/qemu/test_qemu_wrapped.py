# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that something else starts: a script, env, taskset; and one that gets no shim of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from livedumpfs.dump import LiveDump
from livedumpfs.dumpfile import open_dump, verify_dump
from livedumpfs.errors import MachineError
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.proc import proc_text

QEMU = "qemu-system-x86_64"
WORDS = ["-accel", "tcg", "-display", "none", "-nodefaults", "-m", "64M"]
DEADLINE_S = 300.0


def script(folder: Path, text: str, name: str = "wrapper") -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def comm(pid: int) -> str:
    return proc_text(f"/proc/{pid}/comm")


def dumped(argv: Sequence[str], target: Path) -> int:
    """Dumps, and ends. Process id of QEMU, after its end."""
    with QemuMachine(argv) as machine:
        machine.start()
        assert comm(machine.pid).startswith("qemu-system")
        assert LiveDump(machine).save(target) == "consistent"
        assert machine.monitor.status() == "running"
        pid = machine.pid
    with open_dump(target) as dump:
        assert verify_dump(dump).ok
    assert not Path(f"/proc/{pid}").exists()
    return pid


@pytest.mark.parametrize(
    "prefix",
    [
        ("env", "LIVEDUMP_TEST=1"),
        ("taskset", "-c", "0"),
        ("setpriv", "--no-new-privs"),
        ("env", "A=1", "nice", "-n", "1", "setsid", "--wait"),
    ],
    ids=lambda words: words[0],
)
def test_started_through_a_program(tmp_path: Path, prefix: Sequence[str]) -> None:
    dumped([*prefix, QEMU, *WORDS], tmp_path / "dump")


@pytest.mark.parametrize("name", ["wrapper", QEMU], ids=["named so", "named as qemu"])
@pytest.mark.parametrize("call", ["exec", ""], ids=["exec", "no exec"])
def test_started_by_a_script(
    tmp_path: Path, call: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks another QEMU first what it can do, as scripts do."""
    at = next(p for p in os.environ["PATH"].split(":") if Path(p, QEMU).exists())
    text = f'{at}/{QEMU} --version >/dev/null || exit 9\n{call} {at}/{QEMU} "$@"'
    monkeypatch.setenv("LC_ALL", "C")
    dumped([script(tmp_path, text, name), *WORDS], tmp_path / "dump")


@pytest.mark.parametrize("prefix", [[], ["env"]], ids=str)
def test_started_by_a_program_that_is_called_as_qemu(tmp_path: Path, prefix: Sequence[str]) -> None:
    """NixOS's wrappers are no scripts."""
    source, wrapper = tmp_path / "wrapper.c", tmp_path / QEMU
    source.write_text(
        "#include <unistd.h>\n"
        f'int main(int count, char **words) {{ return execv("{shutil.which(QEMU)}", words); }}\n'
    )
    subprocess.run(["cc", "-o", wrapper, source], check=True, timeout=DEADLINE_S)
    dumped([*prefix, str(wrapper), *WORDS], tmp_path / "dump")


def test_started_by_a_shell_that_env_starts(tmp_path: Path) -> None:
    """No word of the command line says where QEMU is."""
    wrapper = script(tmp_path, f'exec {QEMU} "$@"')
    dumped(["env", "A=1", "sh", wrapper, *WORDS], tmp_path / "dump")


def test_a_qemu_with_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = next(Path("/usr/lib").glob("**/qemu/accel-tcg-x86_64.so"), None)
    if modules:
        monkeypatch.setenv("QEMU_MODULE_DIR", str(modules.parent))
    emulator = tmp_path / "emulator"
    found = shutil.which(QEMU)
    assert found
    shutil.copy(found, emulator)
    folders = ["-L", "/usr/share/seabios", "-L", "/usr/share/qemu"]
    with QemuMachine([str(emulator), *WORDS, *folders]) as machine:
        machine.start()
        assert LiveDump(machine).save(tmp_path / "dump") == "consistent"


def test_the_status_of_a_script_is_that_of_the_machine(tmp_path: Path) -> None:
    machine = QemuMachine([script(tmp_path, f'{QEMU} "$@"; exit 7'), *WORDS])
    machine.start()
    assert comm(machine._process._child.pid).startswith(("wrapper", "sh"))
    machine.close()
    assert machine.exit_status == 7


@pytest.mark.parametrize(
    "text",
    [
        f'unset LD_PRELOAD; exec {QEMU} "$@"',
        f'unset LD_PRELOAD; {QEMU} "$@"',
        f'exec env -i "PATH=$PATH" {QEMU} "$@"',
    ],
    ids=["exec", "no exec", "env -i"],
)
def test_without_the_shim(tmp_path: Path, text: str) -> None:
    """Told as soon as QEMU listens, and that QEMU does not stay."""
    wrapper = script(tmp_path, text)
    with pytest.raises(MachineError, match="did not load our shim") as caught:
        QemuMachine([wrapper, "-name", str(tmp_path), *WORDS])
    assert "LD_PRELOAD" in caught.value.hint
    end = time.monotonic() + DEADLINE_S
    while left := [p for p in Path("/proc").glob("[0-9]*/cmdline") if has(p, str(tmp_path))]:
        assert time.monotonic() < end, left
        time.sleep(0.05)


def has(cmdline: Path, word: str) -> bool:
    """A process with such an argument; no zombie has any."""
    try:
        return os.fsencode(word) in cmdline.read_bytes().split(b"\0")
    except OSError:
        return False


def test_a_process_that_ends_before_any_qemu(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="ended at once with exit status 3, without our shim"):
        QemuMachine([script(tmp_path, "exit 3"), *WORDS])
