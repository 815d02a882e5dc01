#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The figures of docs/figures/, from real commands.

    scripts/figures.py [FOLDER]

watch.svg: `livedump watch` in the middle of a dump. dump.svg: a session, whose lines come as they
came. doctor.svg: `livedump doctor`. report-light.png and report-dark.png: the page of `livedump
report`, in Chromium. Runs a host of its own with the built-in guest, and leaves nothing behind but
the figures. `make figures` installs what it needs."""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from headless import chromium, opened  # noqa: E402
from rich._export_format import CONSOLE_SVG_FORMAT  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402

from livedumpfs.cli.main import main as livedump  # noqa: E402
from livedumpfs.cli.watch_figures import History, Sample  # noqa: E402
from livedumpfs.cli.watch_keys import Dialogue  # noqa: E402
from livedumpfs.cli.watch_screen import Look, screen  # noqa: E402
from livedumpfs.client import Client, InitOptions  # noqa: E402

_WIDTH, _HEIGHT = 80, 24
_WRITTEN_FIRST: Final = 150
"""Granules that the guest has written before the sweep."""
_REPORTED: Final = 400
"""The same for the page."""
_LAST_SECTION: Final = "#saving"
"""The figure of the page ends with it."""
_MARGIN: Final = 20
"""Points."""
_COLOURS: Final = 48
"""A third of the bytes, and no difference to be seen."""
_LOOK_S: Final = 0.05
_DEADLINE_S: Final = 120.0
_ALONE: Final = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
"""rich's picture fetches its font from the network."""


_SESSION: Final = (
    "livedump dump --device vm1 vm1.kdump --format kdump",
    "livedump verify vm1.kdump | tail -n 2",
    "gdb -batch -ex bt ledger.elf vm1/snapshot/vmcore 2>&1 | grep '^#'",
)
"""What is typed for dump.svg; the last one while another dump has a snapshot."""
_TYPING_S: Final = 1.0
_LONGEST_S: Final = 3.0
"""A pause of the session is no longer in its picture."""
_APPEARS: Final = "@keyframes appear { from { opacity: 0 } to { opacity: 1 } }"


def svg(what: Any, title: str, name: str, width: int = _WIDTH) -> str:
    """A picture of what rich prints, with the fonts that the reader has."""
    with open(os.devnull, "w") as nowhere:
        console = Console(
            record=True, file=nowhere, width=width, height=_HEIGHT, force_terminal=True,
            color_system="truecolor", no_color=False,
        )  # fmt: skip
        console.print(what, end="")
        text = console.export_svg(title=title, code_format=_ALONE, unique_id=name)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def watch_svg(history: History) -> str:
    """The screen of `watch`."""
    look = Look(_WIDTH, _HEIGHT, coloured=True)
    return svg(screen(history, Dialogue(), look), "livedump watch vm1", "watch")


# ------------------------------------------------------------------------- a session


def tools(folder: str) -> dict[str, str]:
    """An environment with `livedump` on its path."""
    livedump = Path(folder) / "bin" / "livedump"
    livedump.parent.mkdir(exist_ok=True)
    livedump.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m livedumpfs.cli "$@"\n')
    livedump.chmod(0o755)
    path = f"{livedump.parent}:{os.environ['PATH']}"
    return {**environment_of(folder), "PATH": path, "COLUMNS": str(_WIDTH), "LINES": "50"}


def recorded(folder: str) -> list[tuple[float, str]]:
    """Lines of the session, each with the seconds from its begin at which it came."""
    lines, now = [], 0.0
    (Path(folder) / "ledger.elf").write_bytes((TOP / "livedumpfs/guest/ledger.elf").read_bytes())
    for command in _SESSION:
        if "snapshot" in command:
            subprocess.run(
                ["livedump", "start", "-q", "--device", "vm1", "--no-target"], cwd=folder,
                env=tools(folder), check=True, timeout=_DEADLINE_S, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        now += _TYPING_S
        lines.append((now, f"$ {command}"))
        before = time.monotonic()
        with subprocess.Popen(
            ["bash", "-c", command], cwd=folder, env=tools(folder), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            assert process.stdout
            for line in process.stdout:
                now += min(time.monotonic() - before, _LONGEST_S)
                before = time.monotonic()
                if not re.match(r"(dump|verify) +\d+%", line):  # progress, for a pipe
                    lines.append((now, line.rstrip().replace(f"{folder}/", "")))
        if process.returncode:
            raise SystemExit(f"{command}: exit code {process.returncode}")
    return lines


def session_svg(lines: list[tuple[float, str]]) -> str:
    """Its lines come at their times; all are there where nothing moves."""
    width = max(len(line) for _, line in lines)
    text = Text("\n".join(line for _, line in lines))
    text.highlight_regex(r"(?m)^\$ .*$", "bold cyan")
    text.highlight_regex(r"\bconsistent\b", "bold green")
    made = svg(text, "a dump of a machine that runs on", "dump", width)

    def appear(found: re.Match[str]) -> str:
        at = lines[int(found[2])][0]
        return f'{found[1]} style="animation: appear 0.1s {at:.2f}s both"'

    made = re.sub(r'(<text class="[^"]*"[^>]*clip-path="url\(#dump-line-(\d+)\)")', appear, made)
    still = "@media (prefers-reduced-motion: reduce) { text { animation: none !important } }"
    return made.replace("</style>", f"    {_APPEARS}\n    {still}\n    </style>", 1)


def doctor_svg(folder: str) -> str:
    """`livedump doctor`, in its colours."""
    master, slave = pty.openpty()
    command = ["livedump", "doctor"]
    with subprocess.Popen(
        command, cwd=folder, env={**tools(folder), "TERM": "xterm-256color"}, stdout=slave,
        stderr=slave, stdin=slave,
    ):  # fmt: skip
        os.close(slave)
        said = b""
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while part := os.read(master, 65536):
                said += part
    os.close(master)
    plain = re.sub(r"(Linux \d+\.\d+\.\d+)[\w.+-]*", r"\1", said.decode())  # no build of ours
    text = Text.from_ansi(plain.replace("\r\n", "\n").strip())
    shown = Text.assemble(("$ " + shlex.join(command) + "\n", "bold cyan"), text)
    return svg(shown, "livedump doctor", "doctor", max(map(len, shown.plain.splitlines())))


# ---------------------------------------------------------------------------- a host


def environment_of(folder: str) -> dict[str, str]:
    """For hosts and clients that are not seen from outside."""
    kept = {name: text for name, text in os.environ.items() if name != "NO_COLOR"}
    own = {"XDG_RUNTIME_DIR": folder, "LIVEDUMPFS_STATE": folder, "PYTHONPATH": str(TOP)}
    return {**kept, **own}


@contextlib.contextmanager
def host(folder: str) -> Iterator[str]:
    """A host with the built-in guest; its mount."""
    mount = Path(folder) / "vm1"
    mount.mkdir()
    command = [
        sys.executable, "-m", "livedumpfs.cli", "host", "--mount", str(mount), "--ram", "256M",
        "--vcpus", "2", "--idle",
    ]  # fmt: skip
    with subprocess.Popen(
        command,
        cwd=TOP,
        env=environment_of(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            end = time.monotonic() + _DEADLINE_S
            while not (mount / "livedump").exists():
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit("the host does not start")
                time.sleep(_LOOK_S)
            yield str(mount)
        finally:
            process.terminate()


def watched(mount: str, folder: str) -> History:
    """A dump that has come half way."""
    history = History()
    with Client(mount) as client:
        options = InitOptions(sweep_rate=32 << 20, granule=16 << 10, release_on_close=True)
        client.init(str(Path(folder) / "vm1.elf"), options)
        client.start()
        while client.status().counters["by_fault"] < _WRITTEN_FIRST:
            time.sleep(_LOOK_S)
        client.sweep()
        for status in client.progress(timeout=_DEADLINE_S):
            history.add(Sample(time.monotonic(), client.stats(), client.pages()))
            if status.bytes_done > status.bytes_total * 0.5:
                break
        client.release()
    for sample in history.samples:  # of this machine
        sample.stats["target"] = "/backup/vm1.elf"
    return history


def report(mount: str, folder: str) -> Path:
    """The page of a dump, beside one that was taken before it."""
    top = Path(folder)
    with Client(mount) as client:
        for name, written in (("yesterday.elf", 0), ("vm1.elf", _REPORTED)):
            client.init(str(top / name), InitOptions(sweep_rate=64 << 20, release_on_close=True))
            client.start()
            end = time.monotonic() + _DEADLINE_S
            while client.status().counters["by_fault"] < written and time.monotonic() < end:
                time.sleep(_LOOK_S)
            client.sweep()
            client.finish(_DEADLINE_S)
            client.release()
    here = Path.cwd()
    os.chdir(folder)  # the page says the path as it was typed
    try:
        words = ["-q", "report", "vm1.elf", "--against", "yesterday.elf", "-o", "vm1.html"]
        if livedump(words):
            raise SystemExit("there is no page")
    finally:
        os.chdir(here)
    return top / "vm1.html"


def draw(page: Path, into: Path) -> None:
    """Its first screens, light and dark."""
    with chromium() as browser:
        for scheme in ("light", "dark"):
            with opened(browser, page, scheme) as shown:
                section = shown.locator(_LAST_SECTION).bounding_box()
                height = section["y"] + section["height"] + _MARGIN
                clip = {"x": 0, "y": 0, "width": shown.viewport_size["width"], "height": height}
                picture = into / f"report-{scheme}.png"
                shown.screenshot(path=picture, full_page=True, clip=clip)
                words = ["pngquant", "--strip", "--speed", "1", "--force", "--output"]
                words += [str(picture), str(_COLOURS), str(picture)]
                subprocess.run(words, check=True, timeout=_DEADLINE_S)


def main() -> int:
    """Draw."""
    parser = argparse.ArgumentParser(description="Draw the figures of docs/.")
    parser.add_argument("folder", nargs="?", type=Path, default=TOP / "docs" / "figures")
    into = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as folder, host(folder) as mount:
        into.mkdir(parents=True, exist_ok=True)
        draw(report(mount, folder), into)
        (Path(folder) / "vm1.elf").unlink()
        history = watched(mount, folder)
        made = {"dump": session_svg(recorded(folder)), "doctor": doctor_svg(folder)}
    made["watch"] = watch_svg(history)
    for name, text in made.items():
        (into / f"{name}.svg").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
