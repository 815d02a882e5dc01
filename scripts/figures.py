#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/figures/watch.svg: the picture of `livedump watch` in the middle of a real dump.

    scripts/figures.py [FOLDER]

Runs a host of its own with the built-in guest, and leaves nothing behind but the figure."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from rich._export_format import CONSOLE_SVG_FORMAT  # noqa: E402
from rich.console import Console  # noqa: E402

from livedumpfs.cli.watch_figures import History, Sample  # noqa: E402
from livedumpfs.cli.watch_keys import Dialogue  # noqa: E402
from livedumpfs.cli.watch_screen import Look, screen  # noqa: E402
from livedumpfs.client import Client, InitOptions  # noqa: E402

_WIDTH, _HEIGHT = 80, 24
_WRITTEN_FIRST: Final = 150
"""Granules that the guest has written before the sweep."""
_LOOK_S: Final = 0.05
_DEADLINE_S: Final = 120.0
_ALONE: Final = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
"""rich's picture fetches its font from the network."""


def svg(history: History, title: str) -> str:
    """The screen as a picture, with the fonts that the reader has."""
    with open(os.devnull, "w") as nowhere:
        console = Console(
            record=True, file=nowhere, width=_WIDTH, height=_HEIGHT, force_terminal=True,
            color_system="truecolor", no_color=False,
        )  # fmt: skip
        look = Look(_WIDTH, _HEIGHT, coloured=True)
        console.print(screen(history, Dialogue(), look), end="")
        text = console.export_svg(title=title, code_format=_ALONE, unique_id="watch")
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@contextlib.contextmanager
def host(folder: str) -> Iterator[str]:
    """A host with the built-in guest; its mount."""
    mount = Path(folder) / "vm1"
    mount.mkdir()
    command = [
        sys.executable, "-m", "livedumpfs.cli", "host", "--mount", str(mount), "--ram", "256M",
        "--vcpus", "2", "--idle",
    ]  # fmt: skip
    environment = {**os.environ, "XDG_RUNTIME_DIR": folder, "LIVEDUMPFS_STATE": folder}
    with subprocess.Popen(
        command, cwd=TOP, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
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


def main() -> int:
    """Draw."""
    parser = argparse.ArgumentParser(description="Draw the figures of docs/.")
    parser.add_argument("folder", nargs="?", type=Path, default=TOP / "docs" / "figures")
    into = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as folder, host(folder) as mount:
        history = watched(mount, folder)
    into.mkdir(parents=True, exist_ok=True)
    (into / "watch.svg").write_text(svg(history, "livedump watch vm1"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
