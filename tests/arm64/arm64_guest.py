# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest of guest/arm64/: made once, and commands that run in it, on an emulated processor."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.fixtures.locks import locked

TOP = Path(__file__).resolve().parents[2]
GUEST = TOP / "guest" / "arm64"
SYSROOT = GUEST / "build" / "sysroot" / "root"
COMPILER = "aarch64-linux-gnu-gcc"
PROGRAMS = ("qemu-system-aarch64", COMPILER, "cpio", "make", "apt-get")
FETCH_S = 3600
"""Long enough to build a kernel."""
LONG = bool(os.environ.get("LIVEDUMP_ARM64"))
"""make test-arm64"""
ROOT = GUEST / "build" / "root.cpio"
PYTHON = GUEST / "build" / "python" / "root"
"""To build against."""
PYTHON_ROOT = GUEST / "build" / "python.cpio"
QUICK_BOOT = "nokaslr mitigations=off cryptomgr.notests"
"""It takes half the time, and nothing that the programs meet."""

Pages = Literal["4k", "16k", "64k"]


@dataclass(frozen=True)
class Answer:
    code: int
    printed: str


def fetch(*targets: str) -> None:
    """What guest/arm64/Makefile makes."""
    (GUEST / "build").mkdir(exist_ok=True)
    python = f"PYTHON={sys.executable}"  # whose pip fetches
    with locked(GUEST / "build" / "lock"):
        done = subprocess.run(
            ["make", "--no-print-directory", "-C", str(GUEST), python, *targets],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            timeout=FETCH_S,
        )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n(apt-get must be able to download)"


def _pack(folder: Path, image: Path, *under: Path) -> None:
    """The initramfs: images made before, and behind them all of a folder. The kernel unpacks one
    after the other."""
    names = "\n".join(
        str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path != image
    )
    with image.open("wb") as file:
        for one in under:
            file.write(one.read_bytes())
        file.flush()
        subprocess.run(
            ["cpio", "--quiet", "-o", "-L", "-H", "newc", "-R", "0:0"], input=names.encode(),
            stdout=file, cwd=folder, check=True, timeout=60,
        )  # fmt: skip


def _command(pages: Pages, image: Path, memory: str) -> list[str]:
    """`max` has pages of each size, and the atomic instructions of Armv8.1."""
    return [
        "qemu-system-aarch64", "-accel", "tcg,thread=multi", "-M", "virt", "-cpu",
        "max,pauth-impdef=on", "-smp", "2", "-m", memory, "-nodefaults", "-display", "none",
        "-no-reboot", "-serial", "stdio", "-initrd", str(image),
        "-kernel", str(GUEST / "build" / f"kernel-{pages}" / "vmlinuz"),
        "-append", f"console=ttyAMA0 quiet panic=-1 {QUICK_BOOT}",
    ]  # fmt: skip


def _answers(console: str) -> list[Answer]:
    """Of the commands that ended."""
    found = re.findall(
        r"^@@ begin (\d+)\n(.*?)^@@ end \1 (\d+)$", console, re.MULTILINE | re.DOTALL
    )
    return [Answer(int(code), printed.rstrip("\n")) for _, printed, code in found]


def run_in_guest(
    commands: Sequence[str],
    programs: Iterable[Path],
    place: Path,
    *,
    pages: Pages = "4k",
    memory: str = "1G",
    root: Path = ROOT,
    images: Sequence[Path] = (),
    deadline_s: float,
) -> list[Answer]:
    """Boot it with `programs` in /programs, and run the commands one after the other, each a line
    of shell. What lies in `place` is there, too, and what is in `images`. A guest that hangs or
    dies fails with what it printed."""
    (place / "programs").mkdir()
    for program in programs:
        (place / "programs" / program.name).symlink_to(program)
    (place / "commands").write_text("".join(f"{command}\n" for command in commands))
    image = place / "initramfs.cpio"
    _pack(place, image, root, *images)
    printed = place / "console"  # a file: a run of minutes can be followed
    try:
        with printed.open("wb") as console:
            subprocess.run(
                _command(pages, image, memory), stdin=subprocess.DEVNULL, stdout=console,
                stderr=subprocess.STDOUT, check=False, timeout=deadline_s, env=os.environ,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise AssertionError(f"the guest hangs; it printed\n{_text(printed)}") from None
    finally:
        image.unlink()
    text = _text(printed)
    answers = _answers(text)
    assert len(answers) == len(commands) and "\n@@ over\n" in text, text
    return answers


def _text(console: Path) -> str:
    return console.read_bytes().decode(errors="replace").replace("\r\n", "\n")
