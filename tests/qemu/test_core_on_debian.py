# SPDX-License-Identifier: GPL-2.0-or-later
"""The core on Debian 12's own kernel, whatever kernel runs here: a program of its tests, in a
guest."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from native.build_native import CORE
from tests.fixtures.program_files import program_file
from tests.qemu.lengths import LONG

TOP = Path(__file__).resolve().parents[2]
BUILD = TOP / "guest" / "linux" / "build"
NATIVE = TOP / "native"
PROGRAMS = ("kernel_writes",)
LIBRARIES = ("-lz", "-lzstd", "-llzo2", "-lsnappy", "-pthread")
DEADLINE_S = 300.0
EXPECTED = [
    "kernel_writes 1 0: read same",
    "kernel_writes 1 1: read same",
    "done",
]

pytestmark = pytest.mark.timeout(600)


def shared_objects(program: Path) -> list[Path]:
    """What it needs to be loaded, its loader too."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=True, timeout=300)
    words = (word for word in done.stdout.split() if word.startswith("/"))
    return [Path(word) for word in words]


def make_root(root: Path) -> None:
    """busybox, the programs, and what these are linked with."""
    (root / "bin").mkdir(parents=True)
    core = [str(TOP / name) for name in CORE]
    for name in PROGRAMS:
        source, made = TOP / "tests" / "native" / f"{name}.c", root / "bin" / name
        subprocess.run(
            ["gcc", "-std=gnu11", "-O1", f"-I{NATIVE}", source, *core, "-o", made, *LIBRARIES],
            check=True, timeout=DEADLINE_S,
        )  # fmt: skip
        for library in shared_objects(made):
            copy = root / library.relative_to("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(library.read_bytes())
            copy.chmod(0o755)
    busybox = root / "bin" / "busybox"
    busybox.write_bytes((BUILD / "root" / "bin" / "busybox").read_bytes())
    shutil.copy(program_file(__file__, "core_on_debian.sh"), root / "init")
    for path in (busybox, root / "init"):
        path.chmod(0o755)


@pytest.mark.skipif(not LONG, reason="`make test-qemu`; this kernel's userfaultfd: all of qemu/")
def test_userfaultfd_of_linux_6_1(guest_files: None, tmp_path: Path) -> None:
    """Stores of the kernel and holes, all protected by what that kernel offers."""
    del guest_files
    root, console, packed = tmp_path / "root", tmp_path / "console", tmp_path / "initramfs.gz"
    make_root(root)
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    archive = subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"],
        input="\n".join(names).encode(), cwd=root, capture_output=True, check=True, timeout=300,
    ).stdout  # fmt: skip
    packed.write_bytes(gzip.compress(archive, 1))
    command = [
        "qemu-system-x86_64", "-accel", "tcg", "-m", "512M", "-smp", "2", "-display", "none",
        "-no-reboot", "-nodefaults", "-serial", f"file:{console}", "-kernel", f"{BUILD}/vmlinuz",
        "-initrd", str(packed), "-append", "console=ttyS0 quiet",
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL)
    lines = [line.strip() for line in console.read_text(errors="replace").splitlines()]
    first = next(i for i, line in enumerate(lines) if line.startswith("release "))
    print(lines[first])
    assert lines[first].startswith("release 6.1.")
    assert lines[first + 1 : first + 1 + len(EXPECTED)] == EXPECTED, lines
