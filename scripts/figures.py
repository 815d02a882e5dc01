#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The figures of docs/, from real dumps: watch.svg, the picture of `livedump watch` in the middle
of one; report-light.png and report-dark.png, the page of `livedump report`, in Chromium.

    scripts/figures.py [FOLDER]

Runs a host of its own with the built-in guest, and leaves nothing behind but the figures.
`make figures` installs what it needs."""

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

from headless import chromium, opened  # noqa: E402
from rich._export_format import CONSOLE_SVG_FORMAT  # noqa: E402
from rich.console import Console  # noqa: E402

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
    (into / "watch.svg").write_text(svg(history, "livedump watch vm1"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
