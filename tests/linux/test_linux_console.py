# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux that is used: its console by the command and the mount, its dumps, reboot, poweroff."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from livedumpfs.client import Client
from livedumpfs.dumpfile import open_dump
from livedumpfs.linux import Kernel
from tests.fixtures import forks
from tests.fixtures.html_pages import Element, parse
from tests.fixtures.mounted_dumps import Mounted
from tests.integration.test_json_facts import expect
from tests.linux.conftest import BOOT_S

TOP = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.together  # they share a host
LIVEDUMP = [sys.executable, "-P", "-m", "livedumpfs.cli"]


class LinuxHost:
    """`livedump host --linux` at `mount`."""

    def __init__(self, folder: Path) -> None:
        self.mount = folder / "mount"
        self.mount.mkdir()
        self.console = self.mount / "machine" / "console"
        self.process = forks.start(
            [*LIVEDUMP, "host", "--linux", "--ram", "128M", "--append", "quiet load=tasks",
             "--mount", self.mount],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=TOP,
        )  # fmt: skip

    def wait_for(self, pattern: str, times: int = 1) -> str:
        end = time.monotonic() + BOOT_S
        while True:
            said = ""
            if self.console.exists():
                said = self.console.read_text(errors="replace")
            if len(re.findall(pattern, said, re.MULTILINE)) >= times:
                return said
            assert self.process.poll() is None, said[-3000:]
            assert time.monotonic() < end, said[-3000:]
            time.sleep(0.1)

    def type(self, text: str) -> None:
        descriptor = os.open(self.console, os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=BOOT_S)


@pytest.fixture(scope="module")
def host(linux_files: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LinuxHost]:
    del linux_files
    found = LinuxHost(tmp_path_factory.mktemp("host"))
    try:
        found.wait_for(r"^guest: up")
        yield found
    finally:
        found.close()


def test_what_is_typed_is_done(host: LinuxHost) -> None:
    host.type("echo typed: $((6 * 7))\n")
    host.wait_for(r"^typed: 42")


def test_the_command_shows_and_types(host: LinuxHost) -> None:
    console = forks.start(
        [*LIVEDUMP, "console", "--device", host.mount],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=TOP,
    )  # fmt: skip
    assert console.stdin and console.stdout
    try:
        console.stdin.write(b"echo shown: $((6 * 9))\n")
        console.stdin.flush()
        seen = b""
        while b"shown: 54" not in seen:
            part = os.read(console.stdout.fileno(), 4096)
            assert part, seen
            seen += part
        assert seen.count(b"guest: up") == 1
        console.stdin.write(b"\x1d")  # Control-]
        console.stdin.flush()
        assert console.wait(BOOT_S) == 0
    finally:
        console.kill()
        console.communicate()


def test_a_text_that_is_too_long_is_not_typed_in_part(host: LinuxHost) -> None:
    host.type("sleep 3; echo slept\n")
    with pytest.raises(OSError, match=r"Resource temporarily unavailable"):
        for _ in range(100):
            host.type("# nothing\n" * 400)
    host.wait_for(r"^slept")


def test_its_dump_has_registers_tasks_and_log(host: LinuxHost, tmp_path: Path) -> None:
    host.type("echo '<1>a line of the log' > /dev/kmsg; echo logged\n")
    host.wait_for(r"^logged")
    target = tmp_path / "dump"
    forks.run(
        [*LIVEDUMP, "dump", "--device", host.mount, target], check=True, timeout=BOOT_S, cwd=TOP
    )
    notes = subprocess.run(
        ["readelf", "-h", "-n", target], capture_output=True, text=True, check=True, timeout=300
    ).stdout
    assert re.search(r"Machine:\s+RISC-V", notes)
    assert re.search(r"CORE\s+0x00000178\s+NT_PRSTATUS", notes) and "VMCOREINFO" in notes
    said = forks.run(
        [*LIVEDUMP, "linux", target], capture_output=True, text=True, check=True, timeout=BOOT_S,
        cwd=TOP,
    ).stdout  # fmt: skip
    assert re.search(r"^ +1 +0  S  init$", said, re.MULTILINE), said
    assert len(re.findall(r"sleeper-\d", said)) == 5
    assert re.search(r"^\[ *\d+\.\d{6}\] a line of the log$", said, re.MULTILINE), said
    found = json.loads(
        subprocess.run(
            [*LIVEDUMP, "linux", "--json", "--kernel-threads", "--log", "5", target],
            capture_output=True, check=True, timeout=BOOT_S, cwd=TOP,
        ).stdout
    )  # fmt: skip
    tasks = {task["pid"]: task for task in found["tasks"]}
    assert len(found["tasks"]) == found["task_count"] > found["kernel_thread_count"] > 0
    assert (tasks[1]["name"], tasks[1]["parent"], tasks[1]["user_memory"]) == ("init", 0, True)
    assert [name for name in said.split() if name.startswith("sleeper-")] == [
        task["name"] for task in found["tasks"] if task["name"].startswith("sleeper-")
    ]
    assert len(found["log"]) == 5
    (line,) = (one for one in found["log"] if one["text"] == "a line of the log")
    assert line["time_ns"] > 0 and f"Linux {found['release']}\n" in said
    expect(found, "linux", "linux")


def test_its_memory_can_be_read_by_the_kernels_addresses(host: LinuxHost, tmp_path: Path) -> None:
    """In kcore: of the snapshot that lives, and of a dump of it, by the same addresses."""
    target, client = tmp_path / "dump", Client(str(host.mount))
    client.init(str(target))
    try:
        client.start()
        living = names_in(host.mount / "snapshot" / "kcore")
        client.sweep()
        client.finish(BOOT_S)
    finally:
        client.release()
    with open_dump(target) as dump:
        release = Kernel(dump.meta, dump.read_physical).description.release
    with Mounted(str(target), tmp_path / "mounted") as mounted:
        assert names_in(mounted.root / "kcore") == living
    assert living.startswith(b"Linux\0") and release.encode() in living and b"riscv64\0" in living


def names_in(kcore: Path) -> bytes:
    """What uname(2) says, from a kcore by its virtual address."""
    with kcore.open("rb") as file:
        elf = ELFFile(file)
        segments = list(elf.iter_segments())
        notes = next(one for one in segments if one.header.p_type == "PT_NOTE")
        said = next(note for note in notes.iter_notes() if note["n_name"] == "VMCOREINFO")
        text = said["n_descdata"].decode()
        (found,) = re.findall(r"^SYMBOL\(init_uts_ns\)=(\w+)$", text, re.MULTILINE)
        address = int(found, 16)
        for one in segments:
            head = one.header
            inside = address - head.p_vaddr
            if head.p_type == "PT_LOAD" and 0 <= inside < head.p_filesz:
                file.seek(head.p_offset + inside)
                return file.read(400)
    raise AssertionError(f"{kcore} has nothing at {address:#x}")


def page_of(tmp_path: Path, *words: object) -> Element:
    """The page of `livedump report` with these words."""
    out = tmp_path / "page.html"
    out.unlink(missing_ok=True)
    subprocess.run(
        [*LIVEDUMP, "report", *words, "-o", out], check=True, timeout=BOOT_S, cwd=TOP
    )  # fmt: skip
    return parse(out.read_text())


def test_its_page_has_its_tasks(host: LinuxHost, tmp_path: Path) -> None:
    """Of the running host, and of its dump: those that `livedump linux` prints."""
    target = tmp_path / "dump"
    with Client(str(host.mount)) as client:
        client.init(str(target))
        client.start()
        living = page_of(tmp_path, "--device", host.mount)
        client.sweep()
        client.finish(BOOT_S)
        client.release()
    finished = page_of(tmp_path, target)
    said = subprocess.run(
        [*LIVEDUMP, "linux", "--kernel-threads", "--log", "0", target], capture_output=True,
        text=True, check=True, timeout=BOOT_S, cwd=TOP,
    ).stdout  # fmt: skip
    listed = [line.split(None, 3) for line in said.splitlines()[3:]]
    for page in (living, finished):
        assert page.rows(f"{len(listed)} tasks") == listed
        assert "read by its kernel's own tables" in page.one("section", id="tasks").text
    assert sum("sleeper-" in row[3] for row in listed) == 5


def test_it_boots_again(host: LinuxHost) -> None:
    host.type("reboot -f\n")
    host.wait_for(r"^guest: up", times=2)
    host.type("echo again: $((6 * 8))\n")
    host.wait_for(r"^again: 48")


def test_its_end_is_the_hosts_end(host: LinuxHost) -> None:
    host.type("poweroff -f\n")
    out, _ = host.process.communicate(timeout=BOOT_S)
    assert host.process.returncode == 0, out
